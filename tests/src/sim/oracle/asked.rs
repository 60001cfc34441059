//! What people ask for, as they know it, and what is remembered of it.

use jiff::Timestamp;
use serde_json::Value;

use super::super::scene::Key;
use super::pages::Page;
use crate::rows::BackupKey;

/// A request, as whoever sent it knows it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Timestamp,
    pub(crate) deployment: u64,
    pub(crate) key: Key,
    pub(crate) tenant: usize,
    /// Whether it is a key that counts. None: it ends at about this moment.
    pub(crate) good: Option<bool>,
    /// The key must not see the deployment.
    pub(crate) foreign: bool,
    /// What the request is called, to be known again.
    pub(crate) called: Option<String>,
    /// The hash of the secret that it bears.
    pub(crate) hash: String,
    pub(crate) what: What,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A page of the backups.
    List(Page),
    Create {
        name: String,
        body: Value,
    },
    Delete(u64),
    /// One backup.
    Show(u64),
    /// This backup is to be as the body.
    Patch {
        backup: u64,
        body: Value,
    },
    /// A restore of this backup.
    Restore {
        backup: u64,
        body: Value,
    },
    /// A page of the restores.
    Restores(Page),
    /// One restore.
    ShowRestore(u64),
    /// The schedule, or none.
    Schedule,
    /// A schedule that is to be as the body; null: none.
    Reschedule(Value),
    /// A request that must be refused with this status.
    Wrong(u16),
}

impl Asked {
    /// Whether whoever asks may change the deployment's backups.
    pub(super) fn may(&self) -> bool {
        let manages = !matches!(self.key, Key::Read);
        !self.foreign && manages && self.good != Some(false)
    }
}

/// A create that somebody has asked for.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) at: Timestamp,
    pub(super) body: Value,
    /// The backup that it got.
    pub(super) got: Option<BackupKey>,
    /// It was refused.
    pub(super) refused: Option<String>,
    /// How often it was sent, and how often nobody knows with what success.
    pub(super) tries: u32,
    pub(super) open: u32,
}
