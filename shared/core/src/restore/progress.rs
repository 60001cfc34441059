//! How far a restore is, from what was seen: the share of the way to every node running on
//! the backup's volumes. On the way back it falls.

use super::sets::{has_all_new, is_new};
use super::{Node, Restore, Seen, Status, Step};

/// Every new volume of a node is available.
const READY: usize = 50;
/// And the node stands.
const STANDS: usize = 60;
/// And has its whole set.
const SWAPPED: usize = 80;
/// Only one that is over is at 100.
const NOT_OVER: u8 = 99;

/// The step, with what it stores saying how far the restore is.
pub(super) fn told(mut step: Step, restore: &Restore, seen: &Seen) -> Step {
    match &mut step {
        Step::Record(next)
        | Step::Plan { next, .. }
        | Step::Freeze { next, .. }
        | Step::Act { intent: next, .. } => note(next, seen),
        Step::Wait { note: taught, .. } => {
            let mut next = taught.take().unwrap_or_else(|| restore.clone());
            note(&mut next, seen);
            *taught = (next != *restore).then_some(next);
        }
        Step::Rest => {}
    }
    step
}

fn note(restore: &mut Restore, seen: &Seen) {
    if !restore.status.active() {
        return;
    }
    let frozen = restore.frozen_at.is_some();
    let launched = restore.launched_at.is_some() && !restore.back;
    for node in &mut restore.nodes {
        if let Some(percent) = reached(node, seen, frozen, launched) {
            node.progress = u8::try_from(percent).unwrap_or(NOT_OVER);
        }
    }
    // The others are only stopped and started, and take no longer.
    let of: Vec<u64> = restore.swapping().map(|node| u64::from(node.progress)).collect();
    let mean = of.iter().sum::<u64>().checked_div(of.len() as u64).unwrap_or(0);
    restore.progress = u8::try_from(mean).unwrap_or(NOT_OVER).min(NOT_OVER);
}

/// It is over: all of the way is done, or none of it is left.
pub(super) fn over(restore: &mut Restore) {
    let percent = if restore.status == Status::Completed { 100 } else { 0 };
    restore.progress = percent;
    for node in &mut restore.nodes {
        node.progress = percent;
    }
}

/// How far the node is, in percent; None: it was not shown.
fn reached(node: &Node, seen: &Seen, frozen: bool, launched: bool) -> Option<usize> {
    let all = node.new.len().max(1);
    if !frozen {
        // A volume counts half when it is made, and whole when it is available.
        let made = node.new.iter().filter(|new| new.volume_id.is_some()).count();
        let ready = node.new.iter().filter(|new| new.available).count();
        return Some(READY * (made + ready) / (2 * all));
    }
    let machine = seen.instances.get(&node.instance_id)?;
    let stands = machine.state == "stopped";
    if !node.swaps {
        return Some(match machine.state.as_str() {
            "running" if launched => 100,
            "running" | "stopping" if !launched => READY,
            _ => SWAPPED,
        });
    }
    let on = machine.attached.iter().filter(|there| is_new(node, &there.volume_id)).count();
    Some(match on {
        0 if stands => STANDS,
        0 => READY,
        _ if machine.state == "running" && has_all_new(node, machine) => 100,
        _ => STANDS + (SWAPPED - STANDS) * on / all,
    })
}
