//! What ends or delays a restore before its first volume is made: nothing is touched.

use super::drive::{drive, drive_until, next, records, stands, waits};
use super::world::{How, Strike, World, world};
use super::*;
use crate::backup::{self, Presence};
use crate::deployment;
use crate::operation::CallError;

pub(super) fn failed(code: FailureCode) -> (Status, Option<FailureCode>) {
    (Status::Failed, Some(code))
}

/// Nothing was done to the deployment, and nothing is left of the restore.
pub(super) fn untouched(done: &Restore, world: &World) {
    for (id, machine) in &world.machines {
        assert_eq!((machine.state.as_str(), machine.attached.len()), ("running", 2), "{id}");
    }
    assert_eq!((done.stopped_at, done.touched_at), (None, None));
    assert!(!world.tokens.values().any(|id| world.volumes.contains_key(id)));
}

// The safety backup.

fn safeguarding(safety: Safety) -> (Restore, World) {
    let (mut restore, mut world) = world(&[3, 7], &[3, 7]);
    restore.safety_backup_id = Some(BackupId(2));
    world.safety = Some(safety);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Safeguarding));
    (row, world)
}

#[test]
fn a_safety_backup_that_fails_or_goes_fails_the_restore() {
    let why = || Some("AWS is full.".to_owned());
    for (safety, word) in [
        (Safety::There(backup::Status::Failed, why()), "AWS is full."),
        (Safety::There(backup::Status::Deleting, None), "somebody deleted it"),
        (Safety::Gone, "somebody deleted it"),
    ] {
        let (row, mut world) = safeguarding(safety);
        let done = drive(row, &mut world);
        assert_eq!(stands(&done), failed(FailureCode::SafetyBackupFailed));
        assert!(done.failure.as_ref().is_some_and(|one| one.reason.contains(word)), "{word}");
        assert!(world.calls.is_empty() && world.tried.is_empty());
        untouched(&done, &world);
    }
}

#[test]
fn a_safety_backup_that_takes_its_time_is_waited_for_and_costs_no_deadline() {
    for status in [backup::Status::Pending, backup::Status::InProgress] {
        let (row, mut world) = safeguarding(Safety::There(status, None));
        world.now = world.now + Seconds::hours(20);
        assert!(waits(next(&row, &world, |_| {})).0 > world.now);
        // It was not read, or its table could not be.
        assert!(waits(next(&row, &world, |seen| seen.safety = None)).0 > world.now);
        let error = CallError::Unknown("no answer".into());
        waits(step(&row, Err(&error), &Limits::default(), world.now));
        world.safety = Some(Safety::There(backup::Status::Completed, None));
        let done = drive(row, &mut world);
        assert_eq!(stands(&done), (Status::Completed, None));
    }
}

// The plan.

/// What a look shows otherwise.
type Shows<'a> = &'a dyn Fn(&mut Seen);

/// Where it is about to be planned.
fn planning() -> (Restore, World) {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Preparing));
    (row, world)
}

/// The settings that are stored.
fn planned(shows: impl FnOnce(&mut Seen)) -> Vec<Setting> {
    let (row, world) = planning();
    match next(&row, &world, shows) {
        Step::Plan { settings, .. } => settings,
        other => panic!("no plan: {other:#?}"),
    }
}

pub(super) fn seven(seen: &mut Seen) -> &mut Machine {
    seen.instances.get_mut(&InstanceId::from("i-7")).expect("i-7")
}

fn snapshot_is(seen: &mut Seen, state: &str) {
    let first = seen.snapshots.values_mut().next().expect("a snapshot");
    let Presence::There(snapshot) = first else { panic!("{first:?}") };
    snapshot.state = state.into();
}

fn tags(n: usize) -> Vec<(String, String)> {
    (0..n).map(|n| (format!("tag {n}"), String::new())).collect()
}

