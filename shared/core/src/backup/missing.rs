//! A completed backup of which a snapshot may be gone.
//!
//! ```text
//!   completed ──▶ NotFound for that very id ──▶ remembered ──▶ an hour later ──┬─ there: forgotten
//!       ▲         (reconciliation asks)          with its time    asked again  │
//!       └──────────────────────────────────────────────────────────────────────┤
//!                                                     NotFound again: failed ◀─┘
//! ```
//!
//! To call a good backup failed is as bad as to call a lost one completed. So an empty
//! list, an error, and a missing right never count, and one `NotFound` is no proof
//! either. Nothing is decided while a restore needs the backup. Nothing is ever deleted
//! here: what is left of the set may be all that there is.

use serde::{Deserialize, Serialize};

use super::{Backup, Presence, Seen, Status, Step};
use crate::id::SnapshotId;
use crate::limits::MISSING_AGAIN;
use crate::operation::FailureCode;
use crate::time::{Seconds, Time};

/// How often it is looked whether a restore still needs the backup.
const UNPINNED_EVERY: Seconds = Seconds::minutes(10);

/// A snapshot that EC2 said is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub snapshot_id: SnapshotId,
    /// No earlier than this did EC2 say so first: an hour later it is asked again.
    pub at: Time,
}

/// Remembers that EC2 said `InvalidSnapshot.NotFound` for this very id, at `at` or just
/// before. None: it is of no use to this backup, as it is now: not completed, needed by
/// a restore, without that snapshot, or it remembers one already.
pub fn note_missing(backup: &Backup, snapshot_id: &SnapshotId, at: Time) -> Option<Backup> {
    let named = backup.snapshots().any(|taken| taken.snapshot_id == *snapshot_id);
    if backup.status != Status::Completed
        || backup.pinned_by.is_some()
        || backup.missing.is_some()
        || !named
    {
        return None;
    }
    let mut next = backup.clone();
    next.missing = Some(Missing { snapshot_id: snapshot_id.clone(), at });
    Some(next)
}

/// The snapshot that is to be asked for again now, by its id.
pub(super) fn asked_again(backup: &Backup, now: Time) -> Option<&SnapshotId> {
    let missing = backup.missing.as_ref()?;
    let due = backup.pinned_by.is_none() && now >= missing.at + MISSING_AGAIN;
    due.then_some(&missing.snapshot_id)
}

/// The next step of a completed backup.
pub(super) fn advance(backup: &Backup, seen: &Seen, now: Time) -> Step {
    let Some(missing) = &backup.missing else {
        return super::removal::advance(backup, seen, now);
    };
    let again = asked_again(backup, now);
    let until = match again.and_then(|id| seen.snapshots.get(id)) {
        Some(Presence::NotFound) => {
            let mut next = backup.clone();
            let reason = format!(
                "Snapshot {} is not there any more: EC2 said so at {} and at {now}. Somebody has deleted it (CloudTrail, DeleteSnapshot). The other snapshots of the backup are left; it cannot be restored.",
                missing.snapshot_id, missing.at
            );
            next.completed_at = None;
            next.fail(FailureCode::SnapshotMissing, reason, now);
            return Step::Record(next);
        }
        Some(Presence::There(_)) => {
            let mut next = backup.clone();
            next.missing = None;
            next.troubles = 0;
            next.trouble = None;
            return Step::Record(next);
        }
        // Neither there nor surely gone: asked again, for as long as it takes.
        Some(Presence::Unlisted) => now + MISSING_AGAIN,
        // Not its time yet; or a restore needs the backup, and finds out by itself.
        None => (missing.at + MISSING_AGAIN).max(now + UNPINNED_EVERY),
    };
    match super::removal::advance(backup, seen, now) {
        Step::Wait { until: other, note } => Step::Wait { until: until.min(other), note },
        Step::Rest => Step::Wait { until, note: None },
        step => step,
    }
}
