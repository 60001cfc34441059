//! The call log, the counters and the token buckets.

use serde_json::json;

use crate::support::{World, config, entry};

#[test]
fn every_call_is_logged_and_counted() {
    let mut world = World::new();
    let id = world.create_one();
    world.refused("DescribeSnapshots", &[("SnapshotId.1", "snap-xyz")]);
    world.refused("DeleteSnapshot", &[("SnapshotId", &id), ("DryRun", "true")]);
    assert_eq!(world.refused("RunInstances", &[]), (400, "InvalidAction".to_owned()));
    world.cloud.record(world.now, "dynamodb", "Query", &["table".to_owned()], false, "ok");
    world.cloud.record_capacity("Query", 0.5, 0.0);
    world.cloud.record_capacity("Query", 1.0, 2.0);
    let state = world.state();
    assert_eq!(
        state["calls"],
        json!({
            "dynamodb": {"Query": 1},
            "ec2": {"CreateSnapshot": 1, "DeleteSnapshot": 1, "DescribeSnapshots": 1, "RunInstances": 1},
        })
    );
    assert_eq!(state["capacity"], json!({"Query": {"read": 1.5, "write": 2.0}}));
    let calls = world.cloud.calls();
    assert_eq!(
        calls[0],
        json!({
            "at": world.now, "service": "ec2", "operation": "CreateSnapshot",
            "resources": [world.node.volume_ids[0], id], "dry_run": false, "outcome": "ok",
        })
    );
    assert_eq!(calls[1]["outcome"], "InvalidSnapshotID.Malformed");
    assert_eq!(calls[2]["dry_run"], true);
    assert_eq!(calls[3]["outcome"], "InvalidAction");
    assert_eq!(calls[4]["service"], "dynamodb");
}

#[test]
fn the_log_keeps_the_last_ten_thousand() {
    let mut world = World::new();
    for n in 0..10_001 {
        world.cloud.record(world.now, "dynamodb", "Query", &[], false, &format!("{n}"));
    }
    let calls = world.cloud.calls();
    assert_eq!(calls.as_array().unwrap().len(), 10_000);
    assert_eq!(calls[0]["outcome"], "1");
    assert_eq!(world.state()["calls"]["dynamodb"]["Query"], 10_001);
}

#[test]
fn a_token_bucket_empties_and_refills_with_the_speed() {
    for speed in [1.0, 10.0] {
        let mut config = config();
        config.speed = speed;
        let mut world = World::with(config, 7);
        let delete = [("SnapshotId", "snap-01234567")];
        for _ in 0..100 {
            assert_eq!(world.refused("DeleteSnapshot", &delete).1, "InvalidSnapshot.NotFound");
        }
        let throttled = (503, "RequestLimitExceeded".to_owned());
        assert_eq!(world.refused("DeleteSnapshot", &delete), throttled);
        world.ok("DescribeSnapshots", &[]); // another bucket
        world.pass(1);
        let mut granted = 0;
        while world.refused("DeleteSnapshot", &delete) != throttled {
            granted += 1;
        }
        assert_eq!(granted, if speed > 1.0 { 50 } else { 5 });
    }
}

#[test]
fn unfiltered_describes_have_the_smaller_bucket() {
    let mut world = World::new();
    for _ in 0..50 {
        world.ok("DescribeInstances", &[]);
    }
    assert_eq!(world.refused("DescribeInstances", &[]).0, 503);
    world.ok("DescribeInstances", &[("MaxResults", "100")]);
}

#[test]
fn a_quiet_cloud_counts_and_does_the_same_but_keeps_no_logs_and_no_changes() {
    let mut loud = World::new();
    let mut quiet = World::new();
    for world in [&mut loud, &mut quiet] {
        world.create_one();
        world.put(&json!([entry("Backup Requested", &json!({}))]));
    }
    assert!(!quiet.cloud.take_dirty().is_empty());
    quiet.create_one_of(1);
    loud.create_one_of(1);
    quiet.cloud.quiet();
    assert_eq!(quiet.cloud.calls(), json!([]), "also of what was before");
    assert_eq!(quiet.state()["events"], json!([]));
    let mut seen = Vec::new();
    for world in [&mut loud, &mut quiet] {
        world.pass(15);
        world.arm(json!({"on": "CreateSnapshots", "do": "fail_later"})).unwrap();
        let made = world.create_set();
        world.cloud.clear_faults();
        world.put(&json!([entry("Backup Requested", &json!({}))]));
        world.finish();
        let instance = world.node.instance_id.clone();
        world.cloud.stop(world.now, &instance).unwrap();
        world.finish();
        let delivered = world.cloud.deliveries(world.now);
        for delivery in &delivered {
            world.cloud.delivered(world.now, delivery.id, Err("no".to_owned()));
        }
        let body = world.ok("DescribeSnapshots", &[]);
        let mut state = world.state();
        state.as_object_mut().unwrap().remove("events");
        seen.push((made, delivered, body, state, world.cloud.next_due()));
    }
    assert!(!seen[0].1.is_empty());
    assert_eq!(seen[0], seen[1]);
    assert_eq!(quiet.state()["calls"]["ec2"]["CreateSnapshot"], 2);
    assert_eq!(quiet.cloud.calls(), json!([]));
    assert_eq!(quiet.state()["events"], json!([]));
    assert!(quiet.cloud.take_dirty().is_empty());
    assert!(loud.cloud.take_dirty().len() > 10);
}
