//! An operator's order: the exit of a restore that is stuck, and of any other.

use serde::{Deserialize, Serialize};

use super::plan::named;
use super::seen::SeenVolume;
use super::sets::{demanded, has_of_side, is_whole};
use super::turns::SHOWN;
use super::{Fate, Leftover, Look, Machine, Node, Restore, Seen, Status, end};
use crate::id::{InstanceId, Nonce, VolumeId};
use crate::limits::Limits;
use crate::operation::{Failure, FailureCode};
use crate::time::Time;

/// What an operator may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Go on in the direction that it has, with every deadline anew.
    Retry,
    /// Put the old volumes back. What was written to the new ones is kept, not lost.
    RollBack,
    /// Leave the way back, and put the backup's volumes on again. What was written to the
    /// old ones is kept, not lost.
    RollForward,
    /// It is over as it is, if EC2 shows that the deployment is whole.
    Release,
}

/// How many answers a row keeps: an order that comes twice is obeyed once.
const ANSWERS: usize = 8;

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which order.
    pub order_id: Nonce,
    /// Why it was not obeyed; None: it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Until when an order must wait that frees what EC2 shows to be whole: it may still show
/// what was before the last calls.
pub fn shows_at(restore: &Restore, order: Order) -> Option<Time> {
    let waits = order == Order::Release && restore.status.active();
    restore.acted_at.map(|at| at + SHOWN).filter(|_| waits)
}

/// What must be looked at before an order can be obeyed.
pub fn look_for_order(restore: &Restore, order: Order) -> Look {
    let looks = match order {
        Order::Retry => false,
        Order::RollBack => restore.touched_at.is_some(),
        Order::RollForward => restore.back,
        Order::Release => restore.disturbed || restore.touched_at.is_some(),
    };
    if !looks {
        return Look::default();
    }
    let old = restore.nodes.iter().flat_map(|node| node.old.iter().chain(&node.aside));
    let old = old.map(|old| &old.volume_id);
    let left = restore.leftovers.iter().map(|left| &left.volume_id);
    let new = restore.new_volumes().filter_map(|(_, new)| new.volume_id.as_ref());
    Look {
        instances: restore.nodes.iter().map(|node| node.instance_id.clone()).collect(),
        volumes: old.chain(new).chain(left).cloned().collect(),
        ..Look::default()
    }
}

/// The row after the order, with the answer to it.
pub fn obey(
    restore: &Restore,
    order: Order,
    order_id: Nonce,
    seen: &Seen,
    limits: &Limits,
    now: Time,
) -> Restore {
    let mut next = restore.clone();
    let obeyed = if restore.status.active() {
        match order {
            Order::Retry => {
                retry(&mut next);
                Ok(())
            }
            Order::RollBack => roll_back(&mut next, seen, limits, now),
            Order::RollForward => roll_forward(&mut next, seen, now),
            Order::Release => release(&mut next, seen, limits, now),
        }
    } else {
        Err(format!("the restore is over: {}", restore.status.as_str()))
    };
    if obeyed.is_err() {
        next = restore.clone();
    }
    next.answers.push(Answer { order_id, refused: obeyed.err() });
    let old = next.answers.len().saturating_sub(ANSWERS);
    next.answers.drain(..old);
    next
}

/// As if it had just come to where it is.
fn retry(restore: &mut Restore) {
    if restore.status == Status::Stuck {
        restore.status = if restore.back { Status::RollingBack } else { Status::InProgress };
        if !restore.back {
            restore.failure = None;
        }
    }
    restore.reached = None;
    if restore.frozen_at.is_some() {
        // Dated again when it is observed.
        restore.phase = None;
    }
    // Not on what was before the last calls.
    restore.not_before = restore.touched_at.and(restore.acted_at).map(|at| at + SHOWN);
    (restore.troubles, restore.trouble) = (0, None);
    for node in &mut restore.nodes {
        node.start.anew();
    }
}

/// Back, if every old volume can be put back.
fn roll_back(restore: &mut Restore, seen: &Seen, limits: &Limits, now: Time) -> Result<(), String> {
    if restore.touched_at.is_some() {
        is_at_hand(restore, seen, true)?;
    }
    if restore.back {
        retry(restore);
        return Ok(());
    }
    let before = restore.failure.take();
    restore.turn_back(
        FailureCode::Superseded,
        "An operator called the restore back.".to_owned(),
        limits,
        now,
    );
    restore.failure = before.or_else(|| restore.failure.take());
    Ok(())
}

/// Forward again, if every new volume can be put on. As after the freeze: who runs is
/// stopped first, and until the first start the way back is open.
fn roll_forward(restore: &mut Restore, seen: &Seen, now: Time) -> Result<(), String> {
    if !restore.back {
        retry(restore);
        return Ok(());
    }
    is_at_hand(restore, seen, false)?;
    for node in &restore.nodes {
        let name = named(node);
        match seen.instances.get(&node.instance_id) {
            None => return Err(format!("{name} is not shown by EC2; order again")),
            Some(machine) if node.missing || machine.is_gone() => {
                return Err(format!(
                    "{name}: its instance is gone, and forward leads nowhere without it; attach by hand what is left, and release the restore"
                ));
            }
            Some(_) => {}
        }
    }
    restore.turn_forward(seen, now);
    Ok(())
}

