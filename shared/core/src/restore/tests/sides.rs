//! That the nodes that run are on one side, and what somebody else does about that.

use super::drive::{drive, drive_until, on, stands};
use super::world::{How, Strike, World, attached, volume, world};
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
    // Node 5 stands with its whole old set.
    let five = (0..2).map(|n| attached(&volume(5, n))).collect();
    (world.machine("i-5").state, world.machine("i-5").attached) = ("stopped".into(), five);
    let starts = world.called("StartInstances");
    world.now = world.now + Seconds::minutes(5);
    row = drive(row, &mut world);
    assert_eq!((row.status, world.called("StartInstances")), (Status::Stuck, starts));
}

#[test]
fn the_way_back_does_not_wait_for_what_somebody_attached_and_took_away_again() {
    for fate in ["deleted", "deleting", "elsewhere"] {
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
        match fate {
            "deleted" => {
                world.volumes.remove(&late.volume_id);
            }
            "deleting" => {
                world.volumes.insert(late.volume_id.clone(), ("deleting".into(), None, 0));
            }
            _ => {
                let theirs = Machine { state: "running".into(), ..Machine::default() };
                world.machines.insert(InstanceId::from("i-9"), theirs);
                world.machine("i-9").attached.push(attached(&late));
            }
        }
        world.strikes.clear();
        let done = drive(order(&row, &world, Order::RollBack), &mut world);
        assert_eq!(done.status, Status::RolledBack, "{fate}: {:?}", done.failure);
        on(&done, &world, false);
    }
}

#[test]
fn what_somebody_attached_is_put_back_though_it_comes_last() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.touched_at.is_some());
    let late = Volume { volume_id: VolumeId::from("vol-late"), ..volume(3, 5) };
    world.volumes.insert(late.volume_id.clone(), ("in-use".into(), None, 0));
    world.machine("i-3").attached.push(attached(&late));
    world.strikes = vec![Strike { on: "AttachVolume", nth: 0, how: How::Lost }];
    let off = |row: &Restore| row.nodes[0].old.iter().any(|old| old.late) && row.troubles > 3;
    let row = drive_until(row, &mut world, off);
    let row = order(&row, &world, Order::RollBack);
    // Of the calls to come the third one is for it, and the first one after all five.
    let before = world.called("AttachVolume");
    let refused = |nth: usize| Strike {
        on: "AttachVolume",
        nth: before + nth,
        how: How::Refused("IncorrectState"),
    };
    world.strikes = vec![refused(3), refused(6)];
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    let asked = |call: &&Call| matches!(call, Call::Attach { volume_id, .. } if *volume_id == late.volume_id);
    assert_eq!(world.calls.iter().filter(asked).count(), 3);
    on(&done, &world, false);
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

/// Node 3 runs on the backup's data; somebody gives node 7 these, and starts it.
fn helped_himself(set: Vec<Attached>) -> (Restore, World) {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 2, "Server.InsufficientInstanceCapacity"));
    let row = drive_until(restore, &mut world, |row| row.nodes[0].launch == Launch::Yes);
    world.gives_up = None;
    let seven = world.machine("i-7");
    let new = std::mem::replace(&mut seven.attached, set);
    seven.state = "running".into();
    for there in new {
        world.volumes.get_mut(&there.volume_id).expect("a volume").0 = "available".into();
    }
    (row, world)
}

#[test]
fn a_restore_of_which_a_node_runs_on_other_volumes_is_not_completed() {
    let old = (0..2).map(|n| attached(&volume(7, n))).collect();
    for set in [old, Vec::new()] {
        let (row, mut world) = helped_himself(set);
        let row = drive(row, &mut world);
        assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::AttachFailed)));
        assert!(row.failure.as_ref().is_some_and(|one| one.reason.starts_with("Node 7 (i-7)")));
        // Nor by an order, as long as it is so; and once it stands it is put right.
        let again = drive(order(&row, &world, Order::Retry), &mut world);
        assert_eq!(again.status, Status::Stuck);
        let seven = world.machine("i-7");
        let taken = std::mem::take(&mut seven.attached);
        seven.state = "stopped".into();
        for there in taken {
            world.volumes.get_mut(&there.volume_id).expect("a volume").0 = "available".into();
        }
        let done = drive(order(&again, &world, Order::Retry), &mut world);
        assert_eq!(stands(&done), (Status::Completed, None));
        on(&done, &world, true);
        assert_eq!(world.called("DeleteVolume"), 0);
    }
}

#[test]
fn on_the_way_back_nobody_is_stopped_for_what_is_attached_to_a_node_that_runs() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let how = How::Refused("AttachmentLimitExceeded");
    world.strikes = vec![Strike { on: "AttachVolume", nth: 3, how }];
    let row = drive_until(restore, &mut world, |row| row.back);
    world.strikes.clear();
    world.gives_up = Some((InstanceId::from("i-7"), 3, "Server.InsufficientInstanceCapacity"));
    let runs = |row: &Restore| {
        row.back && row.nodes[0].progress == 50 && row.phase == Some(Phase::Starting)
    };
    let mut row = drive_until(row, &mut world, runs);
    while world.machine("i-3").state != "running" {
        world.pass();
    }
    let stops = world.called("StopInstances");
    let late = Volume { volume_id: VolumeId::from("vol-late"), ..volume(3, 5) };
    world.volumes.insert(late.volume_id.clone(), ("in-use".into(), None, 0));
    let coming = Attached { state: "attaching".into(), ..attached(&late) };
    world.machine("i-3").attached.push(coming);
    let looked = world.looks + 2;
    row = drive_until(row, &mut world, |_| false).clone();
    assert!(world.looks > looked || row.status == Status::RolledBack);
    assert_eq!((row.status, world.called("StopInstances")), (Status::RolledBack, stops));
    assert!(row.nodes[0].old.iter().all(|old| !old.late));
}

#[test]
fn what_hangs_on_an_instance_that_is_on_its_way_out_is_not_in_use() {
    let (row, mut world) = called_back();
    let mut row = Restore { back: false, status: Status::Stuck, ..row };
    world.machine("i-5").state = "shutting-down".into();
    for id in ["i-3", "i-7"] {
        world.machine(id).state = "running".into();
    }
    row = order(&row, &world, Order::Release);
    assert_eq!(row.status, Status::Failed);
    for new in &row.nodes[1].new {
        let left =
            row.leftovers.iter().find(|left| Some(&left.volume_id) == new.volume_id.as_ref());
        assert_eq!(left.map(|left| left.fate), Some(Fate::Kept), "{new:?}");
    }
}

#[test]
fn an_order_after_an_order_does_not_decide_on_what_was_before_the_calls() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let stopped = |row: &Restore| row.acted_at.is_some() && row.disturbed;
    let row = drive_until(restore, &mut world, stopped);
    let acted = row.acted_at.expect("calls");
    for again in [Order::Retry, Order::RollBack] {
        let row = order(&order(&row, &world, Order::RollBack), &world, again);
        assert!(row.not_before >= Some(acted + Seconds(15)), "{again:?}: {:?}", row.not_before);
    }
}
