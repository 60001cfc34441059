//! What to look at, and what follows from what was seen.

use super::{
    Call, Fate, Look, Phase, Restore, Safety, Seen, Setting, Status, end, prepare, progress, stuck,
    swap,
};
use crate::announce::Kind;
use crate::backup;
use crate::brake::{HELD, HELD_DOWN};
use crate::deployment;
use crate::limits::{Limits, VISIBLE};
use crate::operation::{CallError, FailureCode};
use crate::time::{Seconds, Time};

use super::Action;

/// How often a restore that goes on by itself is looked at. In the downtime every
/// second counts; before it, volumes take tens of seconds.
pub(super) const POLL: Seconds = Seconds(2);

/// How soon one that waits for its safety backup is due again: at the next tick, and not
/// waited out by a worker.
const SELDOM: Seconds = Seconds(15);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Store this, then go on.
    Record(Restore),
    /// Store the settings, then this.
    Plan {
        /// The row, which says that they are stored.
        next: Restore,
        /// What the new volumes are to be like.
        settings: Vec<Setting>,
    },
    /// Store this on the condition that the control plane's nodes are these.
    Freeze {
        /// The row, with what the deployment is like.
        next: Restore,
        /// The nodes as they were read.
        registry: Vec<deployment::Node>,
    },
    /// Store this, make the calls, put their outcomes in with [`super::apply()`], store
    /// that.
    Act {
        /// The row with what the calls are about to do.
        intent: Restore,
        /// The calls, safe to be made side by side, and again.
        actions: Vec<Action>,
    },
    /// Nothing before this time; `note` is the row with what the look taught, if anything.
    Wait {
        /// When to look again.
        until: Time,
        /// The row to store with it.
        note: Option<Restore>,
    },
    /// Nothing more.
    Rest,
}

/// What must be looked at for the next step of `restore`.
pub fn look(restore: &Restore, now: Time) -> Look {
    if restore.not_before.is_some_and(|at| at > now) {
        return Look::default();
    }
    let instances = || restore.nodes.iter().map(|node| node.instance_id.clone()).collect();
    let made = || restore.new_volumes().filter_map(|(_, new)| new.volume_id.clone());
    match restore.status {
        Status::Pending | Status::InProgress if is_safeguarding(restore) => {
            Look { safety: restore.safety_backup_id, ..Look::default() }
        }
        Status::Pending => Look::default(),
        Status::InProgress if restore.frozen_at.is_none() && !restore.planned => Look {
            instances: instances(),
            traits: true,
            settings_of_volumes: true,
            kept: true,
            registry: true,
            ..Look::default()
        },
        Status::InProgress if restore.frozen_at.is_none() => {
            let news = || restore.new_volumes().map(|(_, new)| new);
            let tried =
                restore.nodes.iter().all(|node| node.checked) && news().all(|new| new.checked);
            let created = news().all(|new| new.volume_id.is_some());
            let ready = news().all(|new| new.attachable);
            Look {
                instances: if !tried || ready { instances() } else { Vec::new() },
                // It may have become unfit since the plan.
                traits: ready,
                volumes: made().collect(),
                settings: !tried || !created,
                registry: ready,
                ..Look::default()
            }
        }
        Status::InProgress | Status::RollingBack | Status::Stuck => {
            let volumes = match (restore.phase, restore.status) {
                (Some(Phase::Swapping | Phase::Stopping), Status::RollingBack) => {
                    let old = restore.nodes.iter().flat_map(|node| &node.old);
                    old.map(|old| old.volume_id.clone()).collect()
                }
                (Some(Phase::Swapping | Phase::Stopping), _) => made().collect(),
                _ => Vec::new(),
            };
            Look { instances: instances(), volumes, ..Look::default() }
        }
        Status::Completed | Status::RolledBack | Status::Failed => {
            // Another restore may have come in between, and have tagged what it replaced:
            // it stops and starts nodes before that, which takes longer.
            let late = restore.completed_at.is_none_or(|at| now - at >= VISIBLE);
            let volumes = restore.leftovers.iter();
            let volumes =
                volumes.filter(|left| left.fate == Fate::Deleted || (late && !left.tagged));
            Look {
                volumes: volumes.map(|left| left.volume_id.clone()).collect(),
                tagged: restore.sweep_until.is_some(),
                ..Look::default()
            }
        }
    }
}

