//! The downtime and the way back, when something does not come about.

use super::drive::{drive, drive_until, next, on, records, stands, waits};
use super::world::{How, Strike, World, attached, volume, world};
use super::*;
use crate::limits::VISIBLE;
use crate::operation::CallError;

/// Where it comes to this phase of the way there.
fn at(phase: Phase) -> (Restore, World) {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let there = |row: &Restore| row.phase == Some(phase) && row.touched_at.is_some();
    let row = drive_until(restore, &mut world, there);
    (row, world)
}

/// On the way back, with some new volumes on and some old ones off.
fn back() -> (Restore, World) {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let how = How::Refused("AttachmentLimitExceeded");
    world.strikes = vec![Strike { on: "AttachVolume", nth: 3, how }];
    let row = drive_until(restore, &mut world, |row| row.status == Status::RollingBack);
    world.strikes.clear();
    (row, world)
}

fn until_status(row: Restore, world: &mut World, status: Status) -> Restore {
    drive_until(row, world, |row| row.status == status || !row.status.active())
}

fn kept(row: &Restore) -> usize {
    row.leftovers.iter().filter(|left| left.fate == Fate::Kept).count()
}

fn took(world: &World, began: Time, span: Seconds) {
    let took = world.now - began;
    assert!(took >= span && took < span + Seconds::minutes(2), "{took:?}");
}

// Forward.

#[test]
fn a_node_that_does_not_stop_in_time_leads_back() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.stands = Some(InstanceId::from("i-7"));
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Stopping));
    let began = world.now;
    let row = until_status(row, &mut world, Status::RollingBack);
    assert_eq!(stands(&row), (Status::RollingBack, Some(FailureCode::StopFailed)));
    assert!(row.failure.as_ref().is_some_and(|one| one.reason.starts_with("Node 7 (i-7)")));
    took(&world, began, Limits::default().stopping);
    world.stands = None;
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
    // Node 3 did not wait for it: its two volumes went to and fro.
    assert_eq!(world.called("DetachVolume"), 4);
}

#[test]
fn volumes_that_are_not_swapped_in_time_lead_back() {
    let (row, mut world) = at(Phase::Swapping);
    let began = world.now;
    world.strikes = vec![every("AttachVolume", "IncorrectState")];
    let row = until_status(row, &mut world, Status::RollingBack);
    assert_eq!(stands(&row), (Status::RollingBack, Some(FailureCode::AttachFailed)));
    assert!(row.failure.as_ref().is_some_and(|one| one.reason.contains("IncorrectState")));
    took(&world, began, Limits::default().swapping);
    world.strikes.clear();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
}

#[test]
fn a_restore_of_which_every_node_is_terminated_is_over_in_every_phase() {
    for phase in [Phase::Stopping, Phase::Swapping, Phase::Starting] {
        let (row, mut world) = at(phase);
        for machine in world.machines.values_mut() {
            machine.state = "terminated".into();
        }
        let done = drive(row, &mut world);
        assert_eq!(stands(&done), (Status::Failed, Some(FailureCode::NodeMissing)), "{phase:?}");
    }
}

#[test]
fn a_node_that_somebody_starts_in_the_middle_is_stopped_again_and_sets_no_deadline_back() {
    let (row, mut world) = at(Phase::Swapping);
    world.strikes = vec![every("AttachVolume", "IncorrectState")];
    let began = world.now;
    let row = drive_until(row, &mut world, |row| row.troubles > 2);
    world.now = world.now + Seconds::minutes(10);
    let stops = world.called("StopInstances");
    let seven = world.machine("i-7");
    (seven.state, seven.launched_at) = ("running".into(), Some(began));
    let row = until_status(row, &mut world, Status::RollingBack);
    assert_eq!(row.failure.as_ref().map(|one| one.code), Some(FailureCode::AttachFailed));
    took(&world, began, Limits::default().swapping);
    assert!(world.called("StopInstances") > stops);
    world.strikes.clear();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
}

