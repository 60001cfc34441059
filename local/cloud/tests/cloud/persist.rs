//! The same seed and calls give the same bytes, also across restarts.

use std::collections::BTreeMap;

use cloud::{Cloud, Reply};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{World, config, entry};

/// One call or wait of a long scenario that touches everything; gives what
/// can be seen of it.
fn step(cloud: &mut Cloud, node: &cloud::Launched, now: Timestamp, n: usize) -> Vec<u8> {
    let ec2 = |cloud: &mut Cloud, body: String| match cloud.ec2(now, body.as_bytes()) {
        Reply::Answer { body, .. } => body,
        other => format!("{other:?}").into_bytes(),
    };
    let instance = &node.instance_id;
    match n % 12 {
        0 => ec2(
            cloud,
            format!(
                "Action=CreateSnapshots&InstanceSpecification.InstanceId={instance}&TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=n&TagSpecification.1.Tag.1.Value={n}"
            ),
        ),
        1 | 7 => ec2(cloud, "Action=DescribeSnapshots&Owner.1=self".to_owned()),
        2 => {
            let fault = json!({"on": "CreateSnapshot", "do": "fail_later"});
            cloud.arm(serde_json::from_value(fault).unwrap()).unwrap();
            cloud.faults().to_string().into_bytes()
        }
        3 => ec2(cloud, format!("Action=CreateSnapshot&VolumeId={}", node.volume_ids[0])),
        4 => {
            let body = json!({"Entries": [entry("Backup Requested", &json!({ "n": n }))]});
            let reply = cloud.events(now, "AWSEvents.PutEvents", body.to_string().as_bytes());
            crate::support::answer(&reply).1.into_bytes()
        }
        5 | 9 => {
            let due = cloud.deliveries(now);
            let seen = format!("{due:?}").into_bytes();
            for (at, delivery) in due.into_iter().enumerate() {
                let outcome = if at % 3 == 0 { Err("no".to_owned()) } else { Ok(()) };
                cloud.delivered(now, delivery.id, outcome);
            }
            seen
        }
        6 => {
            let id = cloud.state(now)["snapshots"][0]["snapshot_id"].clone();
            ec2(
                cloud,
                format!("Action=DeleteSnapshot&SnapshotId={}", id.as_str().unwrap_or_default()),
            )
        }
        8 => {
            cloud.write(now, &node.volume_ids[1], &format!("v{n}")).unwrap();
            cloud.record_capacity("Query", 0.5, 1.5);
            cloud.dead_letters().to_string().into_bytes()
        }
        10 => {
            cloud.record(now, "dynamodb", "Query", &[], false, "ok");
            cloud.calls().to_string().into_bytes()
        }
        _ => format!("{:?} {:?}", cloud.undelivered(), cloud.next_due()).into_bytes(),
    }
}

fn run(number: u64, restart: bool) -> (Vec<Vec<u8>>, Value) {
    let World { mut cloud, mut now, node } = World::with(config(), number);
    let mut rows = BTreeMap::new();
    let mut seen = Vec::new();
    for n in 0..240 {
        now += SignedDuration::from_millis(i64::try_from(n % 7 * 4_321).unwrap());
        cloud.advance(now);
        seen.push(step(&mut cloud, &node, now, n));
        seen.push(cloud.state(now).to_string().into_bytes());
        if restart {
            for (key, value) in cloud.take_dirty() {
                match value {
                    Some(json) => rows.insert(key, json),
                    None => rows.remove(&key),
                };
            }
            assert!(cloud.take_dirty().is_empty());
            cloud = Cloud::restore(config(), rows.clone()).unwrap();
            assert!(cloud.take_dirty().is_empty(), "a restart changes nothing");
        }
    }
    (seen, cloud.state(now))
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let (first, state) = run(1, false);
    assert_eq!(run(1, false), (first.clone(), state.clone()));
    assert_ne!(run(2, false).0, first);
    let reached = state.to_string();
    for word in ["completed", "error", "Multi-Volume", "Backup Requested", "Query"] {
        assert!(reached.contains(word), "the scenario never reached {word}");
    }
}

