//! Whole restores against a hand-made EC2.

mod after;
mod begin;
mod brake;
mod downtime;
mod drive;
mod making;
mod orders;
mod preflight;
mod progress;
mod sides;
mod unseen;
mod world;

use super::*;
use crate::backup::Volume;
use crate::limits::Limits;
use crate::operation::FailureCode;
use crate::time::Seconds;
use drive::{drive, drive_until, on};
use world::{How, Strike, World, attached, volume, world};

#[test]
fn every_node_gets_the_backups_volumes_and_runs_again() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
    assert!(done.started_at > done.stopped_at && done.stopped_at.is_some());
    // As the old one had it.
    assert!(done.nodes[0].new[0].delete_on_termination);
    assert!(!done.nodes[0].new[1].delete_on_termination);
    let tags = &world.settings[0].tags;
    assert_eq!(tags, &[("Name".to_owned(), "data 0".to_owned())], "AWS's own are not copied");
    // No call between the first stop and the last start makes a volume.
    let names: Vec<_> = world.calls.iter().map(Call::name).collect();
    let stop = names.iter().position(|name| *name == "StopInstances").expect("a stop");
    assert!(!names[stop..].contains(&"CreateVolume"));
    let start = names.iter().position(|name| *name == "StartInstances").expect("a start");
    assert!(!names[start..].iter().any(|name| ["AttachVolume", "DetachVolume"].contains(name)));
    // The old ones are kept, tagged, until their time is over; the new ones are released.
    let until = done.old_volumes_kept_until.expect("kept");
    assert_eq!(done.leftovers.len(), 4);
    assert!(done.leftovers.iter().all(|left| left.fate == Fate::Deleted && left.tagged));
    world.now = until;
    let over = drive(done, &mut world);
    assert_eq!(over.leftovers, []);
    assert!(!world.volumes.contains_key(&VolumeId::from("vol-3-0")));
}

#[test]
fn who_did_not_run_does_not_run_after() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "stopped".into();
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
}

#[test]
fn a_node_that_the_backup_does_not_have_is_stopped_and_started_only() {
    let (restore, mut world) = world(&[3, 7], &[3]);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
    let seven = &world.machines[&InstanceId::from("i-7")];
    assert!(seven.attached.iter().all(|one| one.volume_id.as_str().starts_with("vol-7-")));
}

/// The operations of a restore that goes well, each with how often it is called.
fn recorded() -> Vec<(&'static str, usize)> {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    world.counts.into_iter().collect()
}

#[test]
fn a_crash_or_a_lost_answer_at_any_call_delays_and_changes_nothing() {
    for (on_call, count) in recorded() {
        for nth in 1..=count {
            for how in [How::Crash, How::Unheard, How::Lost] {
                let (restore, mut world) = world(&[3, 7], &[3, 7]);
                world.strikes = vec![Strike { on: on_call, nth, how: how.clone() }];
                let done = drive(restore, &mut world);
                assert_eq!(done.status, Status::Completed, "{on_call} {nth} {how:?}");
                on(&done, &world, true);
                assert_eq!(world.tokens.len(), 4, "{on_call} {nth} {how:?}: no volume too many");
            }
        }
    }
}

#[test]
fn two_crashes_do_not_either() {
    let all: Vec<_> = recorded()
        .into_iter()
        .flat_map(|(name, count)| (1..=count).map(move |nth| (name, nth)))
        .collect();
    for (at, first) in all.iter().enumerate() {
        for second in &all[at..] {
            let (restore, mut world) = world(&[3, 7], &[3, 7]);
            world.strikes =
                [first, second].map(|(on, nth)| Strike { on, nth: *nth, how: How::Crash }).to_vec();
            let done = drive(restore, &mut world);
            assert_eq!(done.status, Status::Completed, "{first:?} {second:?}");
            on(&done, &world, true);
        }
    }
}

#[test]
fn what_is_refused_before_the_first_stop_touches_nothing() {
    for (on_call, code, failure) in [
        ("dry", "UnauthorizedOperation", FailureCode::PermissionDenied),
        ("CreateVolume", "VolumeLimitExceeded", FailureCode::Quota),
        ("CreateVolume", "InvalidSnapshot.NotFound", FailureCode::SnapshotMissing),
        ("CreateVolume", "UnauthorizedOperation", FailureCode::PermissionDenied),
    ] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        let before = world.machines.clone();
        world.strikes = vec![Strike { on: on_call, nth: 2, how: How::Refused(code) }];
        let done = drive(restore, &mut world);
        assert_eq!(done.status, Status::Failed, "{on_call} {code}");
        assert_eq!(done.failure.as_ref().map(|one| one.code), Some(failure), "{on_call} {code}");
        assert_eq!(world.machines, before, "{on_call} {code}");
        let left = world.tokens.values().filter(|id| world.volumes.contains_key(*id));
        assert_eq!(left.count(), 0, "{on_call} {code}: what was made is deleted");
    }
}

