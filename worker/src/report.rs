//! What this node has seen of its tasks, until the managers have taken it in.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use weft_model::{TaskId, command::TaskReport};

/// The newest report of each task. A later one replaces an earlier one that was not sent yet: states
/// only go forward, so nothing is lost by it.
#[derive(Debug)]
pub struct ReportBook {
    book: Mutex<Book>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    reports: BTreeMap<TaskId, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    report: TaskReport,
}

impl Default for ReportBook {
    fn default() -> Self {
        Self { book: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl ReportBook {
    /// Notes what was seen.
    pub fn note(&self, report: TaskReport) {
        let mut book = self.lock();
        book.next += 1;
        let number = book.next;
        book.reports.insert(report.task, Entry { number, report });
        drop(book);
        self.changed.send_replace(number);
    }

    /// Forgets a task that is no longer this node's.
    pub fn forget(&self, task: TaskId) {
        self.lock().reports.remove(&task);
    }

    /// Reports noted after number `after`, and the number of the newest.
    pub fn since(&self, after: u64) -> (Vec<TaskReport>, u64) {
        let book = self.lock();
        let mut newer: Vec<_> =
            book.reports.values().filter(|entry| entry.number > after).cloned().collect();
        newer.sort_by_key(|entry| entry.number);
        let newest = newer.last().map_or(after, |entry| entry.number);
        (newer.into_iter().map(|entry| entry.report).collect(), newest)
    }

    /// Tells when there are new ones.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The map is whole also if a holder of the lock panicked: each change is one call.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use weft_model::TaskState;

    use super::*;

    fn report(task: u8, state: TaskState) -> TaskReport {
        TaskReport {
            task: TaskId::from_bytes([task; 32]),
            state,
            message: String::new(),
            error: String::new(),
            exit_code: None,
            pid: 0,
            released: false,
            unhealthy: false,
        }
    }

    #[test]
    fn the_newest_of_each_task_is_told_until_forgotten() {
        let reports = ReportBook::default();
        reports.note(report(1, TaskState::Preparing));
        reports.note(report(2, TaskState::Running));
        reports.note(report(1, TaskState::Running));
        let (told, newest) = reports.since(0);
        assert_eq!(told, [report(2, TaskState::Running), report(1, TaskState::Running)]);
        assert_eq!(reports.since(newest), (vec![], newest));
        reports.forget(TaskId::from_bytes([2; 32]));
        assert_eq!(reports.since(0).0, [report(1, TaskState::Running)]);
    }
}
