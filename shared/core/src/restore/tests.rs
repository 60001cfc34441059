//! Whole restores against a hand-made EC2.

mod world;

use super::*;
use crate::time::Seconds;
use world::{How, Strike, attached, drive, drive_until, on, volume, world};

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
    // And nobody looks each three seconds for hours.
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

#[test]
fn a_volume_that_the_backup_does_not_cover_is_kept_for_ever() {
    let (restore, mut world) = world(&[3], &[3]);
    let mut extra = volume(3, 5);
    extra.volume_id = VolumeId::from("vol-extra");
    world.volumes.insert(extra.volume_id.clone(), ("in-use".into(), None, 0));
    let machine = world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3");
    machine.attached.push(attached(&extra));
    machine.volumes.push(extra);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    let left = done.leftovers.iter().find(|left| left.volume_id.as_str() == "vol-extra");
    assert_eq!(left.map(|left| left.fate), Some(Fate::Kept));
    world.now = world.now + Seconds::days(30);
    let later = drive(done, &mut world);
    assert!(world.volumes.contains_key(&VolumeId::from("vol-extra")));
    assert_eq!(later.leftovers.len(), 1);
}

#[test]
fn an_old_volume_that_somebody_attached_again_is_released() {
    let (restore, mut world) = world(&[3], &[3]);
    let done = drive(restore, &mut world);
    let old = VolumeId::from("vol-3-0");
    let other = Machine {
        attached: vec![Attached {
            volume_id: old.clone(),
            device: "/dev/sdz".into(),
            state: "attached".into(),
            delete_on_termination: false,
        }],
        ..Machine::default()
    };
    world.machines.insert(InstanceId::from("i-other"), other);
    world.volumes.get_mut(&old).expect("old").0 = "in-use".into();
    world.now = done.old_volumes_kept_until.expect("kept");
    let over = drive(done, &mut world);
    assert!(world.volumes.contains_key(&old));
    assert_eq!(over.leftovers, []);
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