#[test]
fn a_region_that_has_no_initialization_left_makes_them_without() {
    let (restore, mut world) = world(&[3], &[3]);
    world.strikes =
        vec![Strike { on: "CreateVolume", nth: 1, how: How::Refused("SomeRateLimitExceeded") }];
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    assert_eq!(done.nodes[0].new[0].attempt, 2, "under a token of its own");
    assert!(!done.nodes[0].new[0].with_rate && done.nodes[0].new[1].with_rate);
}

#[test]
fn what_cannot_be_swapped_is_undone() {
    for (on_call, nth, code) in [
        ("StopInstances", 2, "OperationNotPermitted"),
        ("AttachVolume", 1, "AttachmentLimitExceeded"),
        ("AttachVolume", 3, "InvalidVolume.ZoneMismatch"),
        ("DetachVolume", 2, "UnauthorizedOperation"),
    ] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        world.strikes = vec![Strike { on: on_call, nth, how: How::Refused(code) }];
        let done = drive(restore, &mut world);
        assert_eq!(done.status, Status::RolledBack, "{on_call} {code}");
        on(&done, &world, false);
        assert!(done.failure.is_some());
        let left = world.tokens.values().filter(|id| world.volumes.contains_key(*id));
        assert_eq!(left.count(), 0, "{on_call} {code}: what was made is deleted");
    }
}

#[test]
fn a_crash_at_any_call_of_the_way_back_changes_nothing_either() {
    let strike =
        Strike { on: "AttachVolume", nth: 3, how: How::Refused("AttachmentLimitExceeded") };
    let (restore, mut first) = world(&[3, 7], &[3, 7]);
    first.strikes = vec![strike.clone()];
    drive(restore, &mut first);
    for (on_call, count) in first.counts {
        for nth in 1..=count {
            let (restore, mut world) = world(&[3, 7], &[3, 7]);
            world.strikes = vec![Strike { on: on_call, nth, how: How::Crash }, strike.clone()];
            if on_call == "AttachVolume" && nth == 3 {
                continue;
            }
            let done = drive(restore, &mut world);
            assert!(!done.status.active(), "{on_call} {nth}: {:?}", done.status);
            on(&done, &world, done.status == Status::Completed);
        }
    }
}

#[test]
fn a_start_without_capacity_is_asked_for_until_it_runs() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 40, "Server.InsufficientInstanceCapacity"));
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
    let starts =
        world.calls.iter().filter(|call| matches!(call, Call::Start(id) if id.as_str() == "i-7"));
    assert!(starts.count() > 40);
    // And nobody looks every few seconds for hours.
    assert!(world.looks < 40 * 12, "{} looks", world.looks);
}

#[test]
fn a_key_that_keeps_every_node_from_its_start_leads_back() {
    let (restore, mut world) = world(&[3], &[3]);
    world.gives_up = Some((InstanceId::from("i-3"), 1000, "Client.InternalError"));
    // On its old volumes it starts.
    let mut limit = 0;
    let mut row = restore;
    loop {
        limit += 1;
        assert!(limit < 10, "{row:?}");
        let before = row.status;
        row = drive_until(row, &mut world, |row| row.status != before);
        if row.status == Status::RollingBack {
            world.gives_up = None;
        }
        if !row.status.active() {
            break;
        }
    }
    assert_eq!(row.status, Status::RolledBack);
    on(&row, &world, false);
    // They may hold what was written after all: a person decides.
    let kept = row.leftovers.iter().filter(|left| left.fate == Fate::Kept);
    assert_eq!(kept.count(), 2);
}

#[test]
fn a_node_that_is_terminated_before_the_first_start_leads_back() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Swapping));
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "terminated".into();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    assert_eq!(done.failure.as_ref().map(|one| one.code), Some(FailureCode::NodeMissing));
    let three = &world.machines[&InstanceId::from("i-3")];
    assert_eq!(three.state, "running");
    assert!(three.attached.iter().all(|one| one.volume_id.as_str().starts_with("vol-3-")));
}