#[test]
fn a_restart_after_every_step_is_not_seen() {
    for seed in 1..3 {
        let (plain, _) = run(seed, false);
        let (restarted, _) = run(seed, true);
        for (n, (plain, restarted)) in plain.iter().zip(&restarted).enumerate() {
            let show = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(show(plain), show(restarted), "seed {seed}, at {n}");
        }
    }
}

/// One call of a scenario of what a restore does, refused or not; what can be
/// seen of it.
fn restore_step(world: &mut World, snapshot: &str, n: usize) -> String {
    let mut volumes: Vec<String> = world.node.volume_ids.clone();
    volumes.extend(world.cloud.volumes().map(|v| v.volume_id.to_owned()));
    let volume = volumes[n * 7 % volumes.len()].clone();
    let instance = world.node.instance_id.clone();
    let device = format!("/dev/sd{}", char::from(b'h' + u8::try_from(n % 9).unwrap()));
    let (token, key) = (format!("t{}", n / 26), "arn:aws:kms:us-west-1:123456789012:key/k");
    let zone = ("AvailabilityZone", "us-west-1a");
    let answer = match n % 13 {
        0 | 7 => {
            let rate = ("VolumeInitializationRate", "300");
            world.call(
                "CreateVolume",
                &[zone, ("SnapshotId", snapshot), rate, ("ClientToken", &token)],
            )
        }
        1 => {
            let on =
                ["CreateVolume", "AttachVolume", "StartInstances", "StopInstances"][n / 13 % 4];
            world.arm(json!({"on": on, "do": "fail_later"})).unwrap();
            world.call("DescribeVolumes", &[])
        }
        2 | 6 => world.attach_at(&volume, &device),
        3 => world.call("StopInstances", &[("InstanceId.1", &instance)]),
        4 | 8 => world.detach(&volume),
        5 => world.call("StartInstances", &[("InstanceId.1", &instance)]),
        9 => world.call("DeleteVolume", &[("VolumeId", &volume)]),
        10 if n.is_multiple_of(2) => {
            world.cloud.disable_key(world.now, key);
            let own = [("Size", "1"), ("Encrypted", "true"), ("KmsKeyId", key)];
            world.call("CreateVolume", &[zone, own[0], own[1], own[2]])
        }
        10 => {
            world.cloud.enable_key(world.now, key);
            world.call("DescribeVolumeStatus", &[])
        }
        11 => {
            let mapping = ("BlockDeviceMapping.1.DeviceName", device.as_str());
            world.call("ModifyInstanceAttribute", &[("InstanceId", &instance), mapping])
        }
        _ => world.call("DescribeInstances", &[]),
    };
    world.pass(i64::try_from(n % 5 * 6).unwrap());
    format!("{answer:?} {} {:?}", world.state(), world.cloud.next_due())
}

#[test]
fn a_restart_after_every_step_of_a_restore_is_not_seen() {
    let mut reached = String::new();
    for seed in 1..4 {
        let run = |restarts: bool| {
            let mut world = World::with(config(), seed);
            let (mut rows, mut seen) = (BTreeMap::new(), Vec::new());
            let snapshot = world.snapshot();
            for n in 0..260 {
                seen.push(restore_step(&mut world, &snapshot, n));
                if restarts {
                    world.restart(&mut rows);
                }
            }
            seen
        };
        let (plain, restarted) = (run(false), run(true));
        for (n, (plain, restarted)) in plain.iter().zip(&restarted).enumerate() {
            assert_eq!(plain, restarted, "seed {seed}, at {n}");
        }
        reached.extend(plain);
    }
    for word in [
        "creating",
        "attaching",
        "busy",
        "detaching",
        "available",
        "error",
        "createVolume",
        "attachVolume",
        "deleteVolume",
        "is disabled",
        "stopping",
        "pending",
        "IncorrectState",
        "Server.InsufficientInstanceCapacity",
    ] {
        assert!(reached.contains(word), "the scenario never reached {word}");
    }
}