#[test]
fn what_a_node_that_somebody_starts_in_the_middle_may_have_written_is_kept() {
    for fails in [None, Some("AttachmentLimitExceeded"), Some("IncorrectState")] {
        let (row, mut world) = at(Phase::Swapping);
        world.strikes = vec![Strike { on: "AttachVolume", nth: 2, how: How::Lost }];
        let row = drive_until(row, &mut world, |row| row.troubles > 0);
        world.machine("i-3").state = "running".into();
        let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Stopping));
        assert_eq!((row.nodes[0].launch, row.launched_at), (Launch::Yes, None));
        world.strikes = fails.into_iter().map(|code| every("AttachVolume", code)).collect();
        let row = until_status(row, &mut world, Status::RollingBack);
        world.strikes.clear();
        let done = drive(row, &mut world);
        on(&done, &world, fails.is_none());
        // The restore itself started nothing yet: the way back is open.
        let expected =
            if fails.is_some() { (Status::RolledBack, 4) } else { (Status::Completed, 0) };
        assert_eq!((done.status, kept(&done)), expected, "{fails:?}");
    }
}

#[test]
fn nothing_is_decided_while_ec2_cannot_be_described_and_nobody_waits_long() {
    let error = CallError::Throttled { code: "RequestLimitExceeded".into() };
    let limits = Limits::default();
    for phase in [Phase::Stopping, Phase::Swapping, Phase::Starting] {
        let (mut row, mut world) = at(phase);
        let began = world.now;
        while world.now < began + Seconds::hours(2) {
            let Step::Wait { until, note } = step(&row, Err(&error), &limits, world.now) else {
                panic!("decided without sight in {phase:?}")
            };
            assert!(until <= world.now + Seconds(10), "{phase:?}");
            let before = row.clone();
            row = note.expect("what AWS said");
            assert!(row.trouble.as_ref().is_some_and(|one| one.contains("RequestLimitExceeded")));
            let silent = |row: &Restore| Restore {
                troubles: 0,
                trouble: None,
                unseen_since: None,
                ..row.clone()
            };
            assert_eq!(silent(&row), silent(&before), "{phase:?}");
            world.now = until;
        }
    }
}

#[test]
fn of_a_node_that_ec2_does_not_show_nothing_is_decided() {
    for phase in [Phase::Stopping, Phase::Swapping, Phase::Starting] {
        let (row, mut world) = at(phase);
        world.now = world.now + Seconds::hours(2);
        let hide = |seen: &mut Seen| drop(seen.instances.remove(&InstanceId::from("i-7")));
        let (until, trouble) = waits(next(&row, &world, hide));
        assert!(until <= world.now + Seconds(10), "{phase:?}");
        assert_eq!(trouble, "EC2 does not show i-7");
    }
}

#[test]
fn a_new_volume_that_is_lost_while_a_node_still_stops_leads_back_at_once() {
    for state in [None, Some("error"), Some("deleting")] {
        let (row, mut world) = at(Phase::Stopping);
        world.stands = Some(InstanceId::from("i-7"));
        let lost = row.nodes[1].new[0].volume_id.clone().expect("made");
        match state {
            None => drop(world.volumes.remove(&lost)),
            Some(state) => world.volumes.get_mut(&lost).expect("a volume").0 = state.into(),
        }
        let began = world.now;
        let row = until_status(row, &mut world, Status::RollingBack);
        assert_eq!(stands(&row), (Status::RollingBack, Some(FailureCode::VolumeFailed)));
        assert!(world.now - began < Seconds::minutes(1), "{state:?}");
    }
}

#[test]
fn a_new_volume_that_is_gone_leads_back() {
    let (row, mut world) = at(Phase::Swapping);
    let gone = row.nodes[1].new[0].volume_id.clone().expect("made");
    world.volumes.remove(&gone);
    let row = until_status(row, &mut world, Status::RollingBack);
    assert_eq!(stands(&row), (Status::RollingBack, Some(FailureCode::VolumeFailed)));
    assert!(row.failure.as_ref().is_some_and(|one| one.reason.contains(gone.as_str())));
    let done = drive(row, &mut world);
    assert_eq!((done.status, done.leftovers.len()), (Status::RolledBack, 0));
    on(&done, &world, false);
}

