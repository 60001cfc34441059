//! The downtime, forward and back: which calls lead from what EC2 shows to every node
//! that ran running on one whole set of volumes.
//!
//! The phase is what EC2 shows: nodes that run must stop; stopped ones get their volumes
//! off and on; when each has its whole set, those that ran start. The same calls lead
//! back, with the old volumes for the new ones.

use std::collections::BTreeSet;

use super::launch::observe;
use super::plan::named;
use super::seen::{Attached, SeenVolume};
use super::step::{POLL, Step};
use super::{
    Action, Call, Fate, Launch, Leftover, Machine, Node, Old, Phase, Restore, Seen, Status, end,
};
use crate::id::{InstanceId, VolumeId};
use crate::limits::{Limits, VISIBLE};
use crate::operation::{Failure, FailureCode, backoff};
use crate::time::{Seconds, Time};

/// How often one that is stuck is looked at.
const STUCK_EVERY: Seconds = Seconds(60);

/// A volume that is to hang on a node.
pub(super) struct Wanted<'a> {
    pub(super) volume_id: &'a VolumeId,
    device: &'a str,
    delete_on_termination: bool,
}

/// The set that the node is to have: the backup's, or on the way back its old one.
pub(super) fn wanted(node: &Node, back: bool) -> Vec<Wanted<'_>> {
    if back {
        let all = node.old.iter().map(|old| Wanted {
            volume_id: &old.volume_id,
            device: &old.device,
            delete_on_termination: old.delete_on_termination,
        });
        return all.collect();
    }
    let all = node.new.iter().filter_map(|new| {
        Some(Wanted {
            volume_id: new.volume_id.as_ref()?,
            device: &new.device,
            delete_on_termination: new.delete_on_termination,
        })
    });
    all.collect()
}

/// Whether the node has exactly the set that it is to have; on the way back, that set and
/// nothing of the backup's: what somebody has attached since is theirs, and not demanded.
pub(super) fn is_whole(node: &Node, machine: &Machine, back: bool) -> bool {
    let late = |id: &VolumeId| node.old.iter().any(|old| old.late && old.volume_id == *id);
    let mut wanted = wanted(node, back);
    wanted.retain(|one| !late(one.volume_id));
    let nothing_else = if back {
        !machine.attached.iter().any(|there| is_new(node, &there.volume_id))
    } else {
        wanted.len() == machine.attached.len()
    };
    nothing_else
        && wanted.iter().all(|one| {
            machine.attached.iter().any(|there| {
                there.volume_id == *one.volume_id
                    && there.device == one.device
                    && there.state == "attached"
                    && there.delete_on_termination == one.delete_on_termination
            })
        })
}

/// Whether the node has all of the backup's volumes, and whatever else.
pub(super) fn has_all_new(node: &Node, machine: &Machine) -> bool {
    let mut new = node.new.iter().filter_map(|new| new.volume_id.as_ref());
    new.all(|id| machine.attached.iter().any(|there| there.volume_id == *id))
}

/// Whether what somebody attached in the middle can be put back on the node right now.
fn can_have_back(node: &Node, machine: &Machine, seen: &Seen) -> bool {
    let free = |old: &Old| {
        let there = |one: &Attached| one.device == old.device || one.volume_id == old.volume_id;
        !machine.attached.iter().any(there)
    };
    let moves = |old: &Old| {
        let mut all = machine.attached.iter().filter(|there| there.volume_id == old.volume_id);
        all.any(|there| there.state != "attached")
    };
    let available = |old: &Old| matches!(seen.volumes.get(&old.volume_id), Some(SeenVolume::There { state, .. }) if state == "available");
    let mut late = node.old.iter().filter(|old| old.late);
    machine.state == "stopped" && late.any(|old| moves(old) || (free(old) && available(old)))
}

/// Whether a volume of the side hangs on the node: a new one, or one that a new one
/// replaces.
fn has_of_side(node: &Node, machine: &Machine, back: bool) -> bool {
    machine.attached.iter().any(|there| {
        if !back {
            return is_new(node, &there.volume_id);
        }
        node.old.iter().any(|old| {
            old.volume_id == there.volume_id && node.new.iter().any(|new| new.device == old.device)
        })
    })
}

