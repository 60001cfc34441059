//! `CreateVolume` and `DeleteVolume`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{World, code, config, texts};

const TAGS: [(&str, &str); 3] = [
    ("TagSpecification.1.ResourceType", "volume"),
    ("TagSpecification.1.Tag.1.Key", "restore"),
    ("TagSpecification.1.Tag.1.Value", "r1"),
];

#[test]
fn a_volume_is_creating_for_ten_to_sixty_seconds_and_bears_what_its_snapshot_has() {
    let mut spans = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::with(config(), seed);
        let old = world.node.volume_ids[0].clone();
        world.cloud.write(world.now, &old, "then").unwrap();
        let snapshot = world.snapshot();
        world.cloud.write(world.now, &old, "now").unwrap();
        let mut fields = vec![("SnapshotId", snapshot.as_str()), ("VolumeType", "gp3")];
        fields.extend(TAGS);
        fields.extend([("Iops", "4000"), ("Throughput", "200"), ("Size", "60")]);
        let id = world.create_volume(&fields);
        let seen = world.cloud.volume(&id).unwrap();
        assert_eq!((seen.state, seen.zone, seen.size_gib), ("creating", "us-west-1a", 60));
        assert_eq!((seen.content, seen.snapshot_id), (Some("then"), Some(&*snapshot)));
        assert_eq!(seen.tags.get("restore").map(String::as_str), Some("r1"));
        assert_eq!((seen.iops, seen.throughput), (Some(4000), Some(200)));
        let span = world.seconds_of(|world| world.volume_state(&id));
        assert!((10..=60).contains(&span), "{span}");
        spans.insert(span);
        let body = world.ok("DescribeVolumes", &[("VolumeId.1", &id)]);
        assert_eq!(texts(&body, "status"), ["available"]);
        assert_eq!(texts(&body, "snapshotId"), [snapshot]);
        world.pass(10);
        let told = world.volume_events("createVolume");
        assert_eq!(told, [("available".to_owned(), String::new())]);
    }
    assert!(spans.len() > 5, "{spans:?}");
}

#[test]
fn a_new_volume_is_not_known_during_the_lag() {
    let mut config = config();
    config.pace.describe_lag_ms = 5_000..=5_000;
    let mut world = World::with(config, 7);
    let mut fields = vec![("Size", "3")];
    fields.extend(TAGS);
    let id = world.create_volume(&fields);
    let by_id = [("VolumeId.1", id.as_str())];
    let of_tag = [("Filter.1.Name", "tag:restore"), ("Filter.1.Value.1", "r1")];
    let tag = [("ResourceId.1", id.as_str()), ("Tag.1.Key", "k")];
    let unknown = "InvalidVolume.NotFound";
    assert_eq!(world.refused("DescribeVolumes", &by_id).1, unknown);
    assert_eq!(world.refused("DescribeVolumeStatus", &by_id).1, unknown);
    assert_eq!(world.refused("CreateTags", &tag).1, unknown);
    assert_eq!(world.refused("DeleteVolume", &[("VolumeId", &id)]).1, unknown);
    assert_eq!(world.refused("CreateSnapshot", &[("VolumeId", &id)]).1, unknown);
    assert_eq!(code(&world.attach_at(&id, "/dev/sdz")), unknown);
    assert_eq!(code(&world.detach(&id)), unknown);
    assert!(texts(&world.ok("DescribeVolumes", &of_tag), "size").is_empty());
    assert!(texts(&world.ok("DescribeTags", &of_tag), "key").is_empty());
    world.pass(5);
    assert_eq!(texts(&world.ok("DescribeVolumes", &of_tag), "status"), ["creating"]);
    assert_eq!(texts(&world.ok("DescribeVolumes", &by_id), "size"), ["3"]);
    assert_eq!(texts(&world.ok("DescribeTags", &of_tag), "key"), ["restore"]);
    world.ok("CreateTags", &tag);
    assert_eq!(world.refused("CreateSnapshot", &[("VolumeId", &id)]).1, "IncorrectState");
    assert_eq!(world.refused("DeleteVolume", &[("VolumeId", &id)]).1, "IncorrectState");
    let status = [("Filter.1.Name", "status"), ("Filter.1.Value.1", "creating")];
    assert_eq!(texts(&world.ok("DescribeVolumes", &status), "size"), ["3"]);
}

