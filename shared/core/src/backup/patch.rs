//! What a person changes of a backup that is there: its name, its remarks, its expiry.
//!
//! None of it is the operation's: a patch takes no revision, and no worker's write takes it
//! back. Only an expiry concerns both, for it says when the row is next looked at: a worker
//! whose backup gets another one meanwhile reads it again.

use super::{Backup, Status};
use crate::error::Refusal;
use crate::refusals;
use crate::time::{Seconds, Time};

/// The body of a patch: None leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// 1 to 100 characters, trimmed.
    pub name: Option<String>,
    /// Up to 500 characters; the inner None: none.
    pub remarks: Option<Option<String>>,
    /// 1 to 3650 days from now; the inner None: never.
    pub expires_in_days: Option<Option<u16>>,
}

/// The backup as the change leaves it. Also one that a restore needs, or that has failed.
///
/// # Errors
/// `backup_deleting`: nothing of it is kept.
pub fn patched(backup: &Backup, change: &Change, now: Time) -> Result<Backup, Refusal> {
    if backup.status == Status::Deleting {
        return Err(refusals::is_deleting(backup.id));
    }
    let mut next = backup.clone();
    if let Some(name) = &change.name {
        next.name.clone_from(name);
    }
    if let Some(remarks) = &change.remarks {
        next.remarks.clone_from(remarks);
    }
    if let Some(days) = change.expires_in_days {
        next.expires_at = days.map(|days| now + Seconds::days(days.into()));
        next.due_at = next.due_once_patched(backup.expires_at, now);
    }
    Ok(next)
}

impl Backup {
    /// When the row is due once its expiry is another one. What runs does not expire: the
    /// write that ends it looks at the expiry.
    fn due_once_patched(&self, old_expiry: Option<Time>, now: Time) -> Option<Time> {
        let ended = matches!(self.status, Status::Completed | Status::Failed);
        let rests = self.status == Status::Completed && self.rests();
        match self.due_at {
            at if !ended => at,
            None => self.expires_at,
            // Something else is to be done.
            Some(at) if old_expiry != Some(at) => {
                [Some(at), self.expires_at].into_iter().flatten().min()
            }
            Some(_) if rests => self.expires_at,
            // Perhaps something else is, at a time that the old expiry hid.
            Some(_) => Some(now),
        }
    }
}
