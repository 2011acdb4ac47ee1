//! What the facts of a daemon and its cluster mean.

use std::{collections::BTreeMap, time::Duration};

use weft_proto::v1::TunnelPeer;

use super::{
    Finding, Severity,
    facts::{Called, Daemon, Failed, Large, Member, Path, Quorum, Session},
    size, span,
};

/// Clocks that differ by more mislead who reads logs, and certificates begin or end too early; what is
/// asked of a manager tells whole seconds.
const CLOCK: f64 = 3.0;
/// A certificate with less than this part of its life left should have been renewed: that is tried when a
/// fifth is left, at the latest.
const RENEWED_BY: u32 = 6;
/// WireGuard shakes hands every two minutes while packets flow (section 6.1 of its paper), and forgets a
/// session after three.
const HANDSHAKE: Duration = Duration::from_secs(180);
/// A handshake that is younger says that a node is reached now.
const JUST_NOW: Duration = Duration::from_secs(15);
/// Most failed tasks that are told of.
const FAILED_MAX: usize = 10;

/// Everything that a daemon says.
pub(super) fn examine(daemon: &Daemon) -> Vec<Finding> {
    let mut findings = data_plane(daemon);
    findings.extend(failed(&daemon.failed));
    let Some(member) = &daemon.member else {
        findings.push(Finding::ok("cluster", "this node is in none"));
        return findings;
    };
    findings.push(session(&member.session));
    findings.extend(clocks(&member.managers));
    findings.extend(member.certificate.map(|(left, life)| certificate(left, life)));
    findings.extend(member.quorum.iter().flat_map(quorum));
    findings.extend(paths(member));
    findings.extend(links(member));
    findings.extend(overlaps(member));
    findings
}

fn data_plane(daemon: &Daemon) -> Vec<Finding> {
    let refused = daemon.errors.iter().map(|error| {
        Finding::problem(
            "data-plane",
            "the kernel refuses a change",
            error,
            "journalctl -u weft -n 50; it is tried again every few seconds",
        )
    });
    let troubled = daemon.troubled.iter().map(|(name, why)| {
        Finding::problem(
            "data-plane",
            format!("the network of container {name} is not as wanted"),
            why,
            format!("weft inspect {name}; journalctl -u weft -n 50"),
        )
    });
    let findings: Vec<_> = refused.chain(troubled).collect();
    if findings.is_empty() {
        return vec![Finding::ok("data-plane", "the kernel is as wanted")];
    }
    findings
}

fn failed(failed: &[Failed]) -> Vec<Finding> {
    if failed.is_empty() {
        return vec![Finding::ok("tasks", "none failed lately")];
    }
    let told = failed.iter().take(FAILED_MAX).map(|failed| {
        let text = format!("{} failed {} ago", failed.name, span(failed.ago));
        Finding::problem("tasks", text, &failed.error, &failed.look)
    });
    let more = failed.len().saturating_sub(FAILED_MAX);
    let rest = (more > 0).then(|| {
        let text = format!("{more} more failed lately");
        Finding::problem("tasks", text, "only some are shown here", "weft ps -a")
    });
    told.chain(rest).collect()
}

fn session(session: &Session) -> Finding {
    let Session { manager, error, lost } = session;
    if let Some(manager) = manager {
        return Finding::ok("session", format!("with manager {manager}"));
    }
    let since = lost.map(|lost| format!(" for {}", span(lost))).unwrap_or_default();
    let why = if error.is_empty() { "none has answered yet" } else { error };
    Finding::problem(
        "session",
        format!("no session with a manager{since}"),
        format!("{why}; containers and names go on as they are, and nothing changes"),
        "weft info | grep -A9 Managers, then on each of them: systemctl status weft; ss -ltn sport = :2377",
    )
}