#[test]
fn a_node_that_is_terminated_after_the_first_start_leaves_it_stuck_and_the_others_running() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 1000, "Server.InsufficientInstanceCapacity"));
    let row = drive_until(restore, &mut world, |row| row.nodes[0].launch == Launch::Yes);
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "terminated".into();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Stuck);
    assert_eq!(world.machines[&InstanceId::from("i-3")].state, "running");
}

#[test]
fn a_changed_registry_before_the_first_stop_supersedes_it() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.planned);
    world.registry[1].instance_id = InstanceId::from("i-8");
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Failed);
    assert_eq!(done.failure.as_ref().map(|one| one.code), Some(FailureCode::Superseded));
    assert!(world.machines.values().all(|machine| machine.state == "running"));
}

fn every(on: &'static str, code: &'static str) -> Strike {
    Strike { on, nth: 0, how: How::Refused(code) }
}

#[test]
fn a_node_that_never_gets_beyond_pending_is_looked_at_by_a_person() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Starting));
    let row = drive_until(row, &mut world, |row| row.launched_at.is_some());
    world.stands = Some(InstanceId::from("i-7"));
    let began = world.now;
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Stuck);
    assert_eq!(done.failure.map(|one| one.code), Some(FailureCode::StartFailed));
    let took = world.now - began;
    assert!(took > Seconds::minutes(29) && took < Seconds::minutes(32), "{took:?}");
}

#[test]
fn a_start_that_is_refused_has_its_deadline_though_another_waits_for_capacity() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 10_000, "Server.InsufficientInstanceCapacity"));
    let row = drive_until(restore, &mut world, |row| row.nodes[0].launch == Launch::Yes);
    let began = world.now;
    // Then that one stands, and EC2 refuses its start for another cause.
    world.gives_up = None;
    world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3").state = "stopped".into();
    world.strikes = vec![every("StartInstances", "InvalidParameterCombination")];
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Stuck);
    assert!(world.now - began < Seconds::minutes(33));
}

#[test]
fn a_start_that_was_surely_refused_leaves_the_way_back_open() {
    for first in [None, Some(How::Lost)] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        let lost = first.clone().map(|how| Strike { on: "StartInstances", nth: 1, how });
        world.strikes = lost.into_iter().collect();
        world.strikes.push(every("StartInstances", "InvalidParameterCombination"));
        let row = drive_until(restore, &mut world, |row| row.status == Status::RollingBack);
        world.strikes.clear();
        let done = drive(row, &mut world);
        assert_eq!(done.status, Status::RolledBack, "{first:?}");
        on(&done, &world, false);
    }
}

#[test]
fn a_start_that_may_have_been_taken_closes_the_way_back() {
    let (restore, mut world) = world(&[3], &[3]);
    // Nobody heard that it was taken; then somebody stopped the node.
    world.strikes = vec![
        Strike { on: "StartInstances", nth: 1, how: How::Unheard },
        every("StartInstances", "InvalidParameterCombination"),
    ];
    world.slow = 0;
    let row = drive_until(restore, &mut world, |row| row.launched_at.is_some());
    let three = world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3");
    (three.state, three.launched_at) = ("stopped".into(), Some(world.now));
    three.state_reason = Some("Client.UserInitiatedShutdown".into());
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Stuck);
    assert!(!world.calls[world.calls.len() - 5..].iter().any(|call| call.name() == "DetachVolume"));
}

#[test]
fn what_hangs_on_a_running_node_is_nobodys_business_after_the_first_start() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "stopped".into();
    let row = drive_until(restore, &mut world, |row| row.nodes[0].launch == Launch::Yes);
    for id in ["i-3", "i-7"] {
        let extra = Volume { volume_id: VolumeId(format!("vol-extra-{id}")), ..volume(3, 9) };
        let machine = world.machines.get_mut(&InstanceId::from(id)).expect("an instance");
        machine.attached.push(attached(&extra));
    }
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Completed);
    for id in ["i-3", "i-7"] {
        assert_eq!(world.machines[&InstanceId::from(id)].attached.len(), 3);
    }
}

