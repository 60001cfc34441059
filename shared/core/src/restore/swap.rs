//! The downtime, forward and back: which calls lead from what EC2 shows to every node
//! that ran running on one whole set of volumes.
//!
//! The phase is what EC2 shows: nodes that run must stop; stopped ones get their volumes
//! off and on; when each has its whole set, those that ran start. The same calls lead
//! back, with the old volumes for the new ones.

use super::launch::observe;
use super::plan::named;
use super::seen::SeenVolume;
use super::sets::{can_have_back, exchange, is_whole, notice_late, wanted};
use super::step::{POLL, Step};
use super::{Action, Call, Launch, Machine, Node, Phase, Restore, Seen, end};
use crate::limits::{Limits, VISIBLE};
use crate::operation::FailureCode;
use crate::time::{Seconds, Time};

/// The next step of a restore whose deployment is frozen.
pub(super) fn advance(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    if next.touched_at.is_none() && next.frozen_at.is_some_and(|at| now - at >= VISIBLE) {
        // What was written down then may not be so any more: anew.
        next.frozen_at = None;
        for node in &mut next.nodes {
            node.aside.clear();
        }
        // Nothing was stopped: of that deadline nothing has passed.
        (next.phase, next.reached) = (Some(Phase::Preparing), Some((Phase::Preparing, now)));
        return Step::Record(next);
    }
    if next.excuse(&limits.hold, now) {
        return Step::Record(next);
    }
    observe(&mut next, seen, now);
    if next.nodes.iter().all(|node| node.missing) {
        return end::nobody_left(next, limits, now);
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
        return Step::Wait { until: now + next.pause(), note: Some(next) };
    }
    next.is_seen(&limits.hold, now);
    let (phase, actions) = decide(&next, seen, now);
    if next.phase != Some(phase) {
        next.at(phase, now);
        return Step::Record(next);
    }
    let sight = sight(&next, seen);
    let all_run = sight.iter().all(|(node, machine)| !node.ran() || machine.state == "running");
    if phase == Phase::Starting && all_run {
        return end::over(next, seen, limits, now);
    }
    // On the way back whoever can be put back is, before a person has to look.
    let settled = || {
        let mut all = sight.iter().flat_map(|(_, machine)| &machine.attached);
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
        let mut states = sight.iter().map(|(_, machine)| machine.state.as_str());
        let moves = states.any(|state| matches!(state, "pending" | "stopping"));
        let again = sight.iter().filter(|(node, machine)| node.ran() && machine.state == "stopped");
        let again = again.filter_map(|(node, _)| node.start.not_before).min();
        let again = again.filter(|_| phase == Phase::Starting && !moves);
        // Volumes come and go in seconds, and everybody waits for the last one.
        let soon = now + if phase == Phase::Swapping { Seconds(1) } else { POLL };
        let until = again.map_or(soon, |at| at.max(soon));
        return Step::Wait { until, note: Some(next) };
    }
    intend(&mut next, &actions, now);
    Step::Act { intent: next, actions }
}

/// The nodes that are there, and what EC2 shows of them.
pub(super) fn sight<'a>(restore: &'a Restore, seen: &'a Seen) -> Vec<(&'a Node, &'a Machine)> {
    let nodes = restore.nodes.iter().filter(|node| !node.missing);
    nodes.filter_map(|node| Some((node, seen.instances.get(&node.instance_id)?))).collect()
}

/// What is stored before calls are made that EC2 cannot be asked for afterwards.
pub(super) fn intend(restore: &mut Restore, actions: &[Action], now: Time) {
    let back = restore.back;
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
fn decide(restore: &Restore, seen: &Seen, now: Time) -> (Phase, Vec<Action>) {
    let back = restore.back;
    let sight = sight(restore, seen);
    let started = restore.launched_at.is_some() && !back;
    // Once started, who runs is left alone, and who need not run too.
    let left_alone =
        |node: &Node, machine: &Machine| started && (machine.state != "stopped" || !node.ran());
    let lacks = |node: &Node, machine: &Machine| {
        let late = back && can_have_back(node, machine, seen);
        node.swaps && (!is_whole(node, machine, back) || late) && !left_alone(node, machine)
    };
    let whole = !sight.iter().any(|(node, machine)| lacks(node, machine));
    // Forward who stands need not wait for the others: until the last one has stopped, the
    // first ones have their volumes. Back they do: should the last one not stop, the others
    // must not have the other side's.
    let swaps = || -> Vec<Action> {
        let stand = sight
            .iter()
            .filter(|(node, machine)| machine.state == "stopped" && lacks(node, machine));
        stand
            .flat_map(|(node, machine)| exchange(node, machine, seen, back))
            .map(Action::real)
            .collect()
    };
    // Once started, or with the whole old set on each, nobody is stopped any more.
    if !(started || back && whole) {
        let must_stop = |node: &Node, machine: &Machine| {
            // On the way back who has its old volumes may run on.
            !back || (node.swaps && !is_whole(node, machine, true))
        };
        let moving: Vec<_> = sight
            .iter()
            .filter(|(node, machine)| machine.state != "stopped" && must_stop(node, machine))
            .collect();
        if !moving.is_empty() {
            let running = moving.iter().filter(|(_, machine)| machine.state == "running");
            let calls = running.map(|(node, _)| Action::real(Call::Stop(node.instance_id.clone())));
            let swaps = if back { Vec::new() } else { swaps() };
            return (Phase::Stopping, calls.chain(swaps).collect());
        }
    }
    if !whole {
        return (Phase::Swapping, swaps());
    }
    let stopped = sight.iter().filter(|(node, machine)| {
        node.ran() && machine.state == "stopped" && node.start.not_before.is_none_or(|at| at <= now)
    });
    let calls = stopped.map(|(node, _)| Action::real(Call::Start(node.instance_id.clone())));
    (Phase::Starting, calls.collect())
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
        Phase::Stopping if limits.passed(since, now) >= limits.stopping => {
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
        Phase::Swapping => (limits.passed(since, now) >= limits.swapping).then(|| {
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
                start.overdue_since.is_some_and(|since| limits.passed(since, now) >= limits.starting)
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