/// Whether the volume was made for the node.
pub(super) fn is_new(node: &Node, id: &VolumeId) -> bool {
    node.new.iter().any(|new| new.volume_id.as_ref() == Some(id))
}

/// What somebody attached to a node after the freeze joins what was there before: it is
/// put back if the restore goes back, and kept and named if it does not. One of these that
/// is gone, or that its owner has put elsewhere, nobody misses.
fn notice_late(restore: &mut Restore, seen: &Seen) {
    let gone = |of: &InstanceId, id: &VolumeId| match seen.volumes.get(id) {
        Some(SeenVolume::NotFound) => true,
        Some(SeenVolume::There { instances, .. }) => {
            !instances.is_empty() && !instances.contains(of)
        }
        _ => false,
    };
    for node in &mut restore.nodes {
        node.old.retain(|old| !(old.late && gone(&node.instance_id, &old.volume_id)));
    }
    let ours: BTreeSet<VolumeId> = restore
        .new_volumes()
        .filter_map(|(_, new)| new.volume_id.clone())
        .chain(restore.nodes.iter().flat_map(|node| &node.old).map(|old| old.volume_id.clone()))
        .chain(restore.leftovers.iter().map(|left| left.volume_id.clone()))
        .collect();
    let mut left = Vec::new();
    for node in restore.nodes.iter_mut().filter(|node| node.swaps) {
        // On a node that runs it is in nobody's way: what is stopped later is noticed then.
        let machine = seen.instances.get(&node.instance_id);
        let Some(machine) = machine.filter(|machine| machine.state == "stopped") else { continue };
        for there in machine.attached.iter().filter(|there| !ours.contains(&there.volume_id)) {
            let late = Old {
                volume_id: there.volume_id.clone(),
                device: there.device.clone(),
                delete_on_termination: there.delete_on_termination,
                late: true,
            };
            if node.old.iter().any(|old| old.device == there.device) {
                left.push(Leftover {
                    volume_id: there.volume_id.clone(),
                    fate: Fate::Kept,
                    not_before: None,
                    tagged: false,
                });
                node.aside.push(late);
            } else {
                node.old.push(late);
            }
        }
        node.old.sort_by(|a, b| a.device.cmp(&b.device));
    }
    restore.leftovers.extend(left);
}

/// What each node is, of those that EC2 shows.
struct Sight<'a> {
    nodes: Vec<(&'a Node, &'a Machine)>,
}

impl Sight<'_> {
    fn any(&self, state: impl Fn(&str) -> bool) -> bool {
        self.nodes.iter().any(|(_, machine)| state(&machine.state))
    }

    /// Every node that ran runs.
    fn all_run(&self) -> bool {
        self.nodes
            .iter()
            .all(|(node, machine)| node.was_running != Some(true) || machine.state == "running")
    }
}