/// Rows of before there were states of volumes and of attachments: those of
/// what has none are as they were, so they load, too.
#[test]
fn rows_of_what_was_launched_have_nothing_that_older_versions_did_not_write() {
    let mut world = World::new();
    let rows: BTreeMap<String, String> =
        world.cloud.take_dirty().into_iter().filter_map(|(key, json)| Some((key, json?))).collect();
    let fields = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let of = |kind: &str| -> Value {
        let row = rows.iter().find(|(key, _)| key.starts_with(kind)).unwrap().1;
        serde_json::from_str(row).unwrap()
    };
    let instance = of("instance/");
    assert_eq!(
        fields(&instance),
        [
            "attachments",
            "id",
            "image",
            "kind",
            "launched_at",
            "reason",
            "reservation",
            "root_device",
            "state",
            "tags",
            "zone",
        ]
    );
    let attachment = ["attached_at", "delete_on_termination", "device", "volume"];
    assert_eq!(fields(&instance["attachments"][0]), attachment);
    assert_eq!(
        fields(&of("volume/")),
        [
            "content",
            "created_at",
            "encrypted",
            "id",
            "iops",
            "kind",
            "kms_key",
            "multi_attach",
            "size_gib",
            "snapshot",
            "snapshot_at",
            "tags",
            "throughput",
            "zone",
        ]
    );
    let cloud = Cloud::restore(config(), rows).unwrap();
    let seen = cloud.volume(&world.node.volume_ids[0]).unwrap();
    assert_eq!(seen.attachment, Some((world.node.instance_id.as_str(), "attached")));
    assert_eq!(seen.state, "in-use");
}

/// An older version planned a stop without a word of it in the instance's row.
#[test]
fn a_stop_that_an_older_version_began_ends() {
    let mut world = World::new();
    let instance = world.node.instance_id.clone();
    world.cloud.stop(world.now, &instance).unwrap();
    let key = format!("instance/{instance}");
    let mut rows: BTreeMap<String, String> =
        world.cloud.take_dirty().into_iter().filter_map(|(key, json)| Some((key, json?))).collect();
    let mut row: Value = serde_json::from_str(&rows[&key]).unwrap();
    assert!(row.as_object_mut().unwrap().remove("turns_at").is_some());
    rows.insert(key, row.to_string());
    world.cloud = Cloud::restore(config(), rows).unwrap();
    world.pass(60);
    assert_eq!(world.instance_state(), "stopped");
}

#[test]
fn a_call_writes_few_small_rows() {
    let mut world = World::new();
    world.cloud.take_dirty();
    world.ok("DescribeSnapshots", &[]);
    let rows = world.cloud.take_dirty();
    let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "bucket/DescribeSnapshots of all",
            "count/ec2.DescribeSnapshots",
            "call/00000000000000000000",
            "meta",
        ]
    );
    assert!(rows.iter().all(|(_, json)| json.as_ref().unwrap().len() < 250), "{rows:?}");
}

#[test]
fn deliveries_in_flight_are_due_again_after_a_restart() {
    let mut world = World::new();
    world.put(&json!([entry("Backup Requested", &json!({}))]));
    let before = world.cloud.deliveries(world.now);
    let rows = world.cloud.take_dirty().into_iter().filter_map(|(key, json)| Some((key, json?)));
    let mut cloud = Cloud::restore(config(), rows).unwrap();
    assert_eq!(cloud.deliveries(world.now), before);
}

#[test]
fn a_row_that_is_not_ours_is_refused_by_name() {
    let mut world = World::new();
    let mut rows: Vec<(String, String)> =
        world.cloud.take_dirty().into_iter().filter_map(|(key, json)| Some((key, json?))).collect();
    rows.push(("teapot/1".to_owned(), "{}".to_owned()));
    assert!(Cloud::restore(config(), rows.clone()).unwrap_err().to_string().contains("teapot/1"));
    rows.pop();
    rows.push(("volume/x".to_owned(), "{}".to_owned()));
    assert!(Cloud::restore(config(), rows).unwrap_err().to_string().contains("volume/x"));
}
