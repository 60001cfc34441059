//! What nobody saw or heard of: it decides nothing, and costs no deadline.

use super::drive::{drive, drive_until, next, on, waits};
use super::world::{How, Strike, World, world};
use super::*;
use crate::operation::CallError;

fn every(on: &'static str, how: How) -> Strike {
    Strike { on, nth: 0, how }
}

/// EC2 cannot be described for so long.
fn blind(mut row: Restore, world: &mut World, span: Seconds) -> Restore {
    let error = CallError::Unknown("no answer".into());
    let end = world.now + span;
    while world.now < end {
        let (limits, now) = (Limits::default(), world.now);
        let Step::Wait { until, note } = step(&row, Err(&error), &limits, now) else {
            panic!("decided without sight")
        };
        row = note.expect("what AWS said");
        // Somebody comes each time that it is due.
        row.due_at = Some(until);
        world.now = until;
    }
    row
}

#[test]
fn a_time_in_which_ec2_could_not_be_described_costs_no_deadline() {
    for phase in [Phase::Stopping, Phase::Swapping, Phase::Starting] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        let there = |row: &Restore| row.phase == Some(phase) && row.touched_at.is_some();
        let row = drive_until(restore, &mut world, there);
        let row = blind(row, &mut world, Seconds::hours(2));
        let done = drive(row, &mut world);
        assert_eq!((done.status, done.unseen_since), (Status::Completed, None), "{phase:?}");
        on(&done, &world, true);
    }
}

#[test]
fn nor_does_it_on_the_way_back_where_a_deadline_leaves_it_stuck() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let how = How::Refused("AttachmentLimitExceeded");
    world.strikes = vec![Strike { on: "AttachVolume", nth: 3, how }];
    let swapping = |row: &Restore| row.back && row.phase == Some(Phase::Swapping);
    let row = drive_until(restore, &mut world, swapping);
    let row = blind(row, &mut world, Seconds::minutes(25));
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
}

#[test]
fn a_node_that_ec2_does_not_show_for_long_costs_no_deadline_and_hinders() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let swapping = |row: &Restore| row.phase == Some(Phase::Swapping);
    let mut row = drive_until(restore, &mut world, swapping);
    let end = world.now + Seconds::hours(1);
    while world.now < end {
        let hide = |seen: &mut Seen| drop(seen.instances.remove(&InstanceId::from("i-7")));
        let before = row.troubles;
        let step = next(&row, &world, hide);
        let Step::Wait { until, note: Some(noted) } = step else { panic!("{step:?}") };
        assert!(noted.troubles > before && until <= world.now + Seconds(10));
        row = noted;
        row.due_at = Some(until);
        world.now = until;
    }
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
}

#[test]
fn starts_that_nobody_answers_and_that_never_show_leave_the_way_back_open() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes = vec![every("StartInstances", How::Lost)];
    let row = drive_until(restore, &mut world, |row| row.back || row.status == Status::Stuck);
    assert_eq!(row.status, Status::RollingBack, "{:?}", row.failure);
    world.strikes.clear();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
}

#[test]
fn one_start_without_an_answer_is_asked_for_again_soon() {
    let (restore, mut world) = world(&[3], &[3]);
    world.strikes = vec![Strike { on: "StartInstances", nth: 1, how: How::Lost }];
    let row = drive_until(restore, &mut world, |row| row.launched_at.is_some());
    let asked = world.now;
    let done = drive_until(row, &mut world, |_| false);
    assert_eq!(done.status, Status::Completed);
    assert_eq!(world.called("StartInstances"), 2);
    assert!(done.started_at.is_some_and(|at| at - asked < Seconds(45)), "{:?}", done.started_at);
}

#[test]
fn a_blind_look_before_the_first_touch_is_none_of_that() {
    let (restore, mut world) = world(&[3], &[3]);
    let row = drive_until(restore, &mut world, |row| row.planned);
    let error = CallError::Unknown("no answer".into());
    let limits = Limits::default();
    let Step::Wait { note: Some(noted), .. } = step(&row, Err(&error), &limits, world.now) else {
        panic!("decided without sight")
    };
    assert_eq!(noted.unseen_since, None);
    waits(step(&noted, Err(&error), &limits, world.now + Seconds(60)));
}

#[test]
fn between_the_freeze_and_the_first_stop_nobody_waits_for_minutes_either() {
    let (restore, mut world) = world(&[3], &[3]);
    let mut row = drive_until(restore, &mut world, |row| row.frozen_at.is_some());
    assert_eq!(row.touched_at, None);
    row.troubles = 20;
    let (until, _) = waits(next(&row, &world, |seen| seen.instances.clear()));
    assert!(until - world.now <= Seconds(10), "{:?}", until - world.now);
}