#[test]
fn what_cannot_be_made_is_refused_with_its_code() {
    let mut world = World::new();
    let done = world.snapshot();
    let pending = world.create_one();
    world.pass(5);
    let zone = ("AvailabilityZone", "us-west-1a");
    let of = ("SnapshotId", done.as_str());
    let size = ("Size", "10");
    let gp3 = ("VolumeType", "gp3");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[zone, ("SnapshotId", "snap-01234567")], "InvalidSnapshot.NotFound"),
        (&[zone, ("SnapshotId", "snap-x")], "InvalidSnapshotID.Malformed"),
        (&[zone, ("SnapshotId", &pending)], "IncorrectState"),
        (&[("AvailabilityZone", "us-west-1z"), of], "InvalidZone.NotFound"),
        (&[("AvailabilityZoneId", "usw1-az9"), of], "InvalidZone.NotFound"),
        (&[zone, ("AvailabilityZoneId", "usw1-az1"), of], "InvalidParameterCombination"),
        (&[of], "MissingParameter"),
        (&[zone], "MissingParameter"),
        (&[zone, of, ("Size", "49")], "InvalidParameterValue"),
        (&[zone, ("Size", "0")], "InvalidParameterValue"),
        (&[zone, ("Size", "x")], "InvalidParameterValue"),
        (&[zone, ("Size", "16385")], "InvalidParameterValue"),
        (&[zone, size, ("VolumeType", "gp9")], "UnknownVolumeType"),
        (&[zone, size, ("Iops", "3000")], "InvalidParameterCombination"),
        (&[zone, size, ("Throughput", "125")], "InvalidParameterCombination"),
        (&[zone, size, ("VolumeType", "st1"), ("Iops", "3000")], "InvalidParameterCombination"),
        (&[zone, size, gp3, ("Iops", "2999")], "InvalidParameterValue"),
        (&[zone, size, gp3, ("Throughput", "2001")], "InvalidParameterValue"),
        (&[zone, size, ("VolumeType", "io2")], "MissingParameter"),
        (&[zone, size, gp3, ("MultiAttachEnabled", "true")], "InvalidParameterCombination"),
        (&[zone, size, ("VolumeInitializationRate", "200")], "InvalidParameterCombination"),
        (&[zone, of, ("VolumeInitializationRate", "99")], "InvalidParameterValue"),
        (&[zone, of, ("VolumeInitializationRate", "301")], "InvalidParameterValue"),
        (&[zone, size, ("KmsKeyId", "k1")], "InvalidParameterDependency"),
        (&[zone, size, ("ClientToken", "é")], "InvalidParameterValue"),
        (
            &[zone, size, TAGS[0], ("TagSpecification.1.Tag.1.Key", "aws:x")],
            "InvalidParameterValue",
        ),
        (&[zone, size, ("TagSpecification.1.ResourceType", "snapshot")], "InvalidParameterValue"),
        (&[zone, of, ("DryRun", "true")], "DryRunOperation"),
    ];
    let before = world.cloud.volumes().count();
    for (fields, wanted) in cases {
        assert_eq!(world.refused("CreateVolume", fields).1, *wanted, "{fields:?}");
    }
    assert_eq!(world.cloud.volumes().count(), before);
    let id = world.create_volume(&[("SnapshotId", &done), ("AvailabilityZone", "us-west-1b")]);
    let seen = world.cloud.volume(&id).unwrap();
    assert_eq!((seen.zone, seen.volume_type, seen.size_gib), ("us-west-1b", "gp2", 50));
    assert_eq!(seen.iops, Some(150), "the baseline, which a gp2 volume cannot be given");
    let fields = [("AvailabilityZoneId", "usw1-az3"), ("Size", "4"), ("VolumeType", "gp3")];
    let id = texts(&world.ok("CreateVolume", &fields), "volumeId").remove(0);
    let seen = world.cloud.volume(&id).unwrap();
    assert_eq!((seen.zone, seen.iops, seen.throughput), ("us-west-1c", Some(3000), Some(125)));
    let fields = [("Size", "4"), ("VolumeType", "io2"), ("Iops", "100")];
    let multi = [fields[0], fields[1], fields[2], ("MultiAttachEnabled", "true")];
    let id = world.create_volume(&multi);
    assert!(world.cloud.volume(&id).unwrap().multi_attach);
    world.cloud.delete(world.now, &done).unwrap();
    let gone = [("SnapshotId", done.as_str()), zone];
    assert_eq!(world.refused("CreateVolume", &gone).1, "InvalidSnapshot.NotFound");
}

