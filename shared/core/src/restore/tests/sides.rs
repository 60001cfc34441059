//! That the nodes that run are on one side, and what somebody else does about that.

use super::world::{How, Strike, World, attached, drive, drive_until, on, stands, volume, world};
use super::*;

fn order(row: &Restore, world: &World, order: Order) -> Restore {
    let seen = world.see(&look_for_order(row, order));
    let next = obey(row, order, Nonce(format!("{order:?}")), &seen, &Limits::default(), world.now);
    assert_eq!(next.answers.last().and_then(|one| one.refused.as_deref()), None);
    next
}

/// Both run on the backup's data, and a third one waits for its start: called back.
fn called_back() -> (Restore, World) {
    let (restore, mut world) = world(&[3, 5, 7], &[3, 5, 7]);
    world.gives_up = Some((InstanceId::from("i-5"), 10_000, "Server.InsufficientInstanceCapacity"));
    let both = |row: &Restore| [0, 2].iter().all(|n| row.nodes[*n].launch == Launch::Yes);
    let row = drive_until(restore, &mut world, both);
    let row = order(&row, &world, Order::RollBack);
    world.gives_up = None;
    (row, world)
}

#[test]
fn no_node_is_started_on_the_other_side_of_one_that_cannot_be_stopped() {
    let (row, mut world) = called_back();
    world.stands = Some(InstanceId::from("i-7"));
    let mut row = drive_until(row, &mut world, |row| row.status == Status::Stuck);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::StopFailed)));
    // Node 7 goes on serving the backup's data: the others join it.
    (world.stands, world.machine("i-7").state) = (None, "running".into());
    for _ in 0..4 {
        world.now = world.now + Seconds(60);
        world.pass();
        row = drive(row, &mut world);
        assert_eq!(row.status, Status::Stuck);
    }
    for (id, node) in [("i-3", 0), ("i-5", 1), ("i-7", 2)] {
        let machine = world.machine(id).clone();
        assert_eq!(machine.state, "running", "{id}");
        let new =
            |id: &VolumeId| row.nodes[node].new.iter().any(|n| n.volume_id.as_ref() == Some(id));
        assert!(machine.attached.iter().all(|there| new(&there.volume_id)), "{id}: {machine:?}");
    }
}

#[test]
fn where_both_sides_serve_nobody_joins_either() {
    let (row, mut world) = called_back();
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Swapping));
    let mut row = Restore { status: Status::Stuck, ..row };
    for (id, node, old) in [("i-3", 0, true), ("i-7", 2, false)] {
        let own = &row.nodes[node];
        let set: Vec<_> = if old {
            (0..2).map(|n| attached(&volume(3, n))).collect()
        } else {
            let set = own.new.iter().map(|new| Attached {
                volume_id: new.volume_id.clone().expect("made"),
                device: new.device.clone(),
                state: "attached".into(),
                delete_on_termination: new.delete_on_termination,
            });
            set.collect()
        };
        let machine = world.machine(id);
        (machine.state, machine.attached) = ("running".into(), set);
    }
    let starts = world.called("StartInstances");
    world.now = world.now + Seconds::minutes(5);
    row = drive(row, &mut world);
    assert_eq!((row.status, world.called("StartInstances")), (Status::Stuck, starts));
}

#[test]
fn the_way_back_does_not_wait_for_what_somebody_attached_and_took_away_again() {
    for deleted in [false, true] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        let frozen = |row: &Restore| row.touched_at.is_some();
        let row = drive_until(restore, &mut world, frozen);
        let late = Volume { volume_id: VolumeId::from("vol-late"), ..volume(3, 5) };
        world.volumes.insert(late.volume_id.clone(), ("in-use".into(), None, 0));
        world.machine("i-3").attached.push(attached(&late));
        let off = |row: &Restore| row.nodes[0].old.iter().any(|old| old.late);
        let row = drive_until(row, &mut world, off);
        world.strikes = vec![Strike { on: "AttachVolume", nth: 0, how: How::Lost }];
        let free = |row: &Restore| row.troubles > 3;
        let row = drive_until(row, &mut world, free);
        if deleted {
            world.volumes.remove(&late.volume_id);
        } else {
            let theirs = Machine { state: "running".into(), ..Machine::default() };
            world.machines.insert(InstanceId::from("i-9"), theirs);
            world.machine("i-9").attached.push(attached(&late));
        }
        world.strikes.clear();
        let done = drive(order(&row, &world, Order::RollBack), &mut world);
        assert_eq!(done.status, Status::RolledBack, "{deleted}: {:?}", done.failure);
        on(&done, &world, false);
    }
}

#[test]
fn what_was_ordered_forward_after_it_had_served_does_not_turn_back_by_itself() {
    let (row, mut world) = called_back();
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Starting));
    let row = order(&row, &world, Order::RollForward);
    assert!(row.committed);
    let how = How::Refused("AttachmentLimitExceeded");
    world.strikes = vec![Strike { on: "AttachVolume", nth: 0, how }];
    let row = drive(row, &mut world);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::AttachFailed)));
    assert!(!row.back);
    world.strikes.clear();
    let done = drive(order(&row, &world, Order::Retry), &mut world);
    assert_eq!(stands(&done), (Status::Completed, None));
    on(&done, &world, true);
}

#[test]
fn a_new_volume_that_somebody_takes_off_before_the_end_is_kept_and_named() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 2, "Server.InsufficientInstanceCapacity"));
    let row = drive_until(restore, &mut world, |row| row.nodes[0].launch == Launch::Yes);
    let seven = world.machine("i-7");
    // Somebody helps himself to the old ones, and starts it.
    let new: Vec<_> = seven.attached.drain(..).map(|there| there.volume_id).collect();
    seven.attached = (0..2).map(|n| attached(&volume(7, n))).collect();
    seven.state = "running".into();
    for id in &new {
        world.volumes.get_mut(id).expect("a volume").0 = "available".into();
    }
    let done = drive_until(row, &mut world, |row| !row.status.active());
    assert_eq!(done.status, Status::Completed);
    for id in new {
        let left = done.leftovers.iter().find(|left| left.volume_id == id);
        assert_eq!(left.map(|left| left.fate), Some(Fate::Kept), "{id}");
    }
}
