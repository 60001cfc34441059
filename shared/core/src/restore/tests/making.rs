//! The volumes while they are made, the time for it, and the freeze: nothing is touched.

use std::collections::BTreeSet;

use super::drive::{drive, drive_until, next, records, stands, waits};
use super::preflight::{failed, seven, untouched};
use super::world::{World, attached, volume, world};
use super::*;
use crate::limits::VISIBLE;
use crate::operation::CallError;

/// Where the first volume was made, of an encrypted snapshot or not.
fn made(encrypted: bool) -> (Restore, World) {
    let (restore, mut world) = world(&[3], &[3]);
    let key = encrypted.then(|| "key".to_owned());
    world.kept[0].volume.as_mut().expect("kept").kms_key_id = key;
    let row = drive_until(restore, &mut world, |row| first(row).is_some());
    (row, world)
}

/// Only the freeze is missing.
fn ready(row: &Restore) -> bool {
    row.planned && row.new_volumes().all(|(_, new)| new.attachable)
}

fn first(row: &Restore) -> Option<&VolumeId> {
    row.new_volumes().next().and_then(|(_, new)| new.volume_id.as_ref())
}

/// What a volume comes to.
type Spoil = fn(&mut World, &VolumeId);

/// Each volume for the first device comes to this, so many times.
fn spoilt(mut row: Restore, world: &mut World, times: u32, to: Spoil) -> Restore {
    for _ in 0..times {
        row = drive_until(row, world, |row| first(row).is_some() || !row.status.active());
        to(world, &first(&row).cloned().expect("made"));
        // Until its absence counts.
        world.now = world.now + VISIBLE;
        let attempt = row.nodes[0].new[0].attempt;
        let over = |row: &Restore| row.nodes[0].new[0].attempt > attempt || !row.status.active();
        row = drive_until(row, world, over);
    }
    row
}

fn vanish(world: &mut World, id: &VolumeId) {
    world.volumes.remove(id);
}

fn break_down(world: &mut World, id: &VolumeId) {
    world.volumes.get_mut(id).expect("a volume").0 = "error".into();
}

#[test]
fn a_volume_that_comes_to_nothing_three_times_fails_it() {
    for to in [vanish, break_down] {
        for (encrypted, code) in
            [(true, FailureCode::KmsUnavailable), (false, FailureCode::VolumeFailed)]
        {
            let (row, mut world) = made(encrypted);
            let row = spoilt(row, &mut world, 3, to);
            assert_eq!(stands(&row), failed(code));
            let done = drive(row, &mut world);
            untouched(&done, &world);
            assert_eq!((done.leftovers, world.tokens.len()), (Vec::new(), 4));
            let deletes = world.calls.iter().filter_map(|call| match call {
                Call::DeleteVolume(id) => Some(id),
                _ => None,
            });
            let once: BTreeSet<_> = deletes.clone().collect();
            assert_eq!(deletes.count(), once.len(), "each is deleted once");
        }
    }
}

#[test]
fn a_volume_that_comes_to_nothing_twice_is_made_under_a_third_token() {
    for (to, left) in [(vanish as Spoil, 0), (break_down, 2)] {
        let (row, mut world) = made(true);
        let row = spoilt(row, &mut world, 2, to);
        assert_eq!(row.leftovers.len(), left, "what broke down is named");
        let done = drive(row, &mut world);
        assert_eq!(stands(&done), (Status::Completed, None));
        assert_eq!(done.nodes[0].new[0].attempt, 3);
        // What broke down goes with the rest.
        assert_eq!(world.volumes.len(), 4);
    }
}

#[test]
fn what_takes_the_place_of_a_volume_that_was_available_is_waited_for_as_well() {
    let (restore, mut world) = world(&[3], &[3]);
    let row = drive_until(restore, &mut world, ready);
    vanish(&mut world, &first(&row).cloned().expect("made"));
    (world.now, world.slow) = (world.now + VISIBLE, 5);
    let row = drive_until(row, &mut world, |row| row.frozen_at.is_some());
    assert_eq!(world.volumes[first(&row).expect("made again")].0, "available");
    assert_eq!(row.nodes[0].new[0].attempt, 2);
    let tried = world.tried.iter().filter(|call| call.name() == "AttachVolume");
    assert_eq!(tried.count(), 3, "the attachment of the new one too");
}

