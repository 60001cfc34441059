//! A restore driven against the hand-made EC2: as far as it goes, to some point, by one
//! step; and what must hold.

use std::collections::BTreeSet;

use super::super::*;
use super::world::World;
use crate::limits::Limits;
use crate::operation::FailureCode;
use crate::time::Seconds;

/// What must never be, at each step.
fn check(restore: &Restore, world: &World) {
    for (id, machine) in &world.machines {
        let devices: BTreeSet<_> = machine.attached.iter().map(|one| &one.device).collect();
        assert_eq!(devices.len(), machine.attached.len(), "two volumes at one device of {id}");
    }
    if restore.touched_at.is_some() {
        let ready = restore.new_volumes().all(|(_, new)| new.available);
        assert!(ready, "touched before every new volume was available");
    }
    let old = restore.nodes.iter().flat_map(|node| &node.old);
    let kept = restore.old_volumes_kept_until.is_none_or(|until| world.now < until);
    for old in old.filter(|_| kept) {
        // Somebody else may.
        let deleted = world.calls.contains(&Call::DeleteVolume(old.volume_id.clone()));
        assert!(!deleted, "{} is deleted", old.volume_id);
    }
}

/// The one next step, if the look shows this beside what is so.
pub(super) fn next(restore: &Restore, world: &World, shows: impl FnOnce(&mut Seen)) -> Step {
    let mut seen = world.see(&look(restore, world.now));
    shows(&mut seen);
    step(restore, Ok(&seen), &Limits::default(), world.now)
}

/// Until when it waits, and with what word.
pub(super) fn waits(step: Step) -> (Time, String) {
    let Step::Wait { until, note } = step else { panic!("no wait: {step:#?}") };
    (until, note.and_then(|note| note.trouble).unwrap_or_default())
}

/// How it ends or goes on, in one write.
pub(super) fn records(step: Step) -> Restore {
    let Step::Record(next) = step else { panic!("no record: {step:#?}") };
    next
}

/// Where it stands, and why.
pub(super) fn stands(restore: &Restore) -> (Status, Option<FailureCode>) {
    (restore.status, restore.failure.as_ref().map(|one| one.code))
}

/// Lets it go on until nothing more is to be done for a while.
pub(super) fn drive(restore: Restore, world: &mut World) -> Restore {
    drive_until(restore, world, |_| false)
}

/// As [`drive`], but no further than this.
pub(super) fn drive_until(
    mut restore: Restore,
    world: &mut World,
    until: impl Fn(&Restore) -> bool,
) -> Restore {
    let limits = Limits::default();
    for _ in 0..5000 {
        check(&restore, world);
        if until(&restore) {
            return restore;
        }
        let now = world.now;
        let seen = world.see(&look(&restore, now));
        world.looks += 1;
        restore.revision += 1;
        match step(&restore, Ok(&seen), &limits, now) {
            Step::Record(next) => {
                assert!(
                    next.status == restore.status || restore.status.may_become(next.status),
                    "{:?} became {:?}",
                    restore.status,
                    next.status
                );
                restore = next;
            }
            Step::Plan { next, settings } => {
                world.settings = settings;
                restore = next;
            }
            Step::Freeze { next, registry } => {
                assert_eq!(registry, world.registry);
                restore = next;
            }
            Step::Act { intent, actions } => {
                restore = intent;
                let outcomes: Vec<_> =
                    actions.into_iter().map(|one| (one.clone(), world.answer(&one))).collect();
                if std::mem::take(&mut world.crashed) {
                    // The lease of the dead one runs out first.
                    world.now = world.now + Seconds(60);
                } else {
                    apply(&mut restore, &outcomes, &limits, now);
                }
                world.pass();
            }
            Step::Wait { until, note } => {
                restore = note.unwrap_or(restore);
                let stuck = restore.status == Status::Stuck;
                if stuck || (!restore.status.active() && until > now + Seconds(600)) {
                    return restore;
                }
                world.pass();
                if until > world.now {
                    world.now = until;
                }
            }
            Step::Rest => return restore,
        }
    }
    panic!("no end: {restore:#?}")
}

/// Every node that ran runs, and each of these has exactly its new or its old set.
pub(super) fn on(restore: &Restore, world: &World, new: bool) {
    for node in &restore.nodes {
        let machine = &world.machines[&node.instance_id];
        assert_eq!(machine.state == "running", node.was_running == Some(true), "{machine:?}");
        if !node.swaps {
            continue;
        }
        let have: BTreeSet<_> = machine
            .attached
            .iter()
            .map(|one| (one.device.clone(), one.volume_id.clone(), one.delete_on_termination))
            .collect();
        let want: BTreeSet<_> = if new {
            let all = node.new.iter();
            all.map(|one| {
                let id = one.volume_id.clone().expect("made");
                (one.device.clone(), id, one.delete_on_termination)
            })
            .collect()
        } else {
            let all = node.old.iter();
            all.map(|one| (one.device.clone(), one.volume_id.clone(), one.delete_on_termination))
                .collect()
        };
        assert_eq!(have, want, "node {}", node.node_id);
    }
}
