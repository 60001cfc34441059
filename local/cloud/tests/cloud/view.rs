//! The views for an oracle: the truth, at once.

use cloud::VolumeSpec;

use crate::support::World;

#[test]
fn a_snapshot_is_seen_from_its_call_until_it_is_forgotten() {
    let mut config = crate::support::config();
    config.pace.describe_lag_ms = 5_000..=5_000;
    let mut world = World::with(config, 7);
    let volume = world.node.volume_ids[0].clone();
    world.cloud.write(world.now, &volume, "one").unwrap();
    let fields = [
        ("VolumeId", volume.as_str()),
        ("Description", "nightly"),
        ("TagSpecification.1.ResourceType", "snapshot"),
        ("TagSpecification.1.Tag.1.Key", "backup"),
        ("TagSpecification.1.Tag.1.Value", "b1"),
    ];
    let body = world.ok("CreateSnapshot", &fields);
    let id = crate::support::texts(&body, "snapshotId").remove(0);
    let started = world.now;
    assert!(world.shown().is_empty());
    let seen = world.cloud.snapshot(&id).unwrap();
    assert_eq!((seen.snapshot_id, seen.volume_id, seen.size_gib), (id.as_str(), &*volume, 50));
    assert_eq!((seen.state, seen.exists, seen.delete_asked), ("pending", true, false));
    assert_eq!((seen.description, seen.content), ("nightly", Some("one")));
    assert_eq!(seen.tags.iter().next().unwrap(), (&"backup".to_owned(), &"b1".to_owned()));
    assert_eq!((seen.started_at, seen.ended_at), (started, None));

    world.cloud.delete(world.now, &id).unwrap();
    let seen = world.cloud.snapshot(&id).unwrap();
    assert_eq!((seen.state, seen.exists, seen.delete_asked), ("pending", true, true));
    while world.cloud.snapshot(&id).unwrap().state == "pending" {
        world.pass(1);
    }
    let seen = world.cloud.snapshot(&id).unwrap();
    assert_eq!((seen.state, seen.exists, seen.delete_asked), ("completed", false, true));
    let ended = seen.ended_at.unwrap();
    assert!(ended <= world.now && ended > world.now - jiff::SignedDuration::from_secs(1));
    assert_eq!(world.cloud.snapshots().count(), 1, "it lingers");
    world.pass(5);
    assert!(world.cloud.snapshot(&id).is_none());
    assert_eq!(world.cloud.snapshots().count(), 0);
}

#[test]
fn all_snapshots_come_in_the_order_of_their_ids() {
    let mut world = World::new();
    let mut ids = world.create_set();
    ids.sort();
    assert!(world.cloud.snapshots().map(|s| s.snapshot_id).eq(ids.iter().map(String::as_str)));
    world.finish();
    world.cloud.delete(world.now, &ids[1]).unwrap();
    let exist: Vec<bool> = world.cloud.snapshots().map(|s| s.exists).collect();
    assert!(exist.len() == 2 || exist == [true, false, true], "{exist:?}");
    assert!(world.cloud.snapshot("snap-01234567").is_none());
}

#[test]
fn an_instance_is_seen_with_its_data_volumes_by_device() {
    let mut world = World::new();
    let (instance, data) = (world.node.instance_id.clone(), world.node.volume_ids.clone());
    let seen = world.cloud.instance(&instance).unwrap();
    assert_eq!((seen.instance_id, seen.state), (instance.as_str(), "running"));
    assert_eq!(seen.data_volumes, [(&*data[0], "/dev/sdf"), (&*data[1], "/dev/sdg")]);

    world.cloud.detach(world.now, &data[0]).unwrap();
    let new = world.cloud.attach(world.now, &instance, VolumeSpec::gib(1)).unwrap();
    let seen = world.cloud.instance(&instance).unwrap();
    assert_eq!(seen.data_volumes, [(&*new, "/dev/sdf"), (&*data[1], "/dev/sdg")]);

    world.cloud.terminate(world.now, &instance).unwrap();
    assert_eq!(world.cloud.instance(&instance).unwrap().state, "shutting-down");
    world.pass(60);
    let seen: Vec<_> = world.cloud.instances().collect();
    assert_eq!((seen.len(), seen[0].state, seen[0].data_volumes.len()), (1, "terminated", 0));
    world.pass(3600);
    assert!(world.cloud.instance(&instance).is_none());
    assert_eq!(world.cloud.instances().count(), 0);
}