#[test]
fn a_volume_that_ec2_does_not_know_yet_is_waited_for() {
    let (row, world) = made(false);
    let id = first(&row).cloned().expect("made");
    for unsure in [SeenVolume::NotFound, SeenVolume::Unlisted] {
        let step = next(&row, &world, |seen| drop(seen.volumes.insert(id.clone(), unsure)));
        waits(step);
    }
}

#[test]
fn a_volume_that_somebody_else_attached_fails_it_and_stays_theirs() {
    let (row, mut world) = made(false);
    let id = first(&row).cloned().expect("made");
    let theirs = Volume { volume_id: id.clone(), ..volume(9, 0) };
    let other = Machine { attached: vec![attached(&theirs)], ..Machine::default() };
    world.machines.insert(InstanceId::from("i-9"), other);
    world.volumes.get_mut(&id).expect("made").0 = "in-use".into();
    let done = drive(row, &mut world);
    assert_eq!(stands(&done), failed(FailureCode::VolumeFailed));
    assert_eq!(world.called("StopInstances"), 0);
    assert!(world.volumes.contains_key(&id), "it is not deleted under them");
    assert!(world.calls.contains(&Call::Release(id)));
    assert_eq!(world.volumes.len(), 3, "and the other one is");
}

#[test]
fn the_time_to_prepare_is_over_whether_ec2_can_be_described_or_not() {
    let limits = Limits::default();
    let error = CallError::Unknown("no answer".into());
    for blind in [true, false] {
        let (made, mut world) = made(false);
        let mut row = made;
        let (_, began) = row.reached.expect("dated");
        row.trouble = Some("the last trouble.".into());
        let step = |row: &Restore, world: &World| {
            let seen = world.see(&look(row, world.now));
            step(row, if blind { Err(&error) } else { Ok(&seen) }, &limits, world.now)
        };
        for state in world.volumes.values_mut().filter(|one| one.0 != "in-use") {
            (state.0, state.2) = ("creating".into(), u8::MAX);
        }
        world.now = began + limits.preparing + Seconds(-1);
        waits(step(&row, &world));
        world.now = began + limits.preparing;
        let done = records(step(&row, &world));
        assert_eq!(stands(&done), failed(FailureCode::DeadlineExceeded), "blind: {blind}");
        let said = if blind { "no answer" } else { "the last trouble" };
        assert!(done.failure.as_ref().is_some_and(|one| one.reason.contains(said)));
        let done = drive(done, &mut world);
        untouched(&done, &world);
    }
}

// The freeze.

#[test]
fn nothing_is_frozen_while_a_node_or_a_volume_moves() {
    let (restore, mut world) = world(&[3, 7], &[3]);
    let row = drive_until(restore, &mut world, ready);
    let machine = |seen: &mut Seen, id: &str, change: fn(&mut Machine)| {
        change(seen.instances.get_mut(&InstanceId::from(id)).expect("shown"));
    };
    let moves: fn(&mut Machine) = |one| one.attached[0].state = "detaching".into();
    let stops: fn(&mut Machine) = |one| one.state = "stopping".into();
    for (id, change) in [("i-3", moves), ("i-3", stops), ("i-7", stops)] {
        let (until, trouble) = waits(next(&row, &world, |seen| machine(seen, id, change)));
        assert!(until > world.now && trouble.contains(id), "{trouble}");
    }
    waits(next(&row, &world, |seen| drop(seen.instances.remove(&InstanceId::from("i-7")))));
    waits(next(&row, &world, |seen| seen.registry = None));
    // The volumes of a node that keeps them are its own business.
    let step = next(&row, &world, |seen| machine(seen, "i-7", moves));
    assert!(matches!(step, Step::Freeze { .. }));
    for state in ["terminated", "shutting-down"] {
        let gone = |seen: &mut Seen| seven(seen).state = state.into();
        let done = records(next(&row, &world, gone));
        assert_eq!(stands(&done), failed(FailureCode::NodeMissing));
        assert_eq!(done.frozen_at, None);
    }
}