/// The next step of a restore whose deployment is frozen.
pub(super) fn advance(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    if next.touched_at.is_none() && next.frozen_at.is_some_and(|at| now - at >= VISIBLE) {
        // What was written down then may not be so any more: anew.
        next.frozen_at = None;
        for node in &mut next.nodes {
            for aside in node.aside.drain(..) {
                next.leftovers.retain(|left| left.volume_id != aside.volume_id);
            }
        }
        // Nothing was stopped: of that deadline nothing has passed.
        (next.phase, next.reached) = (Some(Phase::Preparing), Some((Phase::Preparing, now)));
        return Step::Record(next);
    }
    if next.excuse(now) {
        return Step::Record(next);
    }
    observe(&mut next, seen, now);
    if next.nodes.iter().all(|node| node.missing) {
        return nobody_left(next, limits, now);
    }
    let back = next.back;
    let closed = next.is_closed();
    if back || next.launched_at.is_none() {
        notice_late(&mut next, seen);
    }
    if let Some(node) = next.nodes.iter().find(|node| node.missing)
        && !back
        && !closed
    {
        let reason = format!(
            "{}: its instance was terminated in the middle of the restore. The other nodes have their old volumes again; when the deployment has its node back, restore again.",
            named(node)
        );
        next.turn_back(FailureCode::NodeMissing, reason, limits, now);
        return Step::Record(next);
    }
    // Of what is not shown nothing is decided.
    let unseen = |node: &&Node| !node.missing && !seen.instances.contains_key(&node.instance_id);
    if let Some(node) = next.nodes.iter().find(unseen) {
        let why = format!("EC2 does not show {}", node.instance_id);
        next.is_unseen(why, now);
        let pause = backoff(next.troubles).min(Seconds(10));
        return Step::Wait { until: now + pause, note: Some(next) };
    }
    next.is_seen(now);
    let (phase, actions) = decide(&next, seen, back, now);
    if next.phase != Some(phase) {
        next.at(phase, now);
        return Step::Record(next);
    }
    let sight = sight(&next, seen);
    if phase == Phase::Starting && sight.all_run() {
        return over(next, seen, limits, now);
    }
    // On the way back whoever can be put back is, before a person has to look.
    let settled = || {
        let mut all = sight.nodes.iter().flat_map(|(_, machine)| &machine.attached);
        actions.is_empty() && all.all(|there| there.state == "attached")
    };
    let matters = match phase {
        Phase::Stopping => !back,
        Phase::Swapping => !back || settled(),
        _ => false,
    };
    let gone = gone(&next, seen).filter(|_| matters);
    let gone = gone.map(|reason| (FailureCode::VolumeFailed, reason));
    if let Some((code, reason)) = gone.or_else(|| overdue(&next, seen, phase, limits, now)) {
        if back || closed {
            next.get_stuck(code, reason, now);
        } else {
            next.turn_back(code, reason, limits, now);
        }
        return Step::Record(next);
    }
    if actions.is_empty() {
        // Nothing moves but the time until a start is asked for again: nobody polls.
        let moves = sight.any(|state| matches!(state, "pending" | "stopping"));
        let again = sight
            .nodes
            .iter()
            .filter(|(node, machine)| node.was_running == Some(true) && machine.state == "stopped");
        let again = again.filter_map(|(node, _)| node.start.not_before).min();
        let again = again.filter(|_| phase == Phase::Starting && !moves);
        // Volumes come and go in seconds, and everybody waits for the last one.
        let soon = now + if phase == Phase::Swapping { Seconds(1) } else { POLL };
        let until = again.map_or(soon, |at| at.max(soon));
        let note = (next != *restore).then_some(next);
        return Step::Wait { until, note };
    }
    intend(&mut next, &actions, back, now);
    Step::Act { intent: next, actions }
}

/// Every instance is gone: there is nothing to bring back.
fn nobody_left(mut restore: Restore, limits: &Limits, now: Time) -> Step {
    let reason = "Every instance of the deployment is gone. Its volumes are listed in the restore; the backup is as it was.".to_owned();
    restore.failure = Some(Failure { code: FailureCode::NodeMissing, reason });
    end::finish(&mut restore, Status::Failed, limits, now);
    Step::Record(restore)
}

/// The nodes that are there.
fn sight<'a>(restore: &'a Restore, seen: &'a Seen) -> Sight<'a> {
    let nodes = restore.nodes.iter().filter(|node| !node.missing);
    let nodes = nodes.filter_map(|node| Some((node, seen.instances.get(&node.instance_id)?)));
    Sight { nodes: nodes.collect() }
}

/// What is stored before calls are made that EC2 cannot be asked for afterwards.
fn intend(restore: &mut Restore, actions: &[Action], back: bool, now: Time) {
    for action in actions {
        match &action.call {
            Call::Stop(_) => {
                restore.touched_at = restore.touched_at.or(Some(now));
                restore.stopped_at = restore.stopped_at.or(Some(now));
            }
            Call::Start(id) => {
                if !back {
                    restore.launched_at = restore.launched_at.or(Some(now));
                }
                for node in restore.nodes.iter_mut().filter(|node| node.instance_id == *id) {
                    node.start.ask(now);
                    if !back && node.swaps {
                        node.launch = node.launch.max(Launch::Maybe);
                    }
                }
            }
            _ => restore.touched_at = restore.touched_at.or(Some(now)),
        }
    }
}

