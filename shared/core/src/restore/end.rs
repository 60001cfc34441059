//! The end, and what comes after it: the new volumes become the deployment's own, the
//! old ones are kept for a while, and what nobody needs is deleted.

use super::plan::named;
use super::seen::SeenVolume;
use super::sets::has_all_new;
use super::step::Step;
use super::{Action, Call, Fate, Leftover, New, Node, Restore, Seen, Status, progress};
use crate::announce::Kind;
use crate::id::VolumeId;
use crate::limits::{Limits, VISIBLE};
use crate::operation::{Failure, FailureCode, backoff};
use crate::time::{Seconds, Time};

/// An attachment that is seen so long after the end is somebody's, and not what EC2 still
/// shows of the restore.
const SETTLED: Seconds = Seconds::hours(1);

/// How often it is looked whether somebody uses a volume that is to be deleted.
const WATCH_EVERY: Seconds = Seconds::hours(1);

/// How long after a call of unknown outcome its volume is looked for by its tags.
const SWEEP: Seconds = Seconds::minutes(10);

/// A volume that goes at once. It was made with our tags on it.
pub(super) fn deleted(id: &VolumeId, now: Time) -> Leftover {
    Leftover { tagged: true, ..Leftover::new(id, Fate::Deleted, Some(now)) }
}

/// The restore is over. The write that stores this frees the slot and the backup.
pub(super) fn finish(restore: &mut Restore, status: Status, limits: &Limits, now: Time) {
    restore.status = status;
    restore.phase = None;
    restore.reached = None;
    restore.not_before = None;
    restore.troubles = 0;
    restore.completed_at = Some(now);
    progress::over(restore);
    if status == Status::Completed {
        restore.failure = None;
    }
    let mut left = Vec::new();
    let until = now + limits.old_volumes;
    // Also when somebody else started a node in the middle.
    let may_hold_writes =
        restore.was_stuck || restore.launched_at.is_some() || restore.may_have_written();
    for node in restore.swapping() {
        left.extend(node.aside.iter().map(|one| Leftover::new(&one.volume_id, Fate::Kept, None)));
        let news = node.new.iter().filter_map(|new| new.volume_id.as_ref());
        if status == Status::Completed {
            left.extend(news.map(|id| Leftover::new(id, Fate::Adopted, None)));
            for old in &node.old {
                // A volume of which there is no copy: no backup has its device.
                let covered = node.new.iter().any(|new| new.device == old.device);
                let kept = restore.was_stuck || !covered || old.late;
                left.push(if kept {
                    Leftover::new(&old.volume_id, Fate::Kept, None)
                } else {
                    Leftover::new(&old.volume_id, Fate::Deleted, Some(until))
                });
            }
            continue;
        }
        // What hung on a node that is gone is nobody's any more.
        if node.missing && restore.disturbed {
            left.extend(node.old.iter().map(|old| Leftover::new(&old.volume_id, Fate::Kept, None)));
        }
        if may_hold_writes {
            left.extend(news.map(|id| Leftover::new(id, Fate::Kept, None)));
        } else {
            left.extend(news.map(|id| deleted(id, now)));
        }
    }
    let deletes_old =
        left.iter().any(|left| left.fate == Fate::Deleted && left.not_before == Some(until));
    restore.old_volumes_kept_until = (status == Status::Completed && deletes_old).then_some(until);
    restore.leftovers.extend(left);
    // A volume whose call nobody heard of shows by its tags.
    let unheard = |new: &New| new.attempt > 1 || (new.checked && new.volume_id.is_none());
    if restore.new_volumes().any(|(_, new)| unheard(new)) {
        restore.sweep_until = Some(now + SWEEP);
    }
    restore.announce(
        match status {
            Status::Completed => Kind::RestoreCompleted,
            Status::RolledBack => Kind::RestoreRolledBack,
            _ => Kind::RestoreFailed,
        },
        now,
    );
}

/// Every node that ran runs.
pub(super) fn over(mut restore: Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let back = restore.back;
    if let Some(node) = restore.nodes.iter().find(|node| node.missing)
        && !back
    {
        // Forward on those that are there, and a person looks after the rest.
        let reason = format!(
            "{}: its instance was terminated after the nodes were started on the backup's volumes. The others run; bring the node back with the volumes that the restore lists, or release it (docs/runbook).",
            named(node)
        );
        restore.get_stuck(FailureCode::NodeMissing, reason, now);
        return Step::Record(restore);
    }
    let lacks = |node: &&Node| {
        let machine = seen.instances.get(&node.instance_id);
        node.swaps && !back && !machine.is_some_and(|machine| has_all_new(node, machine))
    };
    if let Some(node) = restore.nodes.iter().find(lacks) {
        let reason = format!(
            "{}: somebody took the backup's volumes off it and started it on others (CloudTrail, DetachVolume). Stop it by hand and order retry, or order roll-back for all (docs/runbook).",
            named(node)
        );
        restore.get_stuck(FailureCode::AttachFailed, reason, now);
        return Step::Record(restore);
    }
    let status = match (back, restore.disturbed) {
        (false, _) => Status::Completed,
        (true, true) => Status::RolledBack,
        // What was about to be stopped was not.
        (true, false) => {
            restore.stopped_at = None;
            Status::Failed
        }
    };
    restore.started_at = restore.stopped_at.map(|_| now);
    name_missing(&mut restore);
    finish(&mut restore, status, limits, now);
    Step::Record(restore)
}