#[test]
fn what_stands_in_the_way_beforehand_fails_it_before_anything_is_made() {
    let presence = |seen: &mut Seen, to: Presence| {
        *seen.snapshots.values_mut().next().expect("a snapshot") = to;
    };
    let gone = |seen: &mut Seen| presence(seen, Presence::NotFound);
    let cases: [(Shows, FailureCode, &str); 14] = [
        (&gone, FailureCode::SnapshotMissing, "Snapshot snap-3-0 (node 3) is gone"),
        (&|seen| snapshot_is(seen, "error"), FailureCode::SnapshotMissing, "is error in EC2"),
        (&|seen| snapshot_is(seen, "recoverable"), FailureCode::SnapshotMissing, "is recoverable"),
        (&|seen| seven(seen).state = "terminated".into(), FailureCode::NodeMissing, "i-7"),
        (&|seen| seven(seen).state = "shutting-down".into(), FailureCode::NodeMissing, "i-7"),
        (
            &|seen| seven(seen).unfit = Some("it is a Spot instance.".into()),
            FailureCode::NodeNotRestorable,
            "Node 7 (i-7): it is a Spot instance.",
        ),
        (
            &|seen| seven(seen).volumes[1].multi_attach = true,
            FailureCode::MultiAttach,
            "volume vol-7-1",
        ),
        (
            &|seen| seven(seen).most_volumes = Some(2),
            FailureCode::NodeNotRestorable,
            "takes 2 volumes, and the backup has 2 beside the root",
        ),
        (&|seen| seen.kept[2].volume = None, FailureCode::NodeNotRestorable, "snapshot snap-7-0"),
        (
            &|seen| seven(seen).root_device = "/dev/sdg".into(),
            FailureCode::NodeNotRestorable,
            "the root device now",
        ),
        (&|seen| seven(seen).volumes[0].tags = tags(45), FailureCode::Quota, "has 45 tags"),
        (&|seen| node_of(seen, 1).instance_id = "i-8".into(), FailureCode::Superseded, "changed"),
        (&|seen| registry(seen).truncate(1), FailureCode::Superseded, "changed"),
        (
            &|seen| {
                let joined = deployment::Node { node_id: NodeId(9), instance_id: "i-9".into() };
                registry(seen).push(joined);
            },
            FailureCode::Superseded,
            "changed",
        ),
    ];
    for (shows, code, word) in cases {
        let (row, world) = planning();
        let done = records(next(&row, &world, shows));
        assert_eq!(stands(&done), failed(code), "{word}");
        assert!(done.failure.as_ref().is_some_and(|one| one.reason.contains(word)), "{done:#?}");
        assert_eq!((done.planned, done.leftovers.len(), done.sweep_until), (false, 0, None));
        untouched(&done, &world);
    }
}

fn registry(seen: &mut Seen) -> &mut Vec<deployment::Node> {
    seen.registry.as_mut().expect("looked at")
}

fn node_of(seen: &mut Seen, n: usize) -> &mut deployment::Node {
    &mut registry(seen)[n]
}

#[test]
fn what_ec2_does_not_show_or_what_moves_is_waited_for() {
    let cases: [(Shows, &str); 5] = [
        (&|seen| seven(seen).state = "pending".into(), "i-7 is pending"),
        (&|seen| seven(seen).state = "stopping".into(), "i-7 is stopping"),
        (&|seen| drop(seen.instances.remove(&InstanceId::from("i-7"))), "does not show i-7"),
        (&|seen| drop(seen.snapshots.pop_first()), "does not list snapshot snap-3-0"),
        (
            &|seen| {
                seen.snapshots.insert(SnapshotId::from("snap-3-0"), Presence::Unlisted);
            },
            "does not list snapshot snap-3-0",
        ),
    ];
    for (shows, word) in cases {
        let (row, world) = planning();
        let (until, trouble) = waits(next(&row, &world, shows));
        assert!(until > world.now && trouble.contains(word), "{word}: {trouble}");
    }
}

#[test]
fn a_stopped_node_a_full_house_of_tags_and_the_last_free_slot_stand_in_nobodys_way() {
    planned(|seen| seven(seen).state = "stopped".into());
    planned(|seen| seven(seen).most_volumes = Some(3));
    // AWS's own tags do not count, and ours are not copied.
    let reserved = [("aws:a", ""), ("ld:b", "")].map(|(key, to)| (key.to_owned(), to.to_owned()));
    let settings =
        planned(|seen| seven(seen).volumes[0].tags = [&tags(44)[..], &reserved].concat());
    assert_eq!(settings[2].tags, tags(44));
    // Who keeps its volumes may have them as it likes.
    let (restore, mut world) = world(&[3, 7], &[3]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Preparing));
    let shows = |seen: &mut Seen| seven(seen).volumes[0].multi_attach = true;
    assert!(matches!(next(&row, &world, shows), Step::Plan { .. }));
}