#[test]
fn the_same_token_gives_the_same_volume_also_after_it_is_gone() {
    let mut world = World::new();
    let mut rows = BTreeMap::new();
    let fields = [("Size", "7"), ("ClientToken", "t1")];
    let id = world.create_volume(&fields);
    assert_eq!(world.create_volume(&fields), id, "in the lag");
    let mismatch = "IdempotentParameterMismatch";
    for other in [
        &[("Size", "8"), ("ClientToken", "t1"), ("AvailabilityZone", "us-west-1a")][..],
        &[("Size", "7"), ("ClientToken", "t1"), ("AvailabilityZone", "us-west-1b")],
        &[
            ("Size", "7"),
            ("ClientToken", "t1"),
            ("AvailabilityZone", "us-west-1a"),
            TAGS[0],
            TAGS[1],
        ],
    ] {
        assert_eq!(world.refused("CreateVolume", other).1, mismatch);
    }
    assert_ne!(world.create_volume(&[("Size", "7"), ("ClientToken", "t2")]), id);
    assert_ne!(world.create_volume(&[("Size", "7")]), world.create_volume(&[("Size", "7")]));
    world.pass(60);
    world.restart(&mut rows);
    assert_eq!(world.create_volume(&fields), id);
    let dry = [fields[0], fields[1], ("AvailabilityZone", "us-west-1a"), ("DryRun", "true")];
    assert_eq!(world.refused("CreateVolume", &dry).1, "DryRunOperation");
    world.cloud.delete(world.now, &id).unwrap();
    let count = world.cloud.volumes().count();
    assert_eq!(world.create_volume(&fields), id, "the earlier answer");
    assert_eq!((world.volume_state(&id), world.cloud.volumes().count()), ("gone", count));
}

#[test]
fn the_rates_of_a_region_add_up_until_their_volumes_are_initialized() {
    let mut world = World::new();
    let snapshot = world.snapshot();
    let of = ("SnapshotId", snapshot.as_str());
    let zone = ("AvailabilityZone", "us-west-1a");
    for _ in 0..16 {
        world.create_volume(&[of, ("VolumeInitializationRate", "300")]);
    }
    let paid = [of, zone, ("VolumeInitializationRate", "201")];
    let refused = "VolumeInitializationRateLimitExceeded";
    assert_eq!(world.refused("CreateVolume", &paid).1, refused);
    let last = world.create_volume(&[of, ("VolumeInitializationRate", "200")]);
    let paid = [of, zone, ("VolumeInitializationRate", "100")];
    assert_eq!(world.refused("CreateVolume", &paid).1, refused, "5,000 MiB/s are all");
    world.create_volume(&[of]);
    // 50 GiB at 300 MiB/s, and at 200.
    world.pass(170);
    assert_eq!(world.refused("CreateVolume", &paid).1, refused);
    let body = world.ok("DescribeVolumeStatus", &[("VolumeId.1", &last)]);
    assert_eq!(texts(&body, "initializationType"), ["provisioned-rate"]);
    assert_eq!(texts(&body, "progress"), ["66"]);
    assert_eq!(texts(&body, "estimatedTimeToCompleteInSeconds"), ["86"]);
    world.pass(1);
    world.ok("CreateVolume", &paid);
    world.pass(85);
    let body = world.ok("DescribeVolumeStatus", &[("VolumeId.1", &last)]);
    assert_eq!(texts(&body, "progress"), ["100"]);
    let body = world.ok("DescribeVolumes", &[("VolumeId.1", &last)]);
    assert_eq!(texts(&body, "volumeInitializationRate"), ["200"]);
}