/// Which phase it is, as EC2 shows it, and the calls that lead on.
fn decide(restore: &Restore, seen: &Seen, back: bool, now: Time) -> (Phase, Vec<Action>) {
    let sight = sight(restore, seen);
    let started = restore.launched_at.is_some() && !back;
    // Once started, who runs is left alone, and who need not run too.
    let left_alone = |node: &Node, machine: &Machine| {
        started && (machine.state != "stopped" || node.was_running != Some(true))
    };
    let lacks = |node: &Node, machine: &Machine| {
        let late = back && can_have_back(node, machine, seen);
        node.swaps && (!is_whole(node, machine, back) || late) && !left_alone(node, machine)
    };
    let whole = !sight.nodes.iter().any(|(node, machine)| lacks(node, machine));
    // Forward who stands need not wait for the others: until the last one has stopped, the
    // first ones have their volumes. Back they do: should the last one not stop, the others
    // must not have the other side's.
    let swaps = || -> Vec<Action> {
        let stand = sight
            .nodes
            .iter()
            .filter(|(node, machine)| machine.state == "stopped" && lacks(node, machine));
        stand.flat_map(|(node, machine)| swap(node, machine, seen, back)).collect()
    };
    // Once started, or with the whole old set on each, nobody is stopped any more.
    if !(started || back && whole) {
        let must_stop = |node: &Node, machine: &Machine| {
            // On the way back who has its old volumes may run on.
            !back || (node.swaps && !is_whole(node, machine, true))
        };
        let moving: Vec<_> = sight
            .nodes
            .iter()
            .filter(|(node, machine)| machine.state != "stopped" && must_stop(node, machine))
            .collect();
        if !moving.is_empty() {
            let running = moving.iter().filter(|(_, machine)| machine.state == "running");
            let calls = running.map(|(node, _)| act(Call::Stop(node.instance_id.clone())));
            let swaps = if back { Vec::new() } else { swaps() };
            return (Phase::Stopping, calls.chain(swaps).collect());
        }
    }
    if !whole {
        return (Phase::Swapping, swaps());
    }
    let stopped = sight.nodes.iter().filter(|(node, machine)| {
        node.was_running == Some(true)
            && machine.state == "stopped"
            && node.start.not_before.is_none_or(|at| at <= now)
    });
    let calls = stopped.map(|(node, _)| act(Call::Start(node.instance_id.clone())));
    (Phase::Starting, calls.collect())
}

fn act(call: Call) -> Action {
    Action { call, dry: false }
}

/// The calls that bring a stopped node nearer to its set.
fn swap(node: &Node, machine: &Machine, seen: &Seen, back: bool) -> Vec<Action> {
    let wanted = wanted(node, back);
    let instance_id = || node.instance_id.clone();
    let mut calls = Vec::new();
    let right = |there: &Attached| {
        wanted.iter().find(|one| *one.volume_id == there.volume_id && one.device == there.device)
    };
    // On the way back what is in nobody's way stays.
    let in_the_way = |there: &Attached| {
        !back
            || is_new(node, &there.volume_id)
            || wanted
                .iter()
                .any(|one| *one.volume_id == there.volume_id || one.device == there.device)
    };
    for there in &machine.attached {
        match right(there) {
            None if matches!(there.state.as_str(), "attached" | "busy") && in_the_way(there) => {
                calls.push(act(Call::Detach {
                    instance_id: instance_id(),
                    volume_id: there.volume_id.clone(),
                    device: there.device.clone(),
                }));
            }
            Some(one)
                if there.state == "attached"
                    && there.delete_on_termination != one.delete_on_termination =>
            {
                calls.push(act(Call::SetDeleteOnTermination {
                    instance_id: instance_id(),
                    device: there.device.clone(),
                    to: one.delete_on_termination,
                }));
            }
            _ => {}
        }
    }
    for one in wanted {
        let free = !machine
            .attached
            .iter()
            .any(|there| there.device == one.device || there.volume_id == *one.volume_id);
        let available = matches!(
            seen.volumes.get(one.volume_id),
            Some(SeenVolume::There { state, .. }) if state == "available"
        );
        if free && available {
            calls.push(act(Call::Attach {
                instance_id: instance_id(),
                volume_id: one.volume_id.clone(),
                device: one.device.to_owned(),
            }));
        }
    }
    calls
}