#[test]
fn what_somebody_puts_where_an_old_volume_hung_is_taken_off_kept_and_named() {
    for fails in [false, true] {
        let (row, mut world) = at(Phase::Swapping);
        world.strikes = vec![every("AttachVolume", "IncorrectState")];
        let row = drive_until(row, &mut world, |row| row.troubles > 1);
        let late = Volume { volume_id: VolumeId::from("vol-late"), ..volume(3, 0) };
        world.volumes.insert(late.volume_id.clone(), ("in-use".into(), None, 0));
        assert!(world.machine("i-3").attached.is_empty());
        world.machine("i-3").attached.push(attached(&late));
        if fails {
            world.strikes = vec![every("AttachVolume", "AttachmentLimitExceeded")];
        } else {
            world.strikes.clear();
        }
        let row = until_status(row, &mut world, Status::RollingBack);
        world.strikes.clear();
        let done = drive(row, &mut world);
        let status = if fails { Status::RolledBack } else { Status::Completed };
        assert_eq!(done.status, status);
        on(&done, &world, !fails);
        let left: Vec<_> =
            done.leftovers.iter().filter(|left| left.volume_id == late.volume_id).collect();
        let [left] = left[..] else { panic!("named once: {left:?}") };
        let aside: Vec<_> = done.nodes[0].aside.iter().map(|one| &one.volume_id).collect();
        assert_eq!(aside, [&late.volume_id], "the API shows it beside its node");
        assert_eq!((left.fate, left.tagged), (Fate::Kept, true));
        world.now = world.now + Seconds::days(30);
        drive(done, &mut world);
        assert!(world.volumes.contains_key(&late.volume_id));
    }
}

#[test]
fn a_node_that_is_terminated_while_none_was_launched_leads_back() {
    let (row, mut world) = at(Phase::Starting);
    world.strikes = vec![every("StartInstances", "InsufficientInstanceCapacity")];
    let row = drive_until(row, &mut world, |row| row.troubles > 2);
    assert!(row.launched_at.is_some() && row.nodes.iter().all(|node| node.launch == Launch::No));
    world.machine("i-7").state = "terminated".into();
    let row = until_status(row, &mut world, Status::RollingBack);
    assert_eq!(stands(&row), (Status::RollingBack, Some(FailureCode::NodeMissing)));
    world.strikes.clear();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    assert_eq!(world.machine("i-3").state, "running");
    assert!(world.machine("i-3").attached.iter().all(|one| one.volume_id.as_str().contains("-3-")));
    // They were near a start; and of node 7 its old ones are all that there is.
    assert_eq!(kept(&done), 6);
}

// Back.

#[test]
fn a_way_back_that_cannot_stop_a_node_in_time_is_stuck() {
    let (row, mut world) = back();
    // Somebody starts it as it is: with some of its volumes.
    world.machine("i-7").state = "running".into();
    world.strikes = vec![every("StopInstances", "OperationNotPermitted")];
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Stopping));
    let began = world.now;
    let row = until_status(row, &mut world, Status::Stuck);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::StopFailed)));
    assert!(row.back && row.was_stuck);
    took(&world, began, Limits::default().stopping);
}

#[test]
fn a_way_back_that_cannot_swap_in_time_is_stuck() {
    let (row, mut world) = back();
    world.strikes = vec![every("AttachVolume", "AttachmentLimitExceeded")];
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Swapping));
    let began = world.now;
    let row = until_status(row, &mut world, Status::Stuck);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::AttachFailed)));
    took(&world, began, Limits::default().swapping);
    // And it is said.
    let stuck = row.outbox.iter().filter(|one| one.kind == Kind::RestoreStuck);
    assert_eq!(stuck.count(), 1);
}

