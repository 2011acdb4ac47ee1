//! Every limit of this crate in one place, each with its reason, so that an error can name it.

use std::time::Duration;

/// How long a client may keep a name of ours, in seconds. An endpoint that goes away is forgotten
/// by every client within this time, and its address rests longer than this.
pub const LOCAL_TTL: u32 = 5;

/// Largest UDP answer without EDNS (RFC 1035 section 4.2.1), and the least an EDNS size means.
pub const UDP_MIN: usize = 512;
/// Largest UDP answer at all: fits an IPv6 packet of 1,280 bytes, so it is never fragmented.
pub const UDP_MAX: usize = 1232;
/// Largest message over TCP: the length prefix has 16 bits.
pub const TCP_MAX: usize = 65_535;
/// Receive buffer for one UDP query. Real queries stay far below; a longer one is cut by the
/// kernel, no longer parses and is answered with FORMERR.
pub const QUERY_MAX: usize = 2048;
/// Compression pointers followed in one name. Honest messages need one or two.
pub const POINTER_HOPS: usize = 10;
/// Records a query may carry besides its question (OPT, TSIG, and room for the unknown).
pub const QUERY_RECORDS: usize = 8;
/// Records an upstream reply may carry; more is an attack on our clients rather than an answer.
pub const REPLY_RECORDS: usize = 2_000;

/// UDP queries taken from one socket before other sandboxes get their turn.
pub const UDP_BATCH: usize = 32;
/// Open TCP connections of one sandbox; one more is accepted and closed at once.
pub const TCP_CONNECTIONS: usize = 32;
/// Bytes of replies gathered on a connection before they are sent, over which one reply may go.
pub const TCP_OUTPUT: usize = 65_536;
/// Time for one whole message to arrive, and for one batch of replies to be taken.
pub const TCP_STALL: Duration = Duration::from_secs(2);
/// Pause after `accept` fails (out of file descriptors), so that the loop does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Upstream servers used for one query, as in resolv.conf (MAXNS).
pub const UPSTREAMS: usize = 3;
/// Silence after which the next upstream is asked too; the earlier ones are still listened to.
pub const UPSTREAM_HEDGE: Duration = Duration::from_millis(500);
/// Time after which a forwarded query is answered with SERVFAIL.
pub const UPSTREAM_TOTAL: Duration = Duration::from_secs(2);
/// Replies on one upstream socket that are not the answer before the socket is given up.
pub const UPSTREAM_WRONG_REPLIES: usize = 16;
/// Different queries in flight for one sandbox, over UDP and all its connections; one more is
/// REFUSED.
pub const FORWARD_IN_FLIGHT: usize = 64;
/// Clients of one sandbox that wait for an answer from upstream; those with the same question wait
/// for one query in flight.
pub const FORWARD_WAITING: usize = 1_024;
/// Queries a second one sandbox may send upstream (answers from the cache are free).
pub const FORWARD_RATE: u32 = 200;
/// Queries a sandbox may send upstream at once after a pause.
pub const FORWARD_BURST: u32 = 400;

/// Answers kept, over all sandboxes.
pub const CACHE_ENTRIES: usize = 4_096;
/// Largest answer kept, in bytes: with `CACHE_ENTRIES` it bounds the cache to 16 MiB.
pub const CACHE_MESSAGE: usize = 4_096;
/// Longest an upstream answer is kept or promised to a client, in seconds.
pub const CACHE_TTL: u32 = 300;
/// Longest a "there is no such name" of an upstream is kept, in seconds (RFC 2308 section 5).
pub const CACHE_NEGATIVE_TTL: u32 = 60;
