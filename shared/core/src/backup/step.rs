//! What to look at, and what follows from what was seen.

use super::{Action, Backup, Seen, Status, Step, Take};
use crate::brake::{HELD, Hold};
use crate::id::{InstanceId, SnapshotId};
use crate::limits::{LOOKS, LOOKS_OF_SCHEDULES, Limits, VISIBLE};
use crate::operation::{CallError, backoff};
use crate::time::Time;

/// What EC2 must be asked before [`step()`] can decide.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// Describe these instances with their volumes.
    pub instances: Vec<InstanceId>,
    /// Describe what bears this backup's tags.
    pub tagged: bool,
    /// Describe these snapshots by id.
    pub snapshots: Vec<SnapshotId>,
    /// A snapshot that is not listed is asked for by its own id: only
    /// `InvalidSnapshot.NotFound` for that id proves it missing.
    pub confirm_missing: bool,
}

impl Look {
    /// Whether EC2 need not be asked at all.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && !self.tagged && self.snapshots.is_empty()
    }
}

/// What must be looked at for the next step of `backup`.
pub fn look(backup: &Backup, now: Time) -> Look {
    if backup.not_before.is_some_and(|at| at > now) {
        return Look::default();
    }
    let ids = || backup.snapshots().map(|taken| taken.snapshot_id.clone()).collect();
    let sweeping = backup.sweep_until.is_some();
    match backup.status {
        Status::Pending => {
            let open = backup.nodes.iter().filter(|node| match node.take {
                Take::Open { not_before, .. } => not_before.is_none_or(|at| at <= now),
                Take::Called { .. } | Take::Taken { .. } => false,
            });
            let called = backup.nodes.iter().any(|node| matches!(node.take, Take::Called { .. }));
            Look {
                instances: open.map(|node| node.instance_id.clone()).collect(),
                tagged: called || sweeping,
                ..Look::default()
            }
        }
        Status::InProgress => {
            // Before it is listed for sure, an absence need not be confirmed.
            let confirm_missing = backup.taken_at.is_none_or(|at| now - at >= VISIBLE);
            Look { snapshots: ids(), tagged: sweeping, confirm_missing, ..Look::default() }
        }
        Status::Completed => {
            let again = super::missing::asked_again(backup, now);
            let confirm_missing = again.is_some();
            let snapshots = again.into_iter().cloned().collect();
            Look { snapshots, tagged: sweeping, confirm_missing, ..Look::default() }
        }
        Status::Failed if backup.is_lost() => Look { tagged: sweeping, ..Look::default() },
        // Also by tag, always: whatever the row did not come to know goes with it.
        Status::Failed | Status::Deleting if backup.removal_open() => {
            // Of what was never complete EC2 may have denied the delete, not knowing it
            // yet: then no list tells that it is gone.
            let confirm_missing =
                backup.snapshots().all(|taken| taken.asked) && backup.completed_at.is_none();
            Look { snapshots: ids(), tagged: true, confirm_missing, ..Look::default() }
        }
        Status::Failed | Status::Deleting => Look::default(),
    }
}

/// The next step of `backup`, from what [`look()`] asked for.
///
/// `now` is the very time that [`look()`] was given, not a later one: what was not
/// due then was not asked for, and must not be taken for missing. Pure: the same
/// row, sight, and time give the same step.
pub fn step(backup: &Backup, seen: Result<&Seen, &CallError>, limits: &Limits, now: Time) -> Step {
    if let Some(at) = backup.not_before
        && at > now
    {
        return Step::Wait { until: at, note: None };
    }
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return blind(backup, error, limits, now),
    };
    let step = match backup.status {
        Status::Pending => super::pending::advance(backup, seen, limits, now),
        Status::InProgress => super::progress::advance(backup, seen, limits, now),
        Status::Completed => super::missing::advance(backup, seen, now),
        Status::Failed | Status::Deleting => super::removal::advance(backup, seen, now),
    };
    match step {
        Step::Act { intent, actions } => held_back(intent, actions, &limits.hold, now),
        other => other,
    }
}

/// The calls that an operator has not paused. The intent is stored with the first of them,
/// and dropped without one: a removal's says nothing, and a create's nothing that is so yet.
fn held_back(intent: Backup, mut actions: Vec<Action>, hold: &Hold, now: Time) -> Step {
    actions.retain(|action| match action {
        Action::CreateSnapshots { .. } => !hold.writes,
        Action::DeleteSnapshot(_) => !hold.deletions,
    });
    if actions.is_empty() {
        return Step::Wait { until: now + HELD, note: None };
    }
    Step::Act { intent, actions }
}

/// Whether an operator has paused all that `backup` is about, so that EC2 need not be looked
/// at: of many that wait, each look would be for nothing.
pub fn is_held(backup: &Backup, hold: &Hold) -> bool {
    match backup.status {
        Status::Pending => {
            let open = backup.nodes.iter().all(|node| matches!(node.take, Take::Open { .. }));
            hold.writes && open && backup.sweep_until.is_none()
        }
        Status::Failed | Status::Deleting => hold.deletions && backup.removal_open(),
        Status::InProgress | Status::Completed => false,
    }
}

/// EC2 did not let us look. Only a deadline can decide anything now.
fn blind(backup: &Backup, error: &CallError, limits: &Limits, now: Time) -> Step {
    let mut next = backup.clone();
    next.trouble = Some(error.shown());
    next.troubles = next.troubles.saturating_add(1);
    if matches!(error, CallError::Throttled { .. }) && next.status == Status::Pending {
        next.throttled_since = next.throttled_since.or(Some(now));
    } else {
        next.count_throttled(&limits.hold, now);
    }
    let overdue = match next.status {
        Status::Pending => super::pending::overdue(&next, limits, now),
        Status::InProgress => super::progress::overdue(&next, limits, now),
        Status::Completed | Status::Failed | Status::Deleting => None,
    };
    if let Some((code, reason)) = overdue {
        next.fail(code, reason, now);
        return Step::Record(next);
    }
    if let CallError::Rejected { code, .. } = error
        && next.status == Status::Deleting
    {
        let pause = next.hold(super::apply::cannot_look(code));
        return Step::Wait { until: now + pause, note: Some(next) };
    }
    Step::Wait { until: now + backoff(next.troubles), note: Some(next) }
}

/// When to look again at a backup in progress that no event says anything of: the longer
/// it has run, the later, but at its deadline.
pub fn next_look(backup: &Backup, limits: &Limits, now: Time) -> Time {
    let looks = if backup.is_the_schedules() { LOOKS_OF_SCHEDULES } else { LOOKS };
    // What is to be announced, or removed, does not wait for the snapshots.
    let pause = if !backup.outbox.is_empty() || backup.sweep_until.is_some() {
        LOOKS.least
    } else {
        let age = now - backup.started_at.unwrap_or(backup.created_at);
        age.clamp(looks.least, looks.most)
    };
    let deadline = super::progress::deadline(backup, limits, now);
    (now + pause).min(deadline.max(now + LOOKS.least))
}