/// Every node that ran runs.
fn over(mut restore: Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
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
    end::finish(&mut restore, status, limits, now);
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

/// A volume of the set that a node is to get which is no more.
fn gone(restore: &Restore, seen: &Seen) -> Option<String> {
    restore.swapping().filter(|node| !node.missing).find_map(|node| {
        let gone = wanted(node, restore.back).into_iter().find(|one| {
            seen.volumes.get(one.volume_id).is_some_and(SeenVolume::is_gone)
        })?;
        Some(format!(
            "{}: volume {} for {} is gone from EC2: somebody deleted it (CloudTrail, DeleteVolume).",
            named(node),
            gone.volume_id,
            gone.device
        ))
    })
}

/// The deadline of the phase, if it has passed.
fn overdue(
    restore: &Restore,
    seen: &Seen,
    phase: Phase,
    limits: &Limits,
    now: Time,
) -> Option<(FailureCode, String)> {
    let since = restore.since(now);
    let said = restore.trouble.as_deref().map_or(String::new(), |trouble| {
        format!(" The last word from AWS was: {}.", trouble.trim_end_matches('.'))
    });
    match phase {
        Phase::Stopping if now - since >= limits.stopping => {
            let slow = restore.nodes.iter().find(|node| {
                seen.instances.get(&node.instance_id).is_some_and(|one| one.state != "stopped")
            });
            let who = slow.map_or(String::new(), named);
            Some((
                FailureCode::StopFailed,
                format!(
                    "{who} did not stop within {}.{said} Look at the instance in EC2.",
                    limits.stopping
                ),
            ))
        }
        Phase::Swapping => (now - since >= limits.swapping).then(|| {
            (
                FailureCode::AttachFailed,
                format!(
                    "The volumes could not be swapped within {}.{said} Look at the attachments in EC2.",
                    limits.swapping
                ),
            )
        }),
        Phase::Starting => {
            let late = restore.nodes.iter().filter(|node| !node.missing).find(|node| {
                let start = &node.start;
                start.overdue_since.is_some_and(|since| now - since >= limits.starting)
                    // What became of the last one is not known yet.
                    && !start.is_open(now)
            })?;
            Some((
                FailureCode::StartFailed,
                format!(
                    "{} could not be started for {}.{said} Look at the instance's state reason in EC2.",
                    named(late),
                    limits.starting
                ),
            ))
        }
        _ => None,
    }
}

/// A person has to look; until then every node that can run with one whole set is started:
/// of the side that those are on that run, or else of the one that the restore was on.
pub(super) fn stuck(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    observe(&mut next, seen, now);
    if next.nodes.iter().all(|node| node.missing) {
        return nobody_left(next, limits, now);
    }
    let back = next.back;
    let sight = sight(&next, seen);
    // Of the same side as those that run; if both sides do, nobody joins either.
    let serves = |side: bool| {
        sight.nodes.iter().any(|(node, machine)| {
            node.swaps && machine.state != "stopped" && has_of_side(node, machine, side)
        })
    };
    let side = match (serves(back), serves(!back)) {
        (_, false) => Some(back),
        (false, true) => Some(!back),
        (true, true) => None,
    };
    let stands = sight.nodes.iter().filter(|(node, machine)| {
        node.was_running == Some(true)
            && machine.state == "stopped"
            && side.is_some_and(|side| !node.swaps || is_whole(node, machine, side))
    });
    let stands: Vec<&Node> = stands.map(|(node, _)| *node).collect();
    let (startable, later): (Vec<&Node>, Vec<&Node>) =
        stands.into_iter().partition(|node| node.start.not_before.is_none_or(|at| at <= now));
    let startable: Vec<InstanceId> =
        startable.into_iter().map(|node| node.instance_id.clone()).collect();
    if startable.is_empty() {
        let again = later.iter().filter_map(|node| node.start.not_before).min();
        let until = again.unwrap_or(now + STUCK_EVERY).min(now + STUCK_EVERY);
        let note = (next != *restore).then_some(next);
        return Step::Wait { until, note };
    }
    let actions: Vec<_> = startable.into_iter().map(|id| act(Call::Start(id))).collect();
    intend(&mut next, &actions, back, now);
    Step::Act { intent: next, actions }
}