#[test]
fn a_new_volume_is_like_the_one_that_it_replaces_and_no_smaller_than_its_snapshot() {
    let settings = planned(|seen| {
        let there = &mut seven(seen).volumes;
        (there[0].size_gib, there[0].volume_type) = (80, "io2".into());
        (there[0].iops, there[0].throughput) = (Some(9000), Some(1));
        there[0].kms_key_id = Some("key".into());
        (there[1].volume_type, there[1].iops) = ("gp2".into(), Some(150));
        seen.kept[3].size_gib = 70;
        seven(seen).zone = "us-west-1c".into();
    });
    let [three, _, first, second] = &settings[..] else { panic!("{settings:#?}") };
    assert_eq!((three.iops, three.throughput, three.size_gib), (Some(3000), Some(125), 50));
    assert_eq!((first.size_gib, first.volume_type.as_str()), (80, "io2"));
    assert_eq!((first.iops, first.throughput), (Some(9000), None), "an io2 has no throughput");
    assert_eq!((first.kms_key_id.as_deref(), first.zone.as_str()), (Some("key"), "us-west-1c"));
    assert_eq!((second.iops, second.throughput), (None, None), "a gp2 is told neither");
    assert_eq!(second.size_gib, 70, "the snapshot's size");
}

#[test]
fn a_volume_whose_device_is_empty_now_is_like_it_was() {
    let settings = planned(|seen| {
        seven(seen).volumes.remove(0);
        seen.kept[2].volume.as_mut().expect("kept").iops = Some(4000);
    });
    assert_eq!((settings[2].device.as_str(), settings[2].iops), ("/dev/sdf", Some(4000)));
}

// The dry runs.

fn refuses(on: &'static str, code: &'static str) -> (Restore, World) {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes = vec![Strike { on, nth: 0, how: How::Refused(code) }];
    let done = drive(restore, &mut world);
    (done, world)
}

#[test]
fn a_dry_run_that_is_refused_fails_it_with_the_code_of_the_cause() {
    for (on, refusal, code) in [
        ("dry CreateVolume", "VolumeLimitExceeded", FailureCode::Quota),
        ("dry CreateVolume", "MaxIOPSLimitExceeded", FailureCode::Quota),
        ("dry CreateVolume", "KMSKeyNotAccessibleFault", FailureCode::KmsUnavailable),
        ("dry CreateVolume", "InvalidSnapshot.NotFound", FailureCode::SnapshotMissing),
        ("dry CreateVolume", "InvalidVolume.ZoneMismatch", FailureCode::ZoneMismatch),
        ("dry CreateVolume", "InvalidParameterValue", FailureCode::VolumeFailed),
        ("dry AttachVolume", "InvalidVolume.ZoneMismatch", FailureCode::ZoneMismatch),
        ("dry AttachVolume", "UnauthorizedOperation", FailureCode::PermissionDenied),
        ("dry DetachVolume", "AccessDenied", FailureCode::PermissionDenied),
        ("dry StartInstances", "UnauthorizedOperation", FailureCode::PermissionDenied),
    ] {
        let (done, world) = refuses(on, refusal);
        assert_eq!(stands(&done), failed(code), "{on} {refusal}");
        untouched(&done, &world);
        assert!(on == "dry AttachVolume" || world.calls.is_empty(), "{on} {refusal}");
    }
}

#[test]
fn what_only_the_present_state_refuses_to_a_dry_run_is_no_reason_to_fail() {
    for (on, code) in [
        ("dry AttachVolume", "InvalidParameterValue"),
        ("dry StartInstances", "IncorrectInstanceState"),
        ("dry DetachVolume", "IncorrectState"),
    ] {
        assert_eq!(stands(&refuses(on, code).0), (Status::Completed, None), "{on}");
    }
}

#[test]
fn a_dry_run_without_a_certain_answer_is_tried_again() {
    let tried = |world: &World, on: &str| {
        let name = on.trim_start_matches("dry ");
        world.tried.iter().filter(|call| call.name() == name).count()
    };
    let (restore, mut plain) = world(&[3, 7], &[3, 7]);
    drive(restore, &mut plain);
    for on in [
        "dry StopInstances",
        "dry StartInstances",
        "dry CreateVolume",
        "dry DetachVolume",
        "dry CreateTags",
        "dry ModifyInstanceAttribute",
        "dry AttachVolume",
    ] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        world.strikes = vec![Strike { on, nth: 0, how: How::Lost }];
        let done = drive(restore, &mut world);
        assert_eq!(done.status, Status::Completed, "{on}");
        assert!(tried(&world, on) > tried(&plain, on), "{on}");
    }
}
