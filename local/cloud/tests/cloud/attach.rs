//! `AttachVolume` and `DetachVolume`.

use std::collections::{BTreeMap, BTreeSet};

use cloud::{InstanceSpec, VolumeSpec};
use serde_json::json;

use crate::support::{World, code, config, texts};

const DEVICE: &str = "/dev/sdz";

impl World {
    /// What the volume's describe says of its attachment, and the instance's.
    fn shown_attachment(&mut self, volume: &str) -> (Vec<String>, Vec<String>) {
        let body = self.ok("DescribeVolumes", &[("VolumeId.1", volume)]);
        let of_volume = texts(&body, "attachmentSet").remove(0);
        let instance = self.node.instance_id.clone();
        let body = self.ok("DescribeInstances", &[("InstanceId.1", &instance)]);
        let mappings = texts(&body, "ebs").into_iter().filter(|ebs| ebs.contains(volume));
        let of_instance = mappings.flat_map(|ebs| texts(&ebs, "status")).collect();
        (texts(&of_volume, "status"), of_instance)
    }

    fn attach(&mut self, volume: &str) {
        let answer = self.attach_at(volume, DEVICE);
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
}

#[test]
fn a_volume_is_attaching_for_two_to_eight_seconds() {
    let mut spans = BTreeSet::new();
    for seed in 0..20 {
        for stopped in [false, true] {
            let mut world = World::with(config(), seed);
            let id = world.free_volume();
            if stopped {
                world.stop_node();
            }
            let (status, body) = world.attach_at(&id, DEVICE);
            assert_eq!((status, texts(&body, "status")), (200, vec!["attaching".to_owned()]));
            assert_eq!(texts(&body, "deleteOnTermination"), ["false"]);
            let both = |state: &str| (vec![state.to_owned()], vec![state.to_owned()]);
            assert_eq!(world.shown_attachment(&id), both("attaching"));
            assert_eq!(world.volume_state(&id), "in-use");
            assert!(world.cloud.write(world.now, &id, "x").is_err());
            let span = world.seconds_of(|world| world.attachment_state(&id));
            assert!((2..=8).contains(&span), "{span}");
            spans.insert(span);
            assert_eq!(world.shown_attachment(&id), both("attached"));
            let filter = [("Filter.1.Name", "attachment.status"), ("Filter.1.Value.1", "attached")];
            assert_eq!(texts(&world.ok("DescribeVolumes", &filter), "size").len(), 4);
            assert_eq!(world.cloud.write(world.now, &id, "x").is_ok(), !stopped);
            assert_eq!(world.cloud.volume(&id).unwrap().attached, Some((DEVICE, false)));
        }
    }
    assert!(spans.len() > 4, "{spans:?}");
}

#[test]
fn what_cannot_be_attached_is_refused_with_its_code() {
    let mut world = World::new();
    let instance = world.node.instance_id.clone();
    let (free, used) = (world.free_volume(), world.node.volume_ids[0].clone());
    let there = world.create_volume(&[("Size", "1"), ("AvailabilityZone", "us-west-1b")]);
    world.pass(60);
    let fresh = world.create_volume(&[("Size", "1")]);
    world.pass(5);
    let other = world.cloud.launch(world.now, InstanceSpec::in_zone("us-west-1a")).instance_id;
    let cases = [
        ("vol-01234567", instance.as_str(), DEVICE, "InvalidVolume.NotFound"),
        ("vol-x", &instance, DEVICE, "InvalidVolumeID.Malformed"),
        (&free, "i-01234567", DEVICE, "InvalidInstanceID.NotFound"),
        (&free, &instance, "", "MissingParameter"),
        (&free, &instance, "disk", "InvalidParameterValue"),
        (&free, &instance, "/dev/sdf", "InvalidParameterValue"),
        (&fresh, &instance, DEVICE, "IncorrectState"),
        (&used, &instance, DEVICE, "VolumeInUse"),
        (&used, &other, DEVICE, "VolumeInUse"),
        (&there, &instance, DEVICE, "InvalidVolume.ZoneMismatch"),
    ];
    for (volume, instance, device, wanted) in cases {
        let fields = [("VolumeId", volume), ("InstanceId", instance), ("Device", device)];
        assert_eq!(world.refused("AttachVolume", &fields).1, wanted, "{fields:?}");
    }
    let dry = [
        ("VolumeId", free.as_str()),
        ("InstanceId", &instance),
        ("Device", "/dev/sdf"),
        ("DryRun", "true"),
    ];
    let tried = world.refused("AttachVolume", &dry).1;
    assert_eq!(tried, "DryRunOperation", "a dry run asks for no state");
    world.attach(&free);
    assert_eq!(code(&world.attach_at(&free, DEVICE)), "VolumeInUse", "also while attaching");
    let late = world.free_volume();
    let taken = world.attach_at(&late, DEVICE);
    assert_eq!(code(&taken), "InvalidParameterValue");
    assert!(taken.1.contains("already in use"), "{}", taken.1);
    for state in ["stopping", "pending", "shutting-down"] {
        match state {
            "stopping" => world.cloud.stop(world.now, &instance).unwrap(),
            "pending" => {
                world.pass(60);
                world.cloud.start(world.now, &instance).unwrap();
            }
            _ => world.cloud.terminate(world.now, &instance).unwrap(),
        }
        assert_eq!(world.instance_state(), state);
        assert_eq!(code(&world.attach_at(&late, "/dev/sdy")), "IncorrectState", "{state}");
    }
}

#[test]
fn an_instance_type_has_so_many_volumes() {
    for (kind, most, how) in [("m7g.large", 27, "shared"), ("m8g.large", 32, "dedicated")] {
        let mut world = World::new();
        let mut spec = InstanceSpec::in_zone("us-west-1a");
        spec.instance_type = kind.to_owned();
        spec.data = vec![VolumeSpec::gib(1); most - 2];
        world.node = world.cloud.launch(world.now, spec);
        let (first, second) = (world.free_volume(), world.free_volume());
        world.attach(&first);
        assert_eq!(code(&world.attach_at(&second, "/dev/sdy")), "AttachmentLimitExceeded");
        let body = world.ok("DescribeInstanceTypes", &[("InstanceType.1", kind)]);
        assert_eq!(texts(&body, "maximumEbsAttachments"), [most.to_string()]);
        assert_eq!(texts(&body, "attachmentLimitType"), [how]);
    }
}

#[test]
fn a_volume_of_a_running_instance_is_busy_until_that_has_stopped() {
    let mut spans = BTreeSet::new();
    for seed in 0..10 {
        let mut world = World::with(config(), seed);
        let id = world.node.volume_ids[0].clone();
        world.cloud.write(world.now, &id, "kept").unwrap();
        let (status, body) = world.detach(&id);
        assert_eq!((status, texts(&body, "status")), (200, vec!["busy".to_owned()]));
        world.pass(3_600);
        let shown = (vec!["busy".to_owned()], vec!["detaching".to_owned()]);
        assert_eq!(world.shown_attachment(&id), shown, "an instance knows no busy");
        assert!(world.cloud.write(world.now, &id, "x").unwrap_err().contains("busy"));
        assert_eq!(texts(&world.detach(&id).1, "status"), ["busy"], "asked again");
        let instance = world.node.instance_id.clone();
        world.ok("StopInstances", &[("InstanceId.1", &instance)]);
        while world.instance_state() == "stopping" {
            assert_eq!(world.attachment_state(&id), "busy");
            world.pass(1);
        }
        assert_eq!(world.attachment_state(&id), "detaching");
        spans.insert(world.seconds_of(|world| world.attachment_state(&id)));
        assert_eq!((world.attachment_state(&id), world.volume_state(&id)), ("none", "available"));
        assert_eq!(world.cloud.volume(&id).unwrap().content, Some("kept"));
    }
    assert!(spans.iter().all(|span| (1..=8).contains(span)) && spans.len() > 2, "{spans:?}");
}

#[test]
fn a_volume_of_a_stopped_instance_is_detaching_for_two_to_eight_seconds() {
    let mut spans = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::with(config(), seed);
        world.stop_node();
        for id in [world.node.volume_ids[0].clone(), world.node.root_volume_id.clone()] {
            assert_eq!(texts(&world.detach(&id).1, "status"), ["detaching"]);
            assert_eq!(texts(&world.detach(&id).1, "status"), ["detaching"], "asked again");
            let span = world.seconds_of(|world| world.attachment_state(&id));
            assert!((2..=8).contains(&span), "{span}");
            spans.insert(span);
            assert_eq!(world.volume_state(&id), "available");
        }
        assert_eq!(world.shown_attachment(&world.node.volume_ids[1].clone()).0, ["attached"]);
    }
    assert!(spans.len() > 4, "{spans:?}");
}

