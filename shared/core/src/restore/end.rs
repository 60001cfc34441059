//! The end, and what comes after it: the new volumes become the deployment's own, the
//! old ones are kept for a while, and what nobody needs is deleted.

use super::seen::SeenVolume;
use super::step::Step;
use super::{Action, Call, Fate, Leftover, New, Restore, Seen, Status, progress};
use crate::announce::Kind;
use crate::limits::{Limits, VISIBLE};
use crate::operation::backoff;
use crate::time::{Seconds, Time};

/// An attachment that is seen so long after the end is somebody's, and not what EC2 still
/// shows of the restore.
const SETTLED: Seconds = Seconds::hours(1);

/// How often it is looked whether somebody uses a volume that is to be deleted.
const WATCH_EVERY: Seconds = Seconds::hours(1);

/// How long after a call of unknown outcome its volume is looked for by its tags.
const SWEEP: Seconds = Seconds::minutes(10);

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
    let fate = |volume_id: &crate::id::VolumeId, fate: Fate, not_before: Option<Time>| Leftover {
        volume_id: volume_id.clone(),
        fate,
        not_before,
        tagged: false,
    };
    // It was made with our tags on it.
    let deleted =
        |id: &crate::id::VolumeId| Leftover { tagged: true, ..fate(id, Fate::Deleted, Some(now)) };
    let until = now + limits.old_volumes;
    // Also when somebody else started a node in the middle.
    let may_hold_writes =
        restore.was_stuck || restore.launched_at.is_some() || restore.may_have_written();
    for node in restore.nodes.iter().filter(|node| node.swaps) {
        let news = node.new.iter().filter_map(|new| new.volume_id.as_ref());
        if status == Status::Completed {
            left.extend(news.map(|id| fate(id, Fate::Adopted, None)));
            for old in &node.old {
                // A volume of which there is no copy: no backup has its device.
                let covered = node.new.iter().any(|new| new.device == old.device);
                let kept = restore.was_stuck || !covered || old.late;
                left.push(if kept {
                    fate(&old.volume_id, Fate::Kept, None)
                } else {
                    fate(&old.volume_id, Fate::Deleted, Some(until))
                });
            }
            continue;
        }
        // What hung on a node that is gone is nobody's any more.
        if node.missing && restore.disturbed {
            left.extend(node.old.iter().map(|old| fate(&old.volume_id, Fate::Kept, None)));
        }
        if may_hold_writes {
            left.extend(news.map(|id| fate(id, Fate::Kept, None)));
        } else {
            left.extend(news.map(deleted));
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

/// Whether its time to be deleted has come.
fn goes(left: &Leftover, now: Time) -> bool {
    left.fate == Fate::Deleted && left.not_before.is_none_or(|at| at <= now)
}

/// The next step after the end.
pub(super) fn advance(restore: &Restore, seen: &Seen, now: Time) -> Step {
    let mut next = restore.clone();
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
    next.leftovers.extend(strays.into_iter().map(|volume_id| Leftover {
        volume_id,
        fate: Fate::Deleted,
        not_before: Some(now),
        tagged: true,
    }));
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
            Some(Action { call, dry: false })
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
