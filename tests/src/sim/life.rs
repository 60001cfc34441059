//! The life of one instance of a function: a process on AWS, with clients and
//! caches of its own. It takes one invocation at a time, and dies of a crash.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use local::Name;
use tokio::sync::Notify;

/// An instance's life.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) id: u32,
    pub(crate) function: Name,
    death: Notify,
    /// It crashes before it does anything more.
    doomed: AtomicBool,
    /// A fault has met one of its calls since this was last asked.
    disturbed: AtomicBool,
}

impl Life {
    pub(crate) fn new(id: u32, function: Name) -> Self {
        Self {
            id,
            function,
            death: Notify::new(),
            doomed: AtomicBool::new(false),
            disturbed: AtomicBool::new(false),
        }
    }

    /// It crashes: its future is dropped by whoever waits for [`Life::died`].
    pub(crate) fn kill(&self) {
        self.death.notify_one();
    }

    pub(crate) async fn died(&self) {
        self.death.notified().await;
    }

    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }

    pub(crate) fn disturb(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
    }

    /// Whether a fault has met it since this was last asked.
    pub(crate) fn take_disturbed(&self) -> bool {
        self.disturbed.swap(false, Ordering::Relaxed)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.function.as_str(), self.id)
    }
}
