//! What to do when `accept` fails: nothing if the one connection died, wait if the system is out of
//! something.

use std::io;
use std::time::Duration;

/// First wait after the system ran out of file descriptors or memory.
const FIRST: Duration = Duration::from_millis(10);
/// Longest wait: an open slot is noticed within a second.
const LONGEST: Duration = Duration::from_secs(1);

/// The wait after the next failed `accept`.
#[derive(Debug, Default)]
pub(super) struct AcceptBackoff {
    last: Option<Duration>,
}

impl AcceptBackoff {
    pub(super) fn succeeded(&mut self) {
        self.last = None;
    }

    /// How long to wait before the next try; `None` if only that one connection was at fault.
    ///
    /// Whatever is not known to be of one connection is waited for (`EMFILE`, `ENFILE`, `ENOBUFS`,
    /// `ENOMEM`): such an error comes back at once, and a loop without a wait would take a
    /// processor until it passes.
    pub(super) fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind as Kind;
        // Linux passes errors of the new connection on through accept(2).
        let one_connection = [
            Kind::ConnectionAborted,
            Kind::ConnectionReset,
            Kind::HostUnreachable,
            Kind::Interrupted,
            Kind::NetworkDown,
            Kind::NetworkUnreachable,
            Kind::TimedOut,
        ];
        if one_connection.contains(&error.kind()) {
            return None;
        }
        let wait = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(wait);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_forgets_after_success() {
        let mut backoff = AcceptBackoff::default();
        let full = io::Error::from_raw_os_error(24);
        let waits: Vec<_> = (0..9).filter_map(|_| backoff.failed(&full)).collect();
        assert_eq!((waits[0], waits[1], waits[8]), (FIRST, FIRST * 2, LONGEST));
        assert!(waits.is_sorted());
        assert_eq!(backoff.failed(&io::ErrorKind::ConnectionAborted.into()), None);
        backoff.succeeded();
        assert_eq!(backoff.failed(&full), Some(FIRST));
    }
}