#[test]
fn a_deleted_volume_is_deleting_and_then_gone_with_its_event() {
    let mut config = config();
    config.pace.describe_lag_ms = 5_000..=5_000;
    let mut world = World::with(config, 7);
    let used = world.node.volume_ids[0].clone();
    assert_eq!(world.refused("DeleteVolume", &[("VolumeId", &used)]).1, "VolumeInUse");
    let unknown = "InvalidVolume.NotFound";
    assert_eq!(world.refused("DeleteVolume", &[("VolumeId", "vol-01234567")]).1, unknown);
    let id = world.free_volume();
    let dry = [("VolumeId", id.as_str()), ("DryRun", "true")];
    assert_eq!(world.refused("DeleteVolume", &dry), (412, "DryRunOperation".to_owned()));
    assert_eq!(world.volume_state(&id), "available");
    world.ok("DeleteVolume", &[("VolumeId", &id)]);
    let body = world.ok("DescribeVolumes", &[("VolumeId.1", &id)]);
    assert_eq!(texts(&body, "status"), ["deleting"]);
    assert!(!world.state()["volumes"].to_string().contains(&id), "the truth");
    assert_eq!(world.refused("DeleteVolume", &[("VolumeId", &id)]).1, unknown);
    assert_eq!(code(&world.attach_at(&id, "/dev/sdz")), unknown);
    assert!(world.cloud.delete(world.now, &id).is_err());
    world.pass(5);
    assert_eq!(world.volume_state(&id), "gone");
    assert_eq!(world.refused("DescribeVolumes", &[("VolumeId.1", &id)]).1, unknown);
    world.pass(10);
    let told = world.volume_events("deleteVolume");
    assert_eq!(told, [("deleted".to_owned(), String::new())]);
}

#[test]
fn a_creation_that_fails_later_vanishes_or_ends_in_error() {
    let mut ends = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::with(config(), seed);
        world.arm(json!({"on": "CreateVolume", "do": "fail_later"})).unwrap();
        let dry = [("Size", "1"), ("AvailabilityZone", "us-west-1a"), ("DryRun", "true")];
        assert_eq!(world.refused("CreateVolume", &dry).1, "DryRunOperation");
        let id = world.create_volume(&[("Size", "1")]);
        let fine = world.create_volume(&[("Size", "1")]);
        assert_eq!(world.volume_state(&id), "creating");
        world.restart(&mut BTreeMap::new());
        let span = world.seconds_of(|world| world.volume_state(&id));
        assert!((10..=60).contains(&span), "{span}");
        let end = world.volume_state(&id);
        ends.insert(end);
        world.pass(70);
        assert_eq!(world.volume_state(&fine), "available");
        assert!(world.volume_events("createVolume").iter().any(|(result, _)| result == "failed"));
        let by_id = [("VolumeId.1", id.as_str())];
        if end == "error" {
            assert_eq!(texts(&world.ok("DescribeVolumes", &by_id), "status"), ["error"]);
            assert_eq!(code(&world.attach_at(&id, "/dev/sdz")), "IncorrectState");
            world.ok("DeleteVolume", &[("VolumeId", &id)]);
        } else {
            assert_eq!(world.refused("DescribeVolumes", &by_id).1, "InvalidVolume.NotFound");
        }
    }
    assert_eq!(ends, BTreeSet::from(["error", "gone"]));
}
