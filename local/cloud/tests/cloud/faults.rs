//! Each fault, and the refusal of nonsense.

use cloud::{Admission, Reply};
use serde_json::{Value, json};

use crate::support::{World, answer, entry, json_answer, texts};

fn instance_field(world: &World) -> String {
    world.node.instance_id.clone()
}

#[test]
fn throttle_and_error_refuse_and_then_are_used_up() {
    let mut world = World::new();
    world.arm(json!({"on": "DescribeSnapshots", "do": "throttle", "times": 2})).unwrap();
    world.arm(json!({"on": "DescribeSnapshots", "do": "error"})).unwrap();
    world
        .arm(json!({"on": "DescribeSnapshots", "do": "error", "code": "UnauthorizedOperation"}))
        .unwrap();
    let seen: Vec<_> = (0..4).map(|_| world.refused("DescribeSnapshots", &[])).collect();
    let codes: Vec<(u16, &str)> =
        seen.iter().map(|(status, code)| (*status, code.as_str())).collect();
    assert_eq!(
        codes,
        [
            (503, "RequestLimitExceeded"),
            (503, "RequestLimitExceeded"),
            (500, "InternalError"),
            (403, "UnauthorizedOperation"),
        ]
    );
    world.ok("DescribeSnapshots", &[]);
    let faults = world.cloud.faults();
    assert_eq!(
        faults[0],
        json!({"on": "DescribeSnapshots", "do": "throttle", "times": 2, "struck": 2})
    );
    assert_eq!(faults[2]["code"], "UnauthorizedOperation");
    world.cloud.clear_faults();
    assert_eq!(world.cloud.faults(), json!([]));
}

#[test]
fn a_lost_reply_is_applied_and_a_hang_is_not() {
    let mut world = World::new();
    let instance = instance_field(&world);
    let fields = [("InstanceSpecification.InstanceId", instance.as_str())];
    world.arm(json!({"on": "CreateSnapshots", "do": "hang"})).unwrap();
    assert_eq!(world.raw("CreateSnapshots", &fields), Reply::Hang);
    assert!(world.snapshot_states().is_empty());
    world.arm(json!({"on": "CreateSnapshots", "do": "lose_reply"})).unwrap();
    assert_eq!(world.raw("CreateSnapshots", &fields), Reply::LoseReply);
    assert_eq!(world.snapshot_states().len(), 3);
    let calls = world.cloud.calls();
    assert_eq!((&calls[0]["outcome"], &calls[1]["outcome"]), (&json!("hang"), &json!("ok")));
}

#[test]
fn faults_strike_dry_runs_but_fail_later_waits_for_a_real_call() {
    let mut world = World::new();
    let instance = instance_field(&world);
    let fields = [("InstanceSpecification.InstanceId", instance.as_str()), ("DryRun", "true")];
    world.arm(json!({"on": "CreateSnapshots", "do": "throttle"})).unwrap();
    world.arm(json!({"on": "CreateSnapshots", "do": "fail_later"})).unwrap();
    assert_eq!(world.refused("CreateSnapshots", &fields).1, "RequestLimitExceeded");
    assert_eq!(world.refused("CreateSnapshots", &fields).1, "DryRunOperation");
    assert_eq!(world.cloud.faults()[1]["struck"], 0);
    world.create_set();
    world.finish();
    assert_eq!(world.snapshot_states(), ["error"; 3]);
}

#[test]
fn a_resource_picks_the_call() {
    let mut world = World::new();
    let (instance, other) = (instance_field(&world), "i-01234567");
    world.arm(json!({"on": "CreateSnapshots", "do": "throttle", "resource": other})).unwrap();
    world.create_set();
    world.pass(15);
    let volume = world.node.volume_ids[0].clone();
    world.arm(json!({"on": "CreateSnapshots", "do": "throttle", "resource": volume})).unwrap();
    let spec = "InstanceSpecification.InstanceId";
    let without =
        [(spec, instance.as_str()), ("InstanceSpecification.ExcludeDataVolumeId.1", &volume)];
    world.ok("CreateSnapshots", &without);
    assert_eq!(world.refused("CreateSnapshots", &[(spec, &instance)]).0, 503);
}

#[test]
fn events_are_dropped_doubled_and_delayed() {
    let count = |action: Option<&str>, wait: i64| {
        let mut world = World::new();
        if let Some(action) = action {
            world.arm(json!({"on": "event", "do": action, "times": 100})).unwrap();
        }
        world.create_one();
        while world.snapshot_states() != ["completed"] {
            world.pass(1);
        }
        world.pass(wait);
        world.events("EBS Snapshot Notification").len()
    };
    assert_eq!(count(None, 10), 1);
    assert_eq!(count(Some("drop"), 1000), 0);
    assert_eq!(count(Some("double"), 10), 2);
    assert_eq!((count(Some("delay"), 100), count(Some("delay"), 130)), (0, 1));
}

