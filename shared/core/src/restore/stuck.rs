//! A restore that can go neither way by itself, and waits for a person.

use super::launch::observe;
use super::sets::{has_of_side, is_whole};
use super::step::Step;
use super::swap::{intend, sight};
use super::{Action, Call, Node, Restore, Seen, end};
use crate::limits::Limits;
use crate::time::{Seconds, Time};

/// How often one that is stuck is looked at.
const STUCK_EVERY: Seconds = Seconds(60);

/// A person has to look; until then every node that can run with one whole set is started:
/// of the side that those are on that run, or else of the one that the restore was on.
pub(super) fn advance(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    observe(&mut next, seen, now);
    if next.nodes.iter().all(|node| node.missing) {
        return end::nobody_left(next, limits, now);
    }
    let back = next.back;
    let sight = sight(&next, seen);
    // Of the same side as those that run; if both sides do, nobody joins either.
    let serves = |side: bool| {
        sight.iter().any(|(node, machine)| {
            node.swaps && machine.state != "stopped" && has_of_side(node, machine, side)
        })
    };
    let side = match (serves(back), serves(!back)) {
        (_, false) => Some(back),
        (false, true) => Some(!back),
        (true, true) => None,
    };
    let stands = sight.iter().filter(|(node, machine)| {
        node.ran()
            && machine.state == "stopped"
            && side.is_some_and(|side| !node.swaps || is_whole(node, machine, side))
    });
    let stands: Vec<&Node> = stands.map(|(node, _)| *node).collect();
    let (startable, later): (Vec<&Node>, Vec<&Node>) =
        stands.into_iter().partition(|node| node.start.not_before.is_none_or(|at| at <= now));
    if startable.is_empty() {
        let again = later.iter().filter_map(|node| node.start.not_before).min();
        let until = again.unwrap_or(now + STUCK_EVERY).min(now + STUCK_EVERY);
        return Step::Wait { until, note: Some(next) };
    }
    let calls = startable.into_iter().map(|node| Call::Start(node.instance_id.clone()));
    let actions: Vec<_> = calls.map(Action::real).collect();
    intend(&mut next, &actions, now);
    Step::Act { intent: next, actions }
}
