//! The call log, the counters and the token buckets.

use serde_json::json;

use crate::support::{World, config};

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