fn clocks(managers: &[Called]) -> Vec<Finding> {
    let others = || managers.iter().filter(|manager| !manager.own);
    let silent = others().filter_map(|manager| {
        let why = manager.clock.as_ref().err()?;
        let address = manager.address;
        Some(Finding::problem(
            "managers",
            format!("manager {address} does not answer"),
            why,
            format!(
                "on that node: systemctl status weft; from here: nc -vz {} {}",
                address.ip(),
                address.port()
            ),
        ))
    });
    let wrong = others().filter_map(|manager| {
        let ahead = *manager.clock.as_ref().ok()?;
        let way = if ahead > 0.0 { "behind" } else { "ahead of" };
        (ahead.abs() > CLOCK).then(|| {
            Finding::problem(
                "clock",
                format!(
                    "this node's clock is {:.0} s {way} that of manager {}",
                    ahead.abs(),
                    manager.address
                ),
                "certificates count as not yet valid or as ended, and logs cannot be compared",
                "timedatectl set-ntp true; timedatectl status",
            )
        })
    });
    let findings: Vec<_> = silent.chain(wrong).collect();
    let answered = others().filter(|manager| manager.clock.is_ok()).count();
    match (findings.is_empty(), answered) {
        (true, 0) => vec![Finding::ok("managers", "no other is there to be asked")],
        (true, 1) => vec![Finding::ok("managers", "the other answers, with the same time")],
        (true, _) => {
            vec![Finding::ok("managers", format!("{answered} others answer, with the same time"))]
        }
        (false, _) => findings,
    }
}

fn certificate(left: i64, life: Duration) -> Finding {
    let renew =
        "weft info; journalctl -u weft -g certificate: it is renewed as soon as a manager answers";
    let Ok(left) = u64::try_from(left).map(Duration::from_secs) else {
        return Finding::problem(
            "certificate",
            "this node's certificate has ended",
            "no other node talks to this one until it is renewed",
            renew,
        );
    };
    if left < life / RENEWED_BY {
        return Finding::problem(
            "certificate",
            format!("this node's certificate ends in {}", span(left)),
            "it should have been renewed: no manager has done so",
            renew,
        );
    }
    Finding::ok("certificate", format!("good for {}", span(left)))
}

fn quorum(quorum: &Quorum) -> Vec<Finding> {
    let voters = quorum.voters.len();
    let alive = quorum.voters.iter().filter(|(_, _, alive)| *alive).count();
    let majority = voters / 2 + 1;
    let silent: Vec<_> = quorum
        .voters
        .iter()
        .filter(|voter| !voter.2)
        .map(|(name, at, _)| format!("{name} ({at})"))
        .collect();
    let silent = silent.join(", ");
    let mut findings = Vec::new();
    if alive < majority {
        findings.push(Finding::problem(
            "quorum",
            format!(
                "the quorum is lost: {alive} of {voters} managers answer, {majority} are needed"
            ),
            format!(
                "not in touch: {silent}; nothing of the cluster can be changed, containers go on"
            ),
            "start the daemons of those managers: systemctl start weft",
        ));
    } else if !quorum.leader {
        findings.push(Finding::problem(
            "quorum",
            "no manager leads",
            "an election takes a second or two; if it does not end, managers cannot reach each other at 2377",
            "weft info, again in some seconds; nc -vz MANAGER 2377",
        ));
    } else if alive == majority && voters > 1 {
        let why = match silent.is_empty() {
            true => format!("of {voters} managers none may fail"),
            false => format!("not in touch: {silent}"),
        };
        let fix = match silent.is_empty() {
            true => "weft node promote NODE, for an odd number of managers",
            false => {
                "on those managers: systemctl start weft; or weft node demote NODE and promote another"
            }
        };
        let text = "one more failure of a manager, and the quorum is lost";
        findings.push(Finding::warning("quorum", text, why, fix));
    } else {
        findings
            .push(Finding::ok("quorum", format!("{alive} of {voters} managers, and one leads")));
    }
    findings.extend(quorum.condemned.iter().map(|why| {
        Finding::problem(
            "store",
            "this manager takes no part in the cluster",
            why,
            "weft cluster leave --force, then join again; on another manager: weft node rm --force",
        )
    }));
    findings.extend(quorum.no_room.map(|(free, needed)| {
        let text =
            format!("this manager's disk has {} left, {} are needed", size(free), size(needed));
        let why = "it writes nothing for callers, and another manager leads if one has room";
        Finding::problem("store", text, why, "df -h /var/lib/weft; journalctl --vacuum-size 200M")
    }));
    findings.extend(quorum.away.iter().map(|(name, state, since, why)| {
        Finding::problem(
            "nodes",
            format!("node {name} is {state} for {}", span(*since)),
            if why.is_empty() { "it is not heard of" } else { why },
            format!("on {name}: systemctl status weft; if it is gone for ever: weft node rm --force {name}"),
        )
    }));
    if quorum.away.is_empty() {
        findings.push(Finding::ok("nodes", "all are in touch"));
    }
    findings.extend(quorum.full.iter().map(|(name, free, all)| {
        let why = "a task that gets no address waits";
        let text = format!("network {name} has {free} of {all} addresses left");
        Finding::warning(
            "addresses",
            text,
            why,
            "weft network create --subnet LARGER NAME, and move services there",
        )
    }));
    findings
}

