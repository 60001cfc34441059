//! `in_progress`: every snapshot is started; EC2 says how far each is.

use super::{Backup, Presence, Seen, Step, Take, removal, step};
use crate::announce::Kind;
use crate::backup::Status;
use crate::limits::{Limits, VISIBLE};
use crate::operation::FailureCode;
use crate::time::{Seconds, Time};

/// How often progress alone is worth a write. Each event of a set brings a look.
const NOTE_EVERY: Seconds = Seconds(30);

/// Until when a snapshot must have moved, if an operator lets it.
pub(super) fn deadline(backup: &Backup, limits: &Limits, now: Time) -> Time {
    let since = backup.moved_at.unwrap_or(backup.created_at);
    since + limits.in_progress + limits.hold.held(since, now)
}

/// The deadline, if it has passed.
pub(super) fn overdue(
    backup: &Backup,
    limits: &Limits,
    now: Time,
) -> Option<(FailureCode, String)> {
    if now < deadline(backup, limits, now) {
        return None;
    }
    let span = limits.in_progress;
    let said = match &backup.trouble {
        Some(trouble) => {
            format!(" The last answer from AWS was: {}.", trouble.trim_end_matches('.'))
        }
        None => String::new(),
    };
    Some((
        FailureCode::DeadlineExceeded,
        format!(
            "No snapshot moved for {span}.{said} Look at the volumes' health in EC2, then create the backup again."
        ),
    ))
}

/// The next step of a backup in progress.
pub(super) fn advance(backup: &Backup, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = backup.clone();
    next.troubles = 0;
    next.trouble = None;
    let mut all_completed = true;
    let mut doubtful = false;
    let mut last = None;
    let old_enough = backup.taken_at.is_some_and(|at| now - at >= VISIBLE);
    for node in &mut next.nodes {
        let name = format!("node {}", node.node_id);
        let Take::Taken { set, .. } = &mut node.take else { continue };
        for taken in set {
            let id = &taken.snapshot_id;
            let fault = match seen.snapshots.get(id) {
                Some(Presence::There(snapshot)) => match snapshot.state.as_str() {
                    "completed" => {
                        taken.progress = 100;
                        last = last.max(snapshot.completed_at);
                        None
                    }
                    "error" => {
                        let said = snapshot.state_message.as_deref().unwrap_or("no reason given");
                        Some((
                            FailureCode::SnapshotFailed,
                            format!(
                                "Snapshot {id} of volume {} ({name}) failed in EC2: {said}. The backup's other snapshots are removed; create it again.",
                                taken.volume_id
                            ),
                        ))
                    }
                    // In the Recycle Bin, or on its way back from it: somebody deleted it.
                    "recoverable" | "recovering" => Some(missing(id.as_str(), &name)),
                    _ => {
                        all_completed = false;
                        // 100% while pending is not complete.
                        taken.progress = taken.progress.max(snapshot.progress.min(99));
                        None
                    }
                },
                Some(Presence::NotFound) if old_enough => Some(missing(id.as_str(), &name)),
                // Not shown yet, or not sure: look again.
                Some(Presence::NotFound | Presence::Unlisted) | None => {
                    all_completed = false;
                    doubtful = true;
                    None
                }
            };
            if let Some((code, reason)) = fault {
                next.fail(code, reason, now);
                return Step::Record(next);
            }
        }
    }
    let moved = next.nodes != backup.nodes;
    next.progress = weighed(&next);
    if all_completed && next.snapshots().next().is_some() {
        next.status = Status::Completed;
        // As EC2 says, even if it is later than `now`: a look that waited for its
        // answer began before. Never before the start.
        let completed = last.unwrap_or(now).max(backup.started_at.unwrap_or(now));
        next.completed_at = Some(completed);
        next.moved_at = Some(now);
        next.progress = 100;
        next.announce(Kind::BackupCompleted, completed.max(now));
        return Step::Record(next);
    }
    let noted = backup.moved_at.is_some_and(|at| now - at < NOTE_EVERY);
    if moved && noted && next.sweep_until.is_none() {
        return Step::Wait { until: step::next_look(backup, limits, now), note: None };
    }
    if moved {
        next.moved_at = Some(now);
    } else if let Some((code, reason)) = overdue(&next, limits, now) {
        next.fail(code, reason, now);
        return Step::Record(next);
    }
    let strays: Vec<_> = removal::strays_due(&next, seen, &limits.hold, now).collect();
    if !strays.is_empty() {
        return Step::Act { intent: next, actions: strays };
    }
    if removal::sweep_over(&next, seen, now) {
        next.sweep_until = None;
    }
    // Too long to be waited out in the invocation: EC2 lists a set within
    // seconds, and until it is complete there is nothing to do.
    let until = if doubtful { now + Seconds(20) } else { step::next_look(&next, limits, now) };
    let note = (next != *backup).then_some(next);
    Step::Wait { until, note }
}

/// The failure of a backup whose snapshot is gone.
fn missing(id: &str, node: &str) -> (FailureCode, String) {
    (
        FailureCode::SnapshotMissing,
        format!(
            "Snapshot {id} ({node}) was deleted outside of this service before it was complete. Create the backup again, and find out who deletes snapshots (CloudTrail, DeleteSnapshot)."
        ),
    )
}

/// Progress of the whole, weighed by the volumes' sizes.
fn weighed(backup: &Backup) -> u8 {
    let (done, all) = backup.snapshots().fold((0_u64, 0_u64), |(done, all), taken| {
        (done + taken.size_gib * u64::from(taken.progress), all + taken.size_gib)
    });
    u8::try_from(done.checked_div(all).unwrap_or(0)).unwrap_or(100).min(100)
}