/// Whether every volume of the side is there for its node.
fn is_at_hand(restore: &Restore, seen: &Seen, back: bool) -> Result<(), String> {
    let gone = |node: &Node| {
        let machine = seen.instances.get(&node.instance_id);
        node.missing || machine.is_some_and(Machine::is_gone)
    };
    for node in restore.swapping().filter(|node| !gone(node)) {
        for one in demanded(node, back) {
            let (id, name) = (one.volume_id, named(node));
            match seen.volumes.get(id) {
                Some(there) if there.is_gone() => {
                    return Err(format!("{name}: volume {id} is gone from EC2"));
                }
                Some(SeenVolume::There { instances, .. }) => {
                    if let Some(other) = instances.iter().find(|other| **other != node.instance_id)
                    {
                        return Err(format!(
                            "{name}: volume {id} hangs on {other}; detach it first"
                        ));
                    }
                }
                _ => {
                    return Err(format!("{name}: EC2 does not show volume {id}; order again"));
                }
            }
        }
    }
    Ok(())
}

/// On which volumes a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    New,
    Old,
    /// On some that somebody else gave it.
    Neither,
}

fn side(node: &Node, machine: &Machine) -> Result<Side, String> {
    let name = named(node);
    let (new, old) = (has_of_side(node, machine, false), has_of_side(node, machine, true));
    match (new, old) {
        (true, true) => Err(format!("{name} has volumes of the backup and of before")),
        (true, false) if is_whole(node, machine, false) => Ok(Side::New),
        (false, true) if is_whole(node, machine, true) => Ok(Side::Old),
        (true, false) => Err(format!("{name} has not the whole set of the backup's volumes")),
        (false, true) => Err(format!("{name} has not the whole set of its old volumes")),
        (false, false) if machine.attached.len() < node.new.len() => Err(format!(
            "{name} has {} data volumes, and is to have {}; attach them first",
            machine.attached.len(),
            node.new.len()
        )),
        (false, false) => Ok(Side::Neither),
    }
}

/// Frees the deployment, if EC2 shows that who ran runs, on one whole set of volumes each,
/// and all on the same side; or on what somebody else gave them, and then it has failed.
fn release(restore: &mut Restore, seen: &Seen, limits: &Limits, now: Time) -> Result<(), String> {
    if !restore.disturbed {
        return roll_back(restore, seen, limits, now);
    }
    let mut sides = Vec::new();
    let mut missing = false;
    for node in &mut restore.nodes {
        let name = named(node);
        let Some(machine) = seen.instances.get(&node.instance_id) else {
            return Err(format!("{name} is not shown by EC2; order again"));
        };
        node.missing |= machine.is_gone();
        missing |= node.missing;
        if node.missing {
            continue;
        }
        if node.ran() && machine.state != "running" {
            let moves = restore.status != Status::Stuck;
            let hint = if moves { "the restore is at it" } else { "start it first" };
            return Err(format!("{name} ran before and is {}; {hint}", machine.state));
        }
        if node.swaps {
            sides.push(side(node, machine)?);
        }
    }
    let (new, old) = (sides.contains(&Side::New), sides.contains(&Side::Old));
    if new && old {
        return Err("some nodes are on the backup's volumes and some on their old ones".into());
    }
    let whole = !missing && !sides.contains(&Side::Neither);
    let status = match (whole, new) {
        (true, true) => Status::Completed,
        (true, false) => Status::RolledBack,
        (false, _) => Status::Failed,
    };
    // A person was at it: nothing goes by itself.
    restore.was_stuck = true;
    let reason = "An operator released the restore as it was.".to_owned();
    restore.failure.get_or_insert(Failure { code: FailureCode::Superseded, reason });
    restore.started_at = restore.stopped_at.map(|_| now);
    end::finish(restore, status, limits, now);
    // On whatever instance, for the node may have another one now; but not on one that is
    // on its way out.
    let lives = |id: &InstanceId| !seen.instances.get(id).is_some_and(Machine::is_gone);
    let hangs = |id: &VolumeId| matches!(seen.volumes.get(id), Some(SeenVolume::There { instances, .. }) if instances.iter().any(lives));
    let old = restore.nodes.iter().flat_map(|node| &node.old).map(|old| old.volume_id.clone());
    for volume_id in old.collect::<Vec<_>>() {
        if !hangs(&volume_id) && !restore.leftovers.iter().any(|left| left.volume_id == volume_id) {
            restore.leftovers.push(Leftover::new(&volume_id, Fate::Kept, None));
        }
    }
    for left in &mut restore.leftovers {
        left.fate = if hangs(&left.volume_id) { Fate::Adopted } else { Fate::Kept };
        (left.not_before, left.tagged) = (None, false);
    }
    restore.old_volumes_kept_until = None;
    Ok(())
}