fn paths(member: &Member) -> Vec<Finding> {
    let wanted = || member.paths.iter().filter(|path| !path.down);
    let findings: Vec<_> = wanted().filter_map(|path| path_finding(path, member)).collect();
    match findings.is_empty() {
        true => vec![Finding::ok("underlay", format!("{} other nodes answer", wanted().count()))],
        false => findings,
    }
}

fn path_finding(path: &Path, member: &Member) -> Option<Finding> {
    let name = match &path.hostname {
        Some(name) => format!("node {name} ({})", path.address),
        None => format!("the node at {}", path.address),
    };
    let address = path.address;
    if !path.answers {
        let called = member.managers.iter().any(|m| m.address.ip() == address && m.clock.is_ok());
        if called || shakes_hands(path, member) {
            return Some(Finding::warning(
                "underlay",
                format!("{name} answers no ping"),
                "it answers otherwise; with ICMP dropped on the way, paths that shrink are not noticed",
                "let ICMP echo and ICMP \"fragmentation needed\" pass between the nodes",
            ));
        }
        return Some(Finding::problem(
            "underlay",
            format!("{name} cannot be reached"),
            "its data path's address answers no ping: no packet of a container gets there",
            format!("ip route get {address}; ping -c 3 {address}"),
        ));
    }
    match path.large {
        Some(Large { size, passes, whole: false }) => {
            let most = match passes {
                Some(passes) => format!("{passes} bytes do"),
                None => "small ones do".to_owned(),
            };
            let mtu = passes
                .map_or_else(|| "MTU".to_owned(), |passes| passes.saturating_sub(110).to_string());
            Some(Finding::problem(
                "underlay",
                format!("packets of {size} bytes do not reach {name}, {most}"),
                "the path between the nodes is narrower than their devices: large packets of containers are lost",
                format!(
                    "make the devices on the way equal (ip link set DEV mtu N), or make networks with -o mtu={mtu}; \
                     tracepath -n {address} shows where"
                ),
            ))
        }
        Some(Large { whole: true, .. }) | None => None,
    }
}

fn shakes_hands(path: &Path, member: &Member) -> bool {
    let Some(Ok(links)) = &member.links else { return false };
    let same =
        |peer: &&TunnelPeer| path.hostname.as_ref().is_some_and(|name| *name == peer.hostname);
    links.peers.iter().filter(same).any(|peer| age(peer).is_some_and(|age| age < JUST_NOW))
}

/// Since the last handshake.
fn age(peer: &TunnelPeer) -> Option<Duration> {
    let age = peer.handshake_age.as_ref()?;
    Some(Duration::from_secs(u64::try_from(age.seconds).unwrap_or(0)))
}