#[test]
fn an_event_fault_finds_its_snapshot() {
    let mut world = World::new();
    let ids = world.create_set();
    world.arm(json!({"on": "event", "do": "drop", "times": 9, "resource": ids[0]})).unwrap();
    world.finish();
    let events = world.events("EBS Snapshot Notification");
    let named: Vec<_> = events.iter().map(|e| e["snapshot_id"].to_string()).collect();
    assert!(named.iter().all(|arn| !arn.contains(&ids[0])), "{named:?}");
    assert!(named.iter().any(|arn| arn.contains(&ids[1])));
}

#[test]
fn the_stacks_bus_drops_doubles_and_delays() {
    let mut world = World::new();
    let mut put = |action: &str| {
        world.arm(json!({"on": "bus", "do": action})).unwrap();
        let reply = world.put(&json!([entry("Backup Requested", &json!({"a": action}))]));
        assert_eq!(json_answer(&reply)["FailedEntryCount"], 0);
        let now = world.cloud.deliveries(world.now).len();
        world.pass(120);
        (now, world.cloud.deliveries(world.now).len())
    };
    assert_eq!(put("drop"), (0, 0));
    assert_eq!(put("double"), (2, 0));
    assert_eq!(put("delay"), (0, 1));
}

#[test]
fn services_outside_ask_to_be_admitted() {
    let mut world = World::new();
    let table = ["table".to_owned()];
    for fault in ["throttle", "error", "hang", "lose_reply"] {
        world.arm(json!({"on": "TransactWriteItems", "do": fault})).unwrap();
    }
    let admit =
        |world: &mut World| world.cloud.admit(world.now, "dynamodb", "TransactWriteItems", &table);
    let Admission::Refuse(reply) = admit(&mut world) else { panic!("not throttled") };
    assert_eq!(answer(&reply).0, 400);
    assert_eq!(
        json_answer(&reply)["__type"],
        "com.amazonaws.dynamodb.v20120810#ThrottlingException"
    );
    assert_eq!(reply.code().as_deref(), Some("ThrottlingException"));
    let Admission::Refuse(reply) = admit(&mut world) else { panic!("not refused") };
    assert_eq!((answer(&reply).0, reply.code().as_deref()), (500, Some("InternalServerError")));
    assert_eq!(admit(&mut world), Admission::Hang);
    assert_eq!(admit(&mut world), Admission::ProceedThenLoseReply);
    assert_eq!(admit(&mut world), Admission::Proceed);
}

#[test]
fn put_events_can_be_struck_too() {
    let mut world = World::new();
    world.arm(json!({"on": "PutEvents", "do": "throttle"})).unwrap();
    world.arm(json!({"on": "PutEvents", "do": "lose_reply"})).unwrap();
    let entries = json!([entry("Backup Requested", &json!({}))]);
    assert_eq!(world.put(&entries).code().as_deref(), Some("ThrottlingException"));
    assert!(world.cloud.deliveries(world.now).is_empty());
    assert_eq!(world.put(&entries), Reply::LoseReply);
    assert_eq!(world.cloud.deliveries(world.now).len(), 1);
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let mut world = World::new();
    let cases: [(Value, &str); 10] = [
        (json!({"on": "CreateSnapshotz", "do": "throttle"}), "there is no CreateSnapshotz"),
        (json!({"on": "CreateSnapshots", "do": "explode"}), "explode"),
        (json!({"on": "CreateSnapshots", "do": "drop"}), "drop"),
        (json!({"on": "event", "do": "throttle"}), "for operations"),
        (json!({"on": "DeleteSnapshot", "do": "fail_later"}), "fail_later"),
        (json!({"on": "DeleteSnapshot", "do": "throttle", "times": 0}), "times"),
        (json!({"on": "DeleteSnapshot", "do": "throttle", "code": "X"}), "code"),
        (json!({"on": "DeleteSnapshot", "do": "error", "code": ""}), "code"),
        (json!({"on": "DeleteSnapshot", "do": "error", "resource": "x"}), "resource"),
        (json!({"on": "DeleteSnapshot", "do": "error", "tiems": 3}), "tiems"),
    ];
    for (fault, why) in cases {
        let error = world.arm(fault.clone()).unwrap_err();
        assert!(error.contains(why), "{fault}: {error}");
    }
    assert_eq!(world.cloud.faults(), json!([]));
    let body = world.ok("DescribeSnapshots", &[]);
    assert!(texts(&body, "snapshotId").is_empty());
}