/// Whether the safety backup comes first, and is not over.
fn is_safeguarding(restore: &Restore) -> bool {
    restore.safety_backup_id.is_some()
        && !restore.planned
        && restore.phase.is_none_or(|phase| phase == Phase::Safeguarding)
}

/// The next step of `restore`, from what [`look()`] asked for at this very time.
pub fn step(
    restore: &Restore,
    seen: Result<&Seen, &CallError>,
    limits: &Limits,
    now: Time,
) -> Step {
    if let Some(at) = restore.not_before
        && at > now
    {
        return Step::Wait { until: at, note: None };
    }
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return blind(restore, error, limits, now),
    };
    let step = progress::told(decide(restore, seen, limits, now), restore, seen);
    held_back(step, restore, limits, now)
}

/// The step without the calls that an operator has paused. Nothing is planned or frozen
/// either, which would be out of date when it may go on.
fn held_back(step: Step, restore: &Restore, limits: &Limits, now: Time) -> Step {
    let hold = &limits.hold;
    let pause = if restore.is_urgent() { HELD_DOWN } else { HELD };
    let wait = Step::Wait { until: now + pause, note: None };
    match step {
        Step::Act { .. } | Step::Freeze { .. } | Step::Plan { .. } if hold.writes => wait,
        Step::Act { intent, mut actions } if hold.deletions => {
            actions.retain(|action| !matches!(action.call, Call::DeleteVolume(_)));
            if actions.is_empty() { wait } else { Step::Act { intent, actions } }
        }
        step => step,
    }
}

fn decide(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    match restore.status {
        Status::Pending => {
            let mut next = restore.clone();
            next.status = Status::InProgress;
            let first = if restore.safety_backup_id.is_some() {
                Phase::Safeguarding
            } else {
                Phase::Preparing
            };
            next.at(first, now);
            next.announce(Kind::RestoreStarted, now);
            Step::Record(next)
        }
        Status::InProgress if is_safeguarding(restore) => safeguard(restore, seen, limits, now),
        Status::InProgress if restore.frozen_at.is_none() => {
            prepare::advance(restore, seen, limits, now)
        }
        Status::InProgress | Status::RollingBack => swap::advance(restore, seen, limits, now),
        Status::Stuck => stuck::advance(restore, seen, limits, now),
        Status::Completed | Status::RolledBack | Status::Failed => end::advance(restore, seen, now),
    }
}

/// The backup of the present state comes first.
fn safeguard(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    let id = restore.safety_backup_id.map_or(0, |id| id.0);
    let failed = |why: &str| {
        format!(
            "Safety backup {id} failed, and nothing was touched: {why} Mend that, or restore without a safety backup."
        )
    };
    match &seen.safety {
        Some(Safety::There(backup::Status::Pending | backup::Status::InProgress, _)) | None => {
            return Step::Wait { until: now + SELDOM, note: None };
        }
        Some(Safety::There(backup::Status::Completed, _)) => next.at(Phase::Preparing, now),
        Some(Safety::There(_, why)) => {
            let why = failed(why.as_deref().unwrap_or("somebody deleted it."));
            next.turn_back(FailureCode::SafetyBackupFailed, why, limits, now);
        }
        Some(Safety::Gone) => {
            let why = failed("somebody deleted it.");
            next.turn_back(FailureCode::SafetyBackupFailed, why, limits, now);
        }
    }
    Step::Record(next)
}

/// EC2 did not let us look. While nothing is touched a deadline may end it; after that
/// nothing can be decided without sight.
fn blind(restore: &Restore, error: &CallError, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    if next.is_urgent() {
        next.is_unseen(error.shown(), now);
    } else {
        next.trouble = Some(error.shown());
        next.troubles = next.troubles.saturating_add(1);
    }
    if restore.status == Status::InProgress
        && restore.frozen_at.is_none()
        && !is_safeguarding(restore)
        && let Some((code, reason)) = prepare::overdue(&next, limits, now)
    {
        next.turn_back(code, reason, limits, now);
        return Step::Record(next);
    }
    Step::Wait { until: now + next.pause(), note: Some(next) }
}
