//! The sets of volumes: which one a node is to have, what it has of it, and which calls
//! bring it nearer.

use std::collections::BTreeSet;

use super::seen::{Attached, SeenVolume};
use super::{Call, Machine, Node, Old, Restore, Seen};
use crate::id::{InstanceId, VolumeId};

/// A volume that is to hang on a node.
pub(super) struct Wanted<'a> {
    pub(super) volume_id: &'a VolumeId,
    pub(super) device: &'a str,
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

/// Of these what it must have. What somebody attached in the middle is put back if it can
/// be, and is not demanded.
pub(super) fn demanded(node: &Node, back: bool) -> Vec<Wanted<'_>> {
    let late = |id: &VolumeId| node.old.iter().any(|old| old.late && old.volume_id == *id);
    let mut wanted = wanted(node, back);
    wanted.retain(|one| !late(one.volume_id));
    wanted
}

/// Whether the node has exactly the set that it is to have; on the way back, that set and
/// nothing of the backup's: what somebody has attached since is theirs, and not demanded.
pub(super) fn is_whole(node: &Node, machine: &Machine, back: bool) -> bool {
    let wanted = demanded(node, back);
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
pub(super) fn can_have_back(node: &Node, machine: &Machine, seen: &Seen) -> bool {
    let moves = |old: &Old| {
        let mut all = machine.attached.iter().filter(|there| there.volume_id == old.volume_id);
        all.any(|there| there.state != "attached")
    };
    let mut late = node.old.iter().filter(|old| old.late);
    machine.state == "stopped"
        && late.any(|old| moves(old) || can_be_attached(&old.volume_id, &old.device, machine, seen))
}

/// Whether a volume of the side hangs on the node: a new one, or one that a new one
/// replaces.
pub(super) fn has_of_side(node: &Node, machine: &Machine, back: bool) -> bool {
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
pub(super) fn notice_late(restore: &mut Restore, seen: &Seen) {
    let gone = |of: &InstanceId, id: &VolumeId| match seen.volumes.get(id) {
        Some(there) if there.is_gone() => true,
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
        .chain(restore.nodes.iter().flat_map(|node| &node.aside).map(|one| one.volume_id.clone()))
        .chain(restore.leftovers.iter().map(|left| left.volume_id.clone()))
        .collect();
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
                node.aside.push(late);
            } else {
                node.old.push(late);
            }
        }
        node.old.sort_by(|a, b| a.device.cmp(&b.device));
    }
}

/// Whether neither is taken, the volume or the device.
fn can_be_attached(id: &VolumeId, device: &str, machine: &Machine, seen: &Seen) -> bool {
    let takes = |there: &Attached| there.device == device || there.volume_id == *id;
    !machine.attached.iter().any(takes)
        && seen.volumes.get(id).is_some_and(SeenVolume::is_available)
}

/// The calls that bring a stopped node nearer to its set.
pub(super) fn exchange(node: &Node, machine: &Machine, seen: &Seen, back: bool) -> Vec<Call> {
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
                calls.push(Call::Detach {
                    instance_id: instance_id(),
                    volume_id: there.volume_id.clone(),
                    device: there.device.clone(),
                });
            }
            Some(one)
                if there.state == "attached"
                    && there.delete_on_termination != one.delete_on_termination =>
            {
                calls.push(Call::SetDeleteOnTermination {
                    instance_id: instance_id(),
                    device: there.device.clone(),
                    to: one.delete_on_termination,
                });
            }
            _ => {}
        }
    }
    for one in wanted {
        if can_be_attached(one.volume_id, one.device, machine, seen) {
            calls.push(Call::Attach {
                instance_id: instance_id(),
                volume_id: one.volume_id.clone(),
                device: one.device.to_owned(),
            });
        }
    }
    calls
}
