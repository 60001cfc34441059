//! `preparing`: everything is made and tried while the deployment runs on. Whatever
//! fails here has touched nothing.

use super::plan::{self, Planned, named};
use super::seen::{Attached, SeenVolume};
use super::step::{POLL, Step};
use super::{Action, Call, New, Node, Old, Phase, Restore, Seen, end};
use crate::limits::{Limits, VISIBLE};
use crate::operation::FailureCode;
use crate::time::Time;

/// How many volumes are tried for one device before the restore fails.
const MOST_TRIES: u32 = 3;

/// How many calls one step makes: an invocation ends between two steps, not within one.
const BATCH: usize = 40;

/// The next step while the deployment runs.
pub(super) fn advance(restore: &Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    let mut next = restore.clone();
    next.at(Phase::Preparing, now);
    if let Some((code, reason)) = overdue(&next, limits, now) {
        next.turn_back(code, reason, limits, now);
        return Step::Record(next);
    }
    if !next.planned {
        return match plan::plan(&next, seen) {
            Planned::Yes { nodes, settings } => {
                (next.nodes, next.planned) = (nodes, true);
                Step::Plan { next, settings }
            }
            Planned::NotYet(why) => {
                next.trouble = Some(why);
                Step::Wait { until: now + POLL, note: Some(next) }
            }
            Planned::No(code, reason) => {
                next.turn_back(code, reason, limits, now);
                Step::Record(next)
            }
        };
    }
    if let Some((code, reason)) = look_at_volumes(&mut next, seen, now) {
        next.turn_back(code, reason, limits, now);
        return Step::Record(next);
    }
    if next.new_volumes().map(|(_, new)| new).ne(restore.new_volumes().map(|(_, new)| new)) {
        return Step::Record(next);
    }
    for actions in [tries(&next, seen), creates(&next, seen)] {
        if !actions.is_empty() {
            return Step::Act { intent: next, actions };
        }
    }
    if next.new_volumes().any(|(_, new)| !new.available) {
        return Step::Wait { until: now + POLL, note: Some(next) };
    }
    let actions = attach_tries(&next);
    if !actions.is_empty() {
        return Step::Act { intent: next, actions };
    }
    freeze(next, seen, limits, now)
}

/// The deadline, if it has passed.
pub(super) fn overdue(
    restore: &Restore,
    limits: &Limits,
    now: Time,
) -> Option<(FailureCode, String)> {
    if limits.passed(restore.since(now), now) < limits.preparing {
        return None;
    }
    let said = restore.trouble.as_deref().map_or(String::new(), |trouble| {
        format!(" The last word was: {}.", trouble.trim_end_matches('.'))
    });
    let reason = format!(
        "The new volumes could not be made ready within {}; nothing was stopped.{said} Mend what stands in the way, then restore again.",
        limits.preparing
    );
    Some((FailureCode::DeadlineExceeded, reason))
}

/// What became of the volumes that were asked for. Gives the failure, if one is lasting.
fn look_at_volumes(restore: &mut Restore, seen: &Seen, now: Time) -> Option<(FailureCode, String)> {
    let mut fault = None;
    let mut left = Vec::new();
    for node in &mut restore.nodes {
        let name = named(node);
        for new in &mut node.new {
            let Some(id) = new.volume_id.clone() else { continue };
            let known = new.available || new.made_at.is_none_or(|at| now - at >= VISIBLE);
            match seen.volumes.get(&id) {
                Some(SeenVolume::There { state, .. }) => match state.as_str() {
                    "available" => new.available = true,
                    "creating" => {}
                    "in-use" => {
                        fault = Some((
                            FailureCode::VolumeFailed,
                            format!(
                                "{name}: somebody attached {id}, which was made for {} and is not in use yet. Find out who (CloudTrail, AttachVolume), then restore again.",
                                new.device
                            ),
                        ));
                    }
                    _ => {
                        let lasting = again(&name, new);
                        // The end of the restore looks after the last one.
                        left.extend(lasting.is_none().then_some(id));
                        fault = fault.or(lasting);
                    }
                },
                // Right after it was made, EC2 may not know it yet.
                Some(SeenVolume::NotFound) if known => fault = fault.or(again(&name, new)),
                Some(SeenVolume::NotFound | SeenVolume::Unlisted) | None => {}
            }
        }
    }
    restore.leftovers.extend(left.iter().map(|id| end::deleted(id, now)));
    fault
}

/// A volume has vanished or failed: another one, up to a bound.
fn again(name: &str, new: &mut New) -> Option<(FailureCode, String)> {
    if new.attempt >= MOST_TRIES {
        let at = format!("{name}: the volume for {} from {}", new.device, new.snapshot_id);
        // Whether the key can be used EC2 finds out only after the call (EBS user guide).
        return Some(if new.encrypted {
            (
                FailureCode::KmsUnavailable,
                format!(
                    "{at} vanished {MOST_TRIES} times while it was made. It is encrypted: look at its KMS key, which must be enabled, and which the worker's role must be allowed to use."
                ),
            )
        } else {
            (
                FailureCode::VolumeFailed,
                format!(
                    "{at} failed {MOST_TRIES} times while it was made. Look at AWS Health for the zone, then restore again."
                ),
            )
        });
    }
    new.attempt += 1;
    (new.volume_id, new.made_at) = (None, None);
    (new.available, new.attachable) = (false, false);
    None
}

/// What hangs at a device of a node now.
fn at_device<'a>(seen: &'a Seen, node: &Node, device: &str) -> Option<&'a Attached> {
    let machine = seen.instances.get(&node.instance_id)?;
    machine.attached.iter().find(|one| one.device == device)
}