#[test]
fn what_cannot_be_detached_is_refused_with_its_code() {
    let mut world = World::new();
    let (instance, root) = (world.node.instance_id.clone(), world.node.root_volume_id.clone());
    let (free, used) = (world.free_volume(), world.node.volume_ids[0].clone());
    let other = world.cloud.launch(world.now, InstanceSpec::in_zone("us-west-1a")).instance_id;
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[], "MissingParameter"),
        (&[("VolumeId", "vol-01234567")], "InvalidVolume.NotFound"),
        (&[("VolumeId", &used), ("InstanceId", "i-01234567")], "InvalidInstanceID.NotFound"),
        (&[("VolumeId", &free)], "IncorrectState"),
        (&[("VolumeId", &free), ("InstanceId", &instance)], "IncorrectState"),
        (&[("VolumeId", &used), ("InstanceId", &other)], "InvalidAttachment.NotFound"),
        (&[("VolumeId", &used), ("Device", "/dev/sdg")], "InvalidAttachment.NotFound"),
        (&[("VolumeId", &root)], "OperationNotPermitted"),
        (&[("VolumeId", &used), ("DryRun", "true")], "DryRunOperation"),
    ];
    for (fields, wanted) in cases {
        assert_eq!(world.refused("DetachVolume", fields).1, wanted, "{fields:?}");
    }
    assert_eq!(world.attachment_state(&used), "attached");
}