/// Every instance is gone: there is nothing to bring back.
pub(super) fn nobody_left(mut restore: Restore, limits: &Limits, now: Time) -> Step {
    let reason = "Every instance of the deployment is gone. Its volumes are listed in the restore; the backup is as it was.".to_owned();
    restore.failure = Some(Failure { code: FailureCode::NodeMissing, reason });
    finish(&mut restore, Status::Failed, limits, now);
    Step::Record(restore)
}

/// Who went back for another reason is told which node it did not bring along.
fn name_missing(restore: &mut Restore) {
    let missing = restore.nodes.iter().filter(|node| node.missing).map(named);
    let missing = missing.collect::<Vec<_>>().join(", ");
    if let Some(failure) = &mut restore.failure
        && failure.code != FailureCode::NodeMissing
        && !missing.is_empty()
    {
        let said = &failure.reason;
        failure.reason = format!("{said} Terminated meanwhile, and left out: {missing}.");
    }
}

/// Whether its time to be deleted has come.
fn goes(left: &Leftover, now: Time) -> bool {
    left.fate == Fate::Deleted && left.not_before.is_none_or(|at| at <= now)
}

/// The next step after the end.
pub(super) fn advance(restore: &Restore, seen: &Seen, now: Time) -> Step {
    let mut next = restore.clone();
    // What a later restore has tagged is that one's to look after.
    let laters = |left: &Leftover| {
        let seen = seen.volumes.get(&left.volume_id);
        matches!(seen, Some(SeenVolume::There { of: Some(of), .. }) if *of > restore.id)
    };
    next.leftovers.retain(|left| !laters(left));
    // What is gone is forgotten, and what somebody has attached is theirs again.
    next.leftovers.retain(|left| {
        // One that was just made EC2 may not know yet.
        let surely = left.not_before.is_none_or(|at| now - at >= VISIBLE);
        left.fate != Fate::Deleted
            || !surely
            || !matches!(seen.volumes.get(&left.volume_id), Some(SeenVolume::NotFound))
    });
    // Not while EC2 may still show what hung where in the restore itself.
    let settled = restore.completed_at.is_none_or(|at| now - at >= SETTLED);
    for left in next.leftovers.iter_mut().filter(|left| left.fate == Fate::Deleted && settled) {
        if let Some(SeenVolume::There { instances, .. }) = seen.volumes.get(&left.volume_id)
            && !instances.is_empty()
        {
            (left.fate, left.tagged) = (Fate::Adopted, false);
        }
    }
    // What shows up late and is named nowhere.
    let named: std::collections::BTreeSet<_> = restore
        .leftovers
        .iter()
        .map(|left| &left.volume_id)
        .chain(restore.new_volumes().filter_map(|(_, new)| new.volume_id.as_ref()))
        .collect();
    let strays = seen.tagged.iter().filter(|(id, seen)| {
        let ours = matches!(seen, SeenVolume::There { snapshot_id, instances, .. }
            if instances.is_empty()
                && restore.new_volumes().any(|(_, new)| Some(&new.snapshot_id) == snapshot_id.as_ref()));
        ours && !named.contains(id)
    });
    let strays: Vec<_> = strays.map(|(id, _)| id.clone()).collect();
    let none = strays.is_empty();
    next.leftovers.extend(strays.iter().map(|id| deleted(id, now)));
    if none && next.sweep_until.is_some_and(|until| now >= until) {
        next.sweep_until = None;
    }
    if next != *restore {
        return Step::Record(next);
    }
    let actions: Vec<Action> = next
        .leftovers
        .iter()
        .filter_map(|left| {
            let id = left.volume_id.clone();
            let call = match left.fate {
                Fate::Adopted if !left.tagged => Call::Release(id),
                // Tagged first: the right to delete it comes with our tags.
                Fate::Deleted if left.tagged && goes(left, now) => match seen.volumes.get(&id) {
                    Some(SeenVolume::There { state, instances, .. })
                        if state != "deleting" && instances.is_empty() =>
                    {
                        Call::DeleteVolume(id)
                    }
                    // Not looked at yet, or it hangs somewhere, or it goes already.
                    _ => return None,
                },
                Fate::Kept | Fate::Deleted if !left.tagged => Call::Keep(id),
                Fate::Adopted | Fate::Kept | Fate::Deleted => return None,
            };
            Some(Action::real(call))
        })
        .collect();
    if !actions.is_empty() {
        return Step::Act { intent: next, actions };
    }
    let deletes = next.leftovers.iter().filter(|left| left.fate == Fate::Deleted);
    let next_delete = deletes
        .map(|left| left.not_before.unwrap_or(now).max(now + VISIBLE).min(now + WATCH_EVERY))
        .min();
    match [next_delete, next.sweep_until].into_iter().flatten().min() {
        Some(until) => Step::Wait { until: until.max(now + backoff(next.troubles)), note: None },
        None => Step::Rest,
    }
}
