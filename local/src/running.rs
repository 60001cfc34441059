//! Which invocations are running: for `/_local/clock`, `tick` and `settle`,
//! which wait for them, and for the stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::template::Name;

/// The invocations that are taken on and have not ended.
#[derive(Debug, Clone)]
pub(crate) struct Running(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    list: Mutex<List>,
    /// Counts what ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct List {
    next: u64,
    current: BTreeMap<u64, String>,
}

/// One invocation; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    running: Running,
}

impl Running {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { list: Mutex::default(), ended: watch::Sender::new(0) }))
    }

    /// An invocation of `function` for `what` begins.
    pub(crate) fn enter(&self, function: Name, what: &str) -> Entry {
        let mut list = self.list();
        let id = list.next;
        list.next += 1;
        list.current.insert(id, format!("{} runs for {what}", function.as_str()));
        Entry { id, running: self.clone() }
    }

    /// What runs now, in words.
    pub(crate) fn current(&self) -> Vec<String> {
        self.list().current.values().cloned().collect()
    }

    /// How many ever began: unchanged means that none did.
    pub(crate) fn begun(&self) -> u64 {
        self.list().next
    }

    /// Waits until all that have begun by now have ended.
    pub(crate) async fn drained(&self) {
        let limit = self.begun();
        let mut ended = self.0.ended.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        while self.list().current.keys().next().is_some_and(|oldest| *oldest < limit) {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.list().current.remove(&self.id);
        self.running.0.ended.send_modify(|ended| *ended += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_what_had_begun_and_for_nothing_later() {
        let running = Running::new();
        running.drained().await;
        let first = running.enter(Name::Worker, "one");
        assert_eq!(running.current(), ["worker runs for one"]);
        let waiting = tokio::spawn({
            let running = running.clone();
            async move { running.drained().await }
        });
        tokio::task::yield_now().await;
        let later = running.enter(Name::Worker, "two");
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("the first one ended");
        drop(later);
        assert!(running.current().is_empty());
    }
}