#[test]
fn force_takes_off_also_what_is_busy_or_hangs() {
    let mut world = World::new();
    let id = world.node.volume_ids[0].clone();
    world.detach(&id);
    let force = [("VolumeId", id.as_str()), ("Force", "true")];
    assert_eq!(texts(&world.ok("DetachVolume", &force), "status"), ["detaching"]);
    world.pass(8);
    assert_eq!(world.volume_state(&id), "available");

    world.stop_node();
    let id = world.node.volume_ids[1].clone();
    world.arm(json!({"on": "DetachVolume", "do": "fail_later"})).unwrap();
    world.detach(&id);
    world.pass(60);
    assert_eq!(world.attachment_state(&id), "detaching");
    world.ok("DetachVolume", &[("VolumeId", &id), ("Force", "true")]);
    world.pass(8);
    assert_eq!(world.attachment_state(&id), "none");
}

#[test]
fn attaching_and_detaching_fail_later() {
    let mut world = World::new();
    let id = world.free_volume();
    world.arm(json!({"on": "AttachVolume", "do": "fail_later", "resource": id})).unwrap();
    world.attach(&id);
    let span = world.seconds_of(|world| world.attachment_state(&id));
    assert!((2..=8).contains(&span), "{span}");
    assert_eq!((world.attachment_state(&id), world.volume_state(&id)), ("none", "available"));
    world.pass(10);
    assert_eq!(world.volume_events("attachVolume")[0].0, "failed");
    world.attach(&id);
    world.pass(8);
    assert_eq!(world.attachment_state(&id), "attached");

    world.stop_node();
    world.arm(json!({"on": "DetachVolume", "do": "fail_later"})).unwrap();
    world.detach(&id);
    world.pass(15 * 60 - 1);
    assert_eq!(world.attachment_state(&id), "detaching");
    world.pass(1);
    assert_eq!(world.volume_state(&id), "available");
}

#[test]
fn an_end_planned_for_an_earlier_attachment_ends_no_later_one() {
    let mut config = config();
    config.pace.attach_ms = 8_000..=8_000;
    let mut world = World::with(config, 7);
    let id = world.free_volume();
    world.attach(&id);
    world.pass(5);
    world.cloud.detach(world.now, &id).unwrap();
    world.attach(&id);
    assert_eq!(world.seconds_of(|world| world.attachment_state(&id)), 8);
    assert_eq!(world.attachment_state(&id), "attached");
}

#[test]
fn what_is_being_attached_can_be_taken_off_again_and_outlives_its_instance() {
    let mut world = World::new();
    let id = world.free_volume();
    world.attach(&id);
    assert_eq!(texts(&world.detach(&id).1, "status"), ["detaching"], "it is not mounted yet");
    world.pass(8);
    assert_eq!(world.volume_state(&id), "available");
    // Attaching goes on while its instance stops, and is undone by its end.
    world.attach(&id);
    let instance = world.node.instance_id.clone();
    world.cloud.stop(world.now, &instance).unwrap();
    world.pass(8);
    assert_eq!(world.attachment_state(&id), "attached");
    world.pass(60);
    let late = world.free_volume();
    assert_eq!(world.attach_at(&late, "/dev/sdy").0, 200);
    world.cloud.terminate(world.now, &instance).unwrap();
    world.pass(60);
    for id in [&id, &late] {
        assert_eq!((world.attachment_state(id), world.volume_state(id)), ("none", "available"));
    }
}

#[test]
fn a_restore_swaps_the_volumes_of_a_node() {
    for restarts in [false, true] {
        let mut world = World::new();
        let mut rows = BTreeMap::new();
        let mut pass = |world: &mut World, seconds: i64| {
            for _ in 0..seconds {
                world.pass(1);
                if restarts {
                    world.restart(&mut rows);
                }
            }
        };
        let old = world.node.volume_ids[0].clone();
        world.cloud.write(world.now, &old, "then").unwrap();
        let snapshot = world.create_one();
        pass(&mut world, 480);
        world.cloud.write(world.now, &old, "now").unwrap();
        let new = world.create_volume(&[("SnapshotId", &snapshot), ("VolumeType", "gp3")]);
        pass(&mut world, 60);
        let instance = world.node.instance_id.clone();
        world.ok("StopInstances", &[("InstanceId.1", &instance)]);
        pass(&mut world, 60);
        assert_eq!(world.detach(&old).0, 200);
        pass(&mut world, 8);
        assert_eq!(world.attach_at(&new, "/dev/sdf").0, 200);
        pass(&mut world, 8);
        world.ok("StartInstances", &[("InstanceId.1", &instance)]);
        pass(&mut world, 45);
        let seen = world.cloud.instance(&instance).unwrap();
        assert_eq!(seen.state, "running");
        assert!(seen.data_volumes.contains(&(new.as_str(), "/dev/sdf")));
        assert_eq!(world.cloud.volume(&new).unwrap().content, Some("then"));
        assert_eq!(world.cloud.volume(&old).unwrap().content, Some("now"));
        world.cloud.write(world.now, &new, "after").unwrap();
        assert!(world.cloud.write(world.now, &old, "after").is_err());
    }
}
