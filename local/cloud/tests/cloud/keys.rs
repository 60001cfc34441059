//! KMS keys that cannot be used, and how EC2 tells only afterwards.

use std::collections::BTreeMap;

use cloud::{InstanceSpec, VolumeSpec};

use crate::support::{World, config, texts};

const KEY: &str = "arn:aws:kms:us-west-1:123456789012:key/k1";

/// A node whose first data volume is encrypted with [`KEY`].
fn encrypted(seed: u64) -> World {
    let mut world = World::with(config(), seed);
    let mut spec = InstanceSpec::in_zone("us-west-1a");
    spec.data = vec![VolumeSpec { kms_key_id: Some(KEY.to_owned()), ..VolumeSpec::gib(5) }];
    world.node = world.cloud.launch(world.now, spec);
    world
}

#[test]
fn a_volume_with_a_key_that_cannot_be_used_vanishes_while_it_is_creating() {
    let mut world = encrypted(7);
    let mut rows = BTreeMap::new();
    let snapshot = world.snapshot();
    world.cloud.disable_key(world.now, KEY);
    assert_eq!(world.cloud.disabled_keys().map(|(arn, _)| arn).collect::<Vec<_>>(), [KEY]);
    let fields = [("SnapshotId", snapshot.as_str())];
    let (id, other) = (world.create_volume(&fields), {
        let own = [fields[0], ("KmsKeyId", "k2"), ("Encrypted", "true")];
        world.create_volume(&own)
    });
    world.restart(&mut rows);
    world.pass(5);
    assert_eq!(texts(&world.ok("DescribeVolumes", &[("VolumeId.1", &id)]), "status"), ["creating"]);
    let span = 5 + world.seconds_of(|world| world.volume_state(&id));
    assert!((10..=60).contains(&span), "{span}");
    assert_eq!(world.volume_state(&id), "gone");
    world.pass(70);
    assert_eq!(world.volume_state(&other), "available");
    let told = world.volume_events("createVolume");
    assert!(told.contains(&("failed".to_owned(), format!("{KEY} is disabled."))), "{told:?}");
    world.cloud.enable_key(world.now, KEY);
    let again = world.create_volume(&fields);
    world.pass(60);
    assert_eq!(world.volume_state(&again), "available");
    let (late, early) = (world.create_volume(&fields), world.create_volume(&[("Size", "1")]));
    world.cloud.disable_key(world.now, KEY);
    world.pass(60);
    assert_eq!((world.volume_state(&late), world.volume_state(&early)), ("gone", "available"));
}

#[test]
fn a_volume_is_encrypted_as_its_snapshot_is_or_as_the_call_says() {
    let mut world = encrypted(7);
    let snapshot = world.snapshot();
    let key =
        |world: &World, id: &str| world.cloud.volume(id).unwrap().kms_key_id.map(str::to_owned);
    let of = ("SnapshotId", snapshot.as_str());
    let (size, yes, no) = (("Size", "9"), ("Encrypted", "true"), ("Encrypted", "false"));
    let arn = |rest: &str| Some(format!("arn:aws:kms:us-west-1:123456789012:{rest}"));
    let own = "key/00000000-0000-4000-8000-0000000eb500";
    for (fields, wanted) in [
        (&[of][..], Some(KEY.to_owned())),
        (&[of, yes], Some(KEY.to_owned())),
        (&[of, yes, ("KmsKeyId", "k2")], arn("key/k2")),
        (&[size, yes, ("KmsKeyId", "alias/a")], arn("alias/a")),
        (&[size, yes, ("KmsKeyId", KEY)], Some(KEY.to_owned())),
        (&[size, yes], arn(own)),
        (&[size, no], None),
        (&[size], None),
    ] {
        let id = world.create_volume(fields);
        assert_eq!(key(&world, &id), wanted, "{fields:?}");
    }
    let zone = ("AvailabilityZone", "us-west-1a");
    let refused = world.refused("CreateVolume", &[zone, of, no]).1;
    assert_eq!(refused, "InvalidParameterCombination");
    let refused = world.refused("CreateVolume", &[zone, of, ("KmsKeyId", KEY)]).1;
    assert_eq!(refused, "InvalidParameterDependency");
}

#[test]
fn an_instance_with_such_a_volume_does_not_come_up() {
    let mut world = encrypted(7);
    world.stop_node();
    world.cloud.disable_key(world.now, KEY);
    world.start_node();
    let seen = world.cloud.instance(&world.node.instance_id).unwrap();
    assert_eq!((seen.state, seen.state_reason), ("stopped", Some("Client.InternalError")));
    world.cloud.enable_key(world.now, KEY);
    world.start_node();
    let seen = world.cloud.instance(&world.node.instance_id).unwrap();
    assert_eq!((seen.state, seen.state_reason), ("running", None));
}
