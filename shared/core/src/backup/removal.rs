//! What must go from EC2: all of a failed or deleted backup, and the strays of
//! calls whose outcome nobody knew.

use std::collections::BTreeSet;

use super::{Action, Backup, Presence, Seen, Status, Step, Take};
use crate::announce::Kind;
use crate::brake::Hold;
use crate::error::Refusal;
use crate::id::SnapshotId;
use crate::limits::VISIBLE;
use crate::operation::backoff;
use crate::refusals;
use crate::time::Time;

/// What a user's delete comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// Store this: it is `deleting` now.
    Begin(Box<Backup>),
    /// It is `deleting` already.
    UnderWay,
}

/// A user deletes the backup.
///
/// # Errors
/// `restore_in_progress` while a restore needs it; `backup_not_deletable` while it is
/// pending or in progress.
pub fn start_delete(backup: &Backup) -> Result<Deletion, Refusal> {
    if let Some(by) = backup.pinned_by {
        return Err(crate::restore::pinned(backup.id, by));
    }
    match backup.status {
        Status::Pending | Status::InProgress => {
            Err(refusals::not_deletable(backup.id, backup.status))
        }
        Status::Deleting => Ok(Deletion::UnderWay),
        Status::Completed | Status::Failed => {
            let mut next = backup.clone();
            next.status = Status::Deleting;
            next.not_before = None;
            next.troubles = 0;
            next.rounds = 0;
            next.held = None;
            next.missing = None;
            Ok(Deletion::Begin(Box::new(next)))
        }
    }
}

/// The backup's time is over: the same path as a user's delete, announced as
/// what it is. None: it runs or goes already.
pub fn start_expiry(backup: &Backup, now: Time) -> Option<Backup> {
    match start_delete(backup) {
        Ok(Deletion::Begin(mut next)) => {
            next.announce(Kind::BackupExpired, now);
            Some(*next)
        }
        Ok(Deletion::UnderWay) | Err(_) => None,
    }
}

/// Tagged as this backup's, with its token, and in no set that it has or may
/// still adopt: nobody needs them.
pub(super) fn strays<'a>(
    backup: &'a Backup,
    seen: &'a Seen,
) -> impl Iterator<Item = SnapshotId> + 'a {
    let kept: BTreeSet<&SnapshotId> = backup.snapshots().map(|taken| &taken.snapshot_id).collect();
    seen.tagged
        .iter()
        .filter(|snapshot| snapshot.description.ends_with(backup.token.as_str()))
        .filter(|snapshot| {
            !backup.nodes.iter().any(|node| match node.take {
                Take::Called { attempt, .. } => {
                    snapshot.node_id == Some(node.node_id) && snapshot.attempt == Some(attempt)
                }
                Take::Open { .. } | Take::Taken { .. } => false,
            })
        })
        .filter(move |snapshot| !kept.contains(&snapshot.snapshot_id))
        .map(|snapshot| snapshot.snapshot_id.clone())
}

/// Deletes of strays, for a backup that goes on meanwhile: not again before
/// the pause after the last round is over, nor while an operator has paused deletions. They
/// never hold the backup up.
pub(super) fn strays_due<'a>(
    backup: &'a Backup,
    seen: &'a Seen,
    hold: &Hold,
    now: Time,
) -> impl Iterator<Item = Action> + 'a {
    let due = !hold.deletions && backup.strays_not_before.is_none_or(|at| at <= now);
    strays(backup, seen).filter(move |_| due).map(Action::DeleteSnapshot)
}

/// Whether nothing of an unknown outcome can show up any more, and none is there.
pub(super) fn sweep_over(backup: &Backup, seen: &Seen, now: Time) -> bool {
    backup.sweep_until.is_some_and(|until| now >= until) && strays(backup, seen).next().is_none()
}

/// The next step of a completed, failed, or deleting backup.
pub(super) fn advance(backup: &Backup, seen: &Seen, now: Time) -> Step {
    if !backup.removal_open() {
        return match backup.status {
            Status::Deleting if backup.outbox.is_empty() => Step::Remove,
            // The shell publishes the outbox; the row goes when it is out.
            Status::Deleting => Step::Wait { until: now + backoff(2), note: None },
            _ => Step::Rest,
        };
    }
    let mut doomed: BTreeSet<SnapshotId> = strays(backup, seen).collect();
    let mut unsure = false;
    let asked: BTreeSet<&SnapshotId> =
        backup.snapshots().filter(|taken| taken.asked).map(|taken| &taken.snapshot_id).collect();
    if backup.status != Status::Completed && !backup.is_lost() {
        for (id, presence) in &seen.snapshots {
            match presence {
                // Deleted while pending, it goes when it completes (EC2 API
                // reference, `DeleteSnapshot`): asking again changes nothing
                // until then.
                Presence::There(snapshot) if asked.contains(id) && snapshot.state == "pending" => {
                    unsure = true;
                }
                Presence::There(_) => {
                    doomed.insert(id.clone());
                }
                // No empty list stands for a delete: each is asked for once. And only once,
                // or of hundreds those that are gone take the calls of those that are not.
                Presence::Unlisted if !asked.contains(id) => {
                    doomed.insert(id.clone());
                }
                // Of a completed backup each was described, and its delete was taken.
                Presence::Unlisted => unsure |= backup.completed_at.is_none(),
                // A new snapshot is not there at once (EC2 API reference,
                // "Eventual consistency"), and a delete of it did nothing:
                // absence counts only later.
                Presence::NotFound => unsure |= !old_enough(backup, now),
            }
        }
    }
    if !doomed.is_empty() {
        let actions = doomed.into_iter().map(Action::DeleteSnapshot).collect();
        return Step::Act { intent: backup.clone(), actions };
    }
    if let Some(until) = backup.sweep_until
        && now < until
    {
        let note = backup.held.is_some().then(|| let_on(backup));
        return Step::Wait { until, note };
    }
    if unsure {
        // Of one that still copies EC2 tells when it ends: until then it is looked at
        // less and less often.
        let mut next = let_on(backup);
        next.rounds = next.rounds.saturating_add(1);
        return Step::Wait { until: now + backoff(next.rounds), note: Some(next) };
    }
    let mut next = backup.clone();
    next.sweep_until = None;
    next.held = None;
    next.strays_not_before = None;
    next.rounds = 0;
    next.troubles = 0;
    next.trouble = None;
    match backup.status {
        Status::Deleting => {
            next.gone = true;
            next.failure = None;
            next.announce(Kind::BackupDeleted, now);
        }
        Status::Failed if backup.is_lost() => {}
        Status::Failed => {
            // It holds no AWS resource any more, and shows none.
            next.size_bytes = None;
            next.owners = Vec::new();
            for node in &mut next.nodes {
                if let Take::Taken { attempt, .. } = node.take {
                    node.take = Take::Open { attempt, not_before: None };
                }
            }
        }
        Status::Pending | Status::InProgress | Status::Completed => {}
    }
    Step::Record(next)
}

/// The row of a removal that only waits: AWS lets us look again, and nothing is refused.
fn let_on(backup: &Backup) -> Backup {
    let mut next = backup.clone();
    if next.held.take().is_some() && next.status == Status::Deleting {
        next.failure = None;
    }
    next
}

/// Whether the newest snapshot is surely visible, if it is there: each of a
/// completed backup was described, the others are given time.
fn old_enough(backup: &Backup, now: Time) -> bool {
    if backup.completed_at.is_some() {
        return true;
    }
    let newest = backup.taken_at.unwrap_or(backup.created_at);
    now - newest >= VISIBLE
}