fn links(member: &Member) -> Vec<Finding> {
    let links = match &member.links {
        None => return Vec::new(),
        Some(Err(why)) => {
            let text = "what carries the encrypted links does not answer";
            let fix = "journalctl -u weft -n 50; the daemon starts it anew";
            return vec![Finding::problem("links", text, why, fix)];
        }
        Some(Ok(links)) => links,
    };
    if links.peers.is_empty() && links.drops.is_empty() {
        return Vec::new();
    }
    let mut findings: Vec<_> = links.peers.iter().filter_map(|peer| link(peer, member)).collect();
    findings.extend(links.peers.iter().filter_map(dropped));
    let unknown = harmful(&links.drops);
    if !unknown.is_empty() {
        let text = "packets of the encrypted links were dropped; from whom is not known";
        let why = format!("since the engine's start: {}", counts(&unknown));
        let fix = "weft doctor on the other nodes; where they come from one address: \
                   nft add rule inet weft weft-user ip saddr ADDRESS drop";
        findings.push(Finding::warning("links", text, why, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("links", format!("{} encrypted links work", links.peers.len())));
    }
    findings
}

/// A link whose node answers, or is not known to be down, should have had its handshake: it is made when
/// there is a packet for that node, and kept up while there are any.
fn link(peer: &TunnelPeer, member: &Member) -> Option<Finding> {
    let down = |path: &Path| path.down && path.hostname.as_ref() == Some(&peer.hostname);
    if member.paths.iter().any(down) {
        return None;
    }
    let sent_in_vain = peer.sent_bytes > 0 && peer.received_bytes == 0;
    let text = match age(peer) {
        Some(age) if age < HANDSHAKE => return None,
        // Nothing is said where nobody has anything to say.
        Some(_) if !peer.drops.contains_key("no-session") => return None,
        Some(age) => format!("the last handshake with node {} is {} old", peer.hostname, span(age)),
        None if sent_in_vain || !peer.drops.is_empty() => {
            format!("no handshake with node {}", peer.hostname)
        }
        None => return None,
    };
    let reason = match peer.drops.is_empty() {
        true => "what was sent got no answer".to_owned(),
        false => format!("dropped: {}", counts(&peer.drops)),
    };
    let port = peer.endpoint.rsplit(':').next().unwrap_or_default();
    let mut finding = Finding::problem(
        "links",
        text,
        format!("{reason}; containers on encrypted networks of both nodes do not reach each other"),
        format!(
            "let UDP {port} and the ports after it pass between the nodes: nft list ruleset | grep -n {port}; \
             weft node inspect --pretty self"
        ),
    );
    if age(peer).is_some() {
        finding.severity = Severity::Warning;
    }
    Some(finding)
}

fn dropped(peer: &TunnelPeer) -> Option<Finding> {
    let bad = harmful(&peer.drops);
    (!bad.is_empty()).then(|| {
        Finding::warning(
            "links",
            format!("packets of the link with node {} were dropped", peer.hostname),
            format!("since its start: {}", counts(&bad)),
            format!(
                "on {}: weft doctor; a container there may send from addresses that are not its own",
                peer.hostname
            ),
        )
    })
}

/// Drops that are no part of a link's everyday life.
fn harmful(drops: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    const HARMLESS: [&str; 3] = ["no-session", "no-destination", "under-load"];
    let bad = drops.iter().filter(|(reason, _)| !HARMLESS.contains(&reason.as_str()));
    bad.map(|(reason, count)| (reason.clone(), *count)).collect()
}

fn counts(drops: &BTreeMap<String, u64>) -> String {
    let words: Vec<_> = drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    words.join(", ")
}

fn overlaps(member: &Member) -> Vec<Finding> {
    let findings = member.overlaps.iter().map(|(network, subnet, whose)| {
        Finding::problem(
            "routes",
            format!("network {network} ({subnet}) lies over {whose}"),
            "packets of this host for that destination go to the network, or the network's to the route",
            format!("weft network create --subnet OTHER NAME, move its services there, and weft network rm {network}"),
        )
    });
    findings.collect()
}