#[test]
fn what_somebody_attaches_in_the_middle_is_put_back_or_kept() {
    for fails in [false, true] {
        let (restore, mut world) = world(&[3], &[3]);
        let row = drive_until(restore, &mut world, |row| row.touched_at.is_some());
        let extra = Volume { volume_id: VolumeId::from("vol-late"), ..volume(3, 9) };
        world.volumes.insert(extra.volume_id.clone(), ("in-use".into(), None, 0));
        let three = world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3");
        three.attached.push(attached(&extra));
        if fails {
            world.strikes = vec![every("AttachVolume", "AttachmentLimitExceeded")];
        }
        let back = |row: &Restore| row.status == Status::RollingBack;
        let row = drive_until(row, &mut world, |row| back(row) || !row.status.active());
        world.strikes.clear();
        let done = drive(row, &mut world);
        let late = done.leftovers.iter().find(|left| left.volume_id == extra.volume_id);
        if fails {
            assert_eq!(done.status, Status::RolledBack);
            on(&done, &world, false);
            assert_eq!(world.machines[&InstanceId::from("i-3")].attached.len(), 3);
        } else {
            assert_eq!(done.status, Status::Completed);
            assert_eq!(late.map(|left| left.fate), Some(Fate::Kept));
        }
    }
}

#[test]
fn what_was_written_down_long_ago_is_written_down_anew() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.frozen_at.is_some());
    // The worker died; meanwhile the platform moved the node to another volume.
    world.now = world.now + Seconds::minutes(10);
    let mut other = volume(7, 1);
    other.volume_id = VolumeId::from("vol-other");
    world.volumes.insert(other.volume_id.clone(), ("in-use".into(), None, 0));
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").attached[1] = attached(&other);
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Completed);
    let old: Vec<_> = done.nodes[1].old.iter().map(|old| old.volume_id.as_str()).collect();
    assert_eq!(old, ["vol-7-0", "vol-other"]);
}

#[test]
fn what_was_written_down_long_ago_and_never_done_costs_no_deadline() {
    let (restore, mut world) = world(&[3], &[3]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Stopping));
    assert!(row.touched_at.is_none());
    world.now = world.now + Seconds::hours(2);
    let done = drive(row, &mut world);
    assert_eq!((done.status, done.failure), (Status::Completed, None));
}

#[test]
fn what_hangs_where_the_backup_has_nothing_is_tried_beforehand_too() {
    let (restore, mut world) = world(&[3], &[3]);
    let extra = Volume { volume_id: VolumeId::from("vol-extra"), ..volume(3, 5) };
    world.volumes.insert(extra.volume_id.clone(), ("in-use".into(), None, 0));
    let three = world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3");
    three.attached.push(attached(&extra));
    let row = drive_until(restore, &mut world, |row| row.planned);
    let tried = |world: &World, name: &str| {
        world.tried.iter().any(|call| match call {
            Call::Detach { volume_id, .. } => name == "Detach" && *volume_id == extra.volume_id,
            Call::Keep(id) => name == "Keep" && *id == extra.volume_id,
            _ => false,
        })
    };
    drive_until(row, &mut world, |row| row.touched_at.is_some());
    assert!(tried(&world, "Detach") && tried(&world, "Keep"));
}

#[test]
fn what_becomes_unfit_while_it_is_prepared_is_not_stopped() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.planned);
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").unfit =
        Some("it is protected against stop.".into());
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Failed);
    assert_eq!(done.failure.map(|one| one.code), Some(FailureCode::NodeNotRestorable));
    assert!(!world.calls.iter().any(|call| call.name() == "StopInstances"));
}

#[test]
fn a_restore_that_could_stop_nothing_has_failed_and_was_no_downtime() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes = vec![every("StopInstances", "OperationNotPermitted")];
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Failed);
    assert_eq!((done.stopped_at, done.started_at), (None, None));
    on(&done, &world, false);
}

#[test]
fn the_way_back_has_deadlines_of_its_own_and_waits_until_what_was_asked_shows() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes =
        vec![Strike { on: "AttachVolume", nth: 1, how: How::Refused("AttachmentLimitExceeded") }];
    let row = drive_until(restore, &mut world, |row| row.status == Status::RollingBack);
    assert_eq!((row.phase, row.reached), (None, None));
    assert!(row.not_before.is_some_and(|at| at > world.now));
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Swapping));
    assert!(row.reached.is_some_and(|(phase, _)| phase == Phase::Swapping));
}

#[test]
fn a_node_of_which_the_backup_has_nothing_is_not_emptied() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.kept.retain(|kept| kept.node_id == NodeId(3));
    let done = drive(restore, &mut world);
    assert_eq!(done.failure.map(|one| one.code), Some(FailureCode::SnapshotMissing));
    assert!(world.calls.is_empty());
}