#[test]
fn an_old_volume_that_is_gone_leaves_the_way_back_stuck() {
    let (row, mut world) = back();
    let off = |id: &VolumeId| world.volumes.get(id).is_some_and(|one| one.0 == "available");
    let gone = row.nodes.iter().flat_map(|node| &node.old).map(|old| old.volume_id.clone());
    let gone = gone.into_iter().find(off).expect("one that is off");
    world.volumes.remove(&gone);
    let row = until_status(row, &mut world, Status::Stuck);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::VolumeFailed)));
    assert!(row.failure.as_ref().is_some_and(|one| one.reason.contains(gone.as_str())));
}

#[test]
fn a_start_without_capacity_on_the_way_back_is_asked_for_until_it_runs() {
    for code in ["InsufficientInstanceCapacity", "InsufficientHostCapacity"] {
        let (row, mut world) = back();
        world.strikes = vec![every("StartInstances", code)];
        let began = world.now;
        let row = drive_until(row, &mut world, |row| {
            row.nodes.iter().any(|node| node.start.refusals > 200) || !row.is_urgent()
        });
        assert_eq!(row.status, Status::RollingBack);
        assert!(world.now - began > Seconds::hours(1));
        world.strikes.clear();
        let done = drive(row, &mut world);
        assert_eq!(done.status, Status::RolledBack);
        on(&done, &world, false);
    }
}

#[test]
fn a_start_that_is_refused_on_the_way_back_leaves_it_stuck() {
    let (row, mut world) = back();
    world.strikes = vec![every("StartInstances", "InvalidParameterCombination")];
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Starting));
    let began = world.now;
    let row = until_status(row, &mut world, Status::Stuck);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::StartFailed)));
    took(&world, began, Limits::default().starting);
}

#[test]
fn a_node_that_is_terminated_on_the_way_back_keeps_nobody_from_it() {
    let (row, mut world) = back();
    world.machine("i-7").state = "terminated".into();
    let done = drive(row, &mut world);
    // What led back is still why.
    assert_eq!(stands(&done), (Status::RolledBack, Some(FailureCode::AttachFailed)));
    assert!(done.nodes[1].missing);
    assert_eq!(world.machine("i-3").state, "running");
    assert!(world.machine("i-3").attached.iter().all(|one| one.volume_id.as_str().contains("-3-")));
}

// Stuck.

/// Stuck on the way back with both nodes down: node 3 has its whole old set, node 7 has not.
fn stuck() -> (Restore, World) {
    let (row, mut world) = back();
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Starting));
    let off = VolumeId::from("vol-7-0");
    world.machine("i-7").attached.retain(|one| one.volume_id != off);
    world.volumes.remove(&off);
    let row = until_status(row, &mut world, Status::Stuck);
    (row, world)
}

#[test]
fn a_node_that_is_whole_is_started_while_it_is_stuck_and_no_other() {
    let (row, mut world) = stuck();
    let three = Call::Start(InstanceId::from("i-3"));
    let Step::Act { actions, .. } = next(&row, &world, |_| {}) else { panic!("no start") };
    assert_eq!(actions, [Action { call: three.clone(), dry: false }]);
    let row = drive(row, &mut world);
    assert!(world.calls.contains(&three));
    assert!(!world.calls.contains(&Call::Start(InstanceId::from("i-7"))));
    // It stays a person's, and is looked at seldom.
    world.machine("i-3").state = "running".into();
    assert_eq!(waits(next(&row, &world, |_| {})).0, world.now + Seconds(60));
    assert_eq!(row.status, Status::Stuck);
    // It stops, and is started again.
    let starts = world.called("StartInstances");
    world.machine("i-3").state = "stopped".into();
    world.now = world.now + VISIBLE;
    let row = drive(row, &mut world);
    assert_eq!(world.called("StartInstances"), starts + 1);
    // Who stands and did not run before is not started.
    let mut row = row;
    world.machine("i-3").state = "stopped".into();
    world.now = world.now + VISIBLE;
    row.nodes[0].was_running = Some(false);
    waits(next(&row, &world, |_| {}));
}