/// Each later call as a dry run, as far as it can be made yet.
fn tries(restore: &Restore, seen: &Seen) -> Vec<Action> {
    let mut actions = Vec::new();
    for node in restore.nodes.iter().filter(|node| !node.checked) {
        actions.push(Action::dry(Call::Stop(node.instance_id.clone())));
        actions.push(Action::dry(Call::Start(node.instance_id.clone())));
        let machine = seen.instances.get(&node.instance_id);
        let attached = machine.into_iter().flat_map(|machine| &machine.attached);
        let uncovered = |one: &&Attached| !node.new.iter().any(|new| new.device == one.device);
        for one in attached.filter(|_| node.swaps).filter(uncovered) {
            actions.push(Action::dry(Call::Keep(one.volume_id.clone())));
            actions.push(Action::dry(Call::Detach {
                instance_id: node.instance_id.clone(),
                volume_id: one.volume_id.clone(),
                device: one.device.clone(),
            }));
        }
        if actions.len() >= BATCH {
            return actions;
        }
    }
    for (node, new) in restore.new_volumes().filter(|(_, new)| !new.checked) {
        let setting = seen
            .settings
            .iter()
            .find(|one| one.node_id == node.node_id && one.device == new.device);
        let Some(setting) = setting else { continue };
        // Without the rate: that the Region has none left is no reason to fail.
        let plain = New { with_rate: false, ..new.clone() };
        actions.push(Action::dry(create(node, &plain, setting.clone())));
        if let Some(old) = at_device(seen, node, &new.device) {
            let (instance_id, device) = (node.instance_id.clone(), new.device.clone());
            let volume_id = old.volume_id.clone();
            // Not its delete: the right to it comes with our tags.
            actions.push(Action::dry(Call::Keep(volume_id.clone())));
            actions.push(Action::dry(Call::SetDeleteOnTermination {
                instance_id: instance_id.clone(),
                device: device.clone(),
                to: old.delete_on_termination,
            }));
            actions.push(Action::dry(Call::Detach { instance_id, volume_id, device }));
        }
        if actions.len() >= BATCH {
            break;
        }
    }
    actions
}

fn create(node: &Node, new: &New, setting: super::Setting) -> Call {
    Call::CreateVolume {
        node_id: node.node_id,
        setting,
        snapshot_id: new.snapshot_id.clone(),
        attempt: new.attempt,
        with_rate: new.with_rate,
    }
}

/// The volumes that are not made yet.
fn creates(restore: &Restore, seen: &Seen) -> Vec<Action> {
    let open = restore.new_volumes().filter(|(_, new)| new.volume_id.is_none());
    let calls = open.filter_map(|(node, new)| {
        let mut settings = seen.settings.iter();
        let setting =
            settings.find(|one| one.node_id == node.node_id && one.device == new.device)?.clone();
        Some(Action::real(create(node, new, setting)))
    });
    calls.take(BATCH).collect()
}

/// The attachment of each volume that exists, as a dry run.
fn attach_tries(restore: &Restore) -> Vec<Action> {
    let open = restore.new_volumes().filter(|(_, new)| !new.attachable);
    let calls = open.filter_map(|(node, new)| {
        Some(Action::dry(Call::Attach {
            instance_id: node.instance_id.clone(),
            volume_id: new.volume_id.clone()?,
            device: new.device.clone(),
        }))
    });
    calls.take(BATCH).collect()
}

/// Everything is ready: who runs and what hangs where is written down, under the very
/// nodes that the control plane has.
fn freeze(mut next: Restore, seen: &Seen, limits: &Limits, now: Time) -> Step {
    if let Some((code, reason)) = plan::changed(&next, seen) {
        next.turn_back(code, reason, limits, now);
        return Step::Record(next);
    }
    let Some(registry) = seen.registry.clone() else {
        return Step::Wait { until: now + POLL, note: None };
    };
    for node in &mut next.nodes {
        let machine = seen.instances.get(&node.instance_id);
        let settled = machine.filter(|machine| {
            let whole = machine.attached.iter().all(|one| one.state == "attached");
            matches!(machine.state.as_str(), "running" | "stopped") && (whole || !node.swaps)
        });
        let Some(machine) = settled else {
            let what = machine.map_or("not shown by EC2", |machine| machine.state.as_str());
            if machine.is_some_and(super::Machine::is_gone) {
                let reason = format!(
                    "{}: its instance is {what}; nothing was stopped. When the deployment has its node back, restore again.",
                    named(node)
                );
                next.turn_back(FailureCode::NodeMissing, reason, limits, now);
                return Step::Record(next);
            }
            next.trouble = Some(format!("{} is {what}, or a volume of it moves", node.instance_id));
            return Step::Wait { until: now + POLL, note: Some(next) };
        };
        if let Some(why) = &machine.unfit {
            let reason = format!("{}: {why}", named(node));
            next.turn_back(FailureCode::NodeNotRestorable, reason, limits, now);
            return Step::Record(next);
        }
        node.was_running = Some(machine.state == "running");
        node.launched_at = machine.launched_at;
        if !node.swaps {
            continue;
        }
        node.old = machine
            .attached
            .iter()
            .map(|one| Old {
                volume_id: one.volume_id.clone(),
                device: one.device.clone(),
                delete_on_termination: one.delete_on_termination,
                late: false,
            })
            .collect();
        for new in &mut node.new {
            if let Some(old) = node.old.iter().find(|old| old.device == new.device) {
                new.delete_on_termination = old.delete_on_termination;
            }
        }
    }
    next.frozen_at = Some(now);
    next.trouble = None;
    Step::Freeze { next, registry }
}