#[test]
fn a_volume_that_is_attached_after_the_dry_runs_and_cannot_be_taken_off_leads_back() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let tried = |row: &Restore| row.nodes.iter().all(|node| node.checked);
    let row = drive_until(restore, &mut world, tried);
    let late = Volume { volume_id: VolumeId::from("vol-late"), ..volume(3, 5) };
    world.volumes.insert(late.volume_id.clone(), ("in-use".into(), None, 0));
    world.machine("i-3").attached.push(attached(&late));
    let row = drive_until(row, &mut world, |row| row.touched_at.is_some());
    world.strikes = vec![every("DetachVolume", "UnauthorizedOperation")];
    let row = until_status(row, &mut world, Status::RollingBack);
    assert_eq!(stands(&row), (Status::RollingBack, Some(FailureCode::AttachFailed)));
    world.strikes.clear();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
}

#[test]
fn one_that_is_stuck_is_over_when_every_node_is_terminated() {
    let (row, mut world) = stuck();
    for machine in world.machines.values_mut() {
        machine.state = "terminated".into();
    }
    let done = records(next(&row, &world, |_| {}));
    assert_eq!(stands(&done), (Status::Failed, Some(FailureCode::NodeMissing)));
    let done = drive(done, &mut world);
    // Nothing goes by itself any more.
    assert!(done.leftovers.iter().all(|left| left.fate == Fate::Kept && left.tagged));
    assert_eq!(world.called("DeleteVolume"), 0);
}

#[test]
fn whoever_can_be_put_back_is_though_anothers_old_volume_is_gone() {
    let (row, mut world) = back();
    world.volumes.remove(&VolumeId::from("vol-7-0"));
    let row = until_status(row, &mut world, Status::Stuck);
    drive(row, &mut world);
    let three = &world.machines[&InstanceId::from("i-3")];
    assert_eq!((three.state.as_str(), three.attached.len()), ("pending", 2));
}

#[test]
fn a_step_back_from_a_long_wait_for_capacity_has_a_clock_of_its_own() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let full = |id: &str| Some((InstanceId::from(id), 10_000, "InsufficientInstanceCapacity"));
    world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3").state = "stopped".into();
    world.gives_up = full("i-7");
    let began = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Starting));
    let since = world.now;
    let now = |row: &Restore| row.nodes[1].start.refusals > 60;
    let row = drive_until(began, &mut world, now);
    assert!(world.now - since > Seconds::minutes(20));
    // Somebody takes a volume off the node that stands.
    let seven = world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7");
    let off = seven.attached.pop().expect("a volume");
    world.volumes.get_mut(&off.volume_id).expect("there").0 = "available".into();
    world.gives_up = None;
    let done = drive(row, &mut world);
    assert_eq!((done.status, &done.failure), (Status::Completed, &None));
    on(&done, &world, true);
}

#[test]
fn time_in_which_no_worker_came_counts_towards_no_deadline() {
    for phase in [Phase::Stopping, Phase::Swapping, Phase::Starting] {
        for back in [false, true] {
            let (mut row, mut world) = world(&[3, 7], &[3, 7]);
            if back {
                let how = How::Refused("AttachmentLimitExceeded");
                world.strikes = vec![Strike { on: "AttachVolume", nth: 3, how }];
                row = until_status(row, &mut world, Status::RollingBack);
            }
            let touched = |row: &Restore| row.phase == Some(phase) && row.touched_at.is_some();
            let mut row = drive_until(row, &mut world, |row| touched(row) || !row.status.active());
            row.due_at = Some(world.now);
            world.now = world.now + Seconds::hours(2);
            let done = drive(row, &mut world);
            let wanted = if back { Status::RolledBack } else { Status::Completed };
            assert_eq!(done.status, wanted, "{phase:?}, back: {back}: {:?}", done.failure);
            on(&done, &world, !back);
        }
    }
}
