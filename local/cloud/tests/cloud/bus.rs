//! `EventBridge`: `PutEvents`, rules, deliveries, retries.

use cloud::{Cloud, Delivery, Pace, Target};
use serde_json::{Value, json};

use crate::support::{World, answer, config, entry, json_answer, rule};

const QUEUE: &str = "arn:aws:sqs:us-west-1:123456789012:waiting";

fn requested(world: &mut World) -> Delivery {
    let reply = world.put(&json!([entry("Backup Requested", &json!({"id": 1}))]));
    assert_eq!(json_answer(&reply)["FailedEntryCount"], 0);
    let mut due = world.cloud.deliveries(world.now);
    assert_eq!(due.len(), 1);
    due.remove(0)
}

#[test]
fn an_event_reaches_the_function_in_its_envelope() {
    let mut world = World::new();
    let delivery = requested(&mut world);
    assert_eq!((delivery.function.as_str(), delivery.rule.as_str()), ("worker", "requests"));
    assert_eq!(delivery.attempt, 1);
    let mut event = delivery.event;
    assert_eq!(event["id"].take().as_str().unwrap().len(), 36);
    assert_eq!(
        event,
        json!({
            "version": "0", "id": null, "detail-type": "Backup Requested", "source": "supervisor",
            "account": "123456789012", "time": "2026-11-21T09:00:00Z", "region": "us-west-1",
            "resources": [], "detail": {"id": 1},
        })
    );
    assert!(world.cloud.deliveries(world.now).is_empty(), "it is in flight");
    assert_eq!(world.cloud.undelivered().len(), 1);
    world.cloud.delivered(world.now, delivery.id, Ok(()));
    assert!(world.cloud.undelivered().is_empty());
    assert_eq!(world.cloud.next_due(), None);
}

#[test]
fn what_no_rule_wants_is_delivered_to_nobody() {
    let mut world = World::new();
    world.put(&json!([entry("Backup Completed", &json!({}))]));
    let mut elsewhere = entry("Backup Requested", &json!({}));
    elsewhere["EventBusName"] = json!("default");
    world.put(&json!([elsewhere]));
    assert!(world.cloud.deliveries(world.now).is_empty());
    assert_eq!(world.state()["events"].as_array().unwrap().len(), 2);
    let mut by_arn = entry("Backup Requested", &json!({}));
    by_arn["EventBusName"] = json!("arn:aws:events:us-west-1:123456789012:event-bus/backups");
    world.put(&json!([by_arn]));
    assert_eq!(world.cloud.deliveries(world.now).len(), 1);
}

#[test]
fn a_failed_delivery_is_tried_after_one_and_two_minutes_then_given_up() {
    let mut world = World::new();
    let mut delivery = requested(&mut world);
    for (attempt, wait) in [(1, 60), (2, 120)] {
        assert_eq!(delivery.attempt, attempt);
        world.cloud.delivered(world.now, delivery.id, Err(format!("no {attempt}")));
        world.pass(wait - 1);
        assert!(world.cloud.deliveries(world.now).is_empty());
        world.pass(1);
        delivery = world.cloud.deliveries(world.now).remove(0);
    }
    assert_eq!(delivery.attempt, 3);
    world.cloud.delivered(world.now, delivery.id, Err("no 3".to_owned()));
    let dead = world.cloud.dead_letters();
    assert_eq!(dead.as_array().unwrap().len(), 1);
    assert_eq!(dead[0]["reason"], "no 3");
    assert_eq!(dead[0]["attempts"], 3);
    assert_eq!(dead[0]["event"], delivery.event);
    assert_eq!(world.cloud.next_due(), None);
}

#[test]
fn an_event_too_old_is_given_up_before_its_retries_are_used() {
    let mut config = config();
    let function = "worker".to_owned();
    config.rules[1].targets = vec![Target::Function { function, retries: 2, max_age: 100 }];
    let mut world = World::with(config, 7);
    let delivery = requested(&mut world);
    world.cloud.delivered(world.now, delivery.id, Err("no".to_owned()));
    world.pass(60);
    let delivery = world.cloud.deliveries(world.now).remove(0);
    world.cloud.delivered(world.now, delivery.id, Err("no".to_owned()));
    assert!(world.cloud.dead_letters()[0]["reason"].as_str().unwrap().contains("older than 100 s"));
}

/// What a queue holds is tried again each `hidden` seconds, `receives` times in all, and the
/// function is handed the queue's message.
#[test]
fn what_waits_in_a_queue_is_tried_as_often_as_the_queue_says() {
    let mut config = config();
    let (arn, function) = (QUEUE.to_owned(), "worker".to_owned());
    config.rules[1].targets = vec![Target::Queue { arn, function, hidden: 90, receives: 400 }];
    let mut world = World::with(config, 7);
    let mut delivery = requested(&mut world);
    for attempt in 1..400 {
        let message = &delivery.payload()["Records"][0];
        assert_eq!(message["eventSource"], "aws:sqs");
        assert_eq!(message["eventSourceARN"], QUEUE);
        assert_eq!(message["awsRegion"], "us-west-1");
        assert_eq!(message["attributes"]["ApproximateReceiveCount"], attempt.to_string());
        let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        assert_eq!(body, delivery.event);
        world.cloud.delivered(world.now, delivery.id, Err(format!("no {attempt}")));
        world.pass(89);
        assert!(world.cloud.deliveries(world.now).is_empty());
        world.pass(1);
        delivery = world.cloud.deliveries(world.now).remove(0);
    }
    assert_eq!(world.cloud.dead_letters().as_array().unwrap().len(), 0);
    world.cloud.delivered(world.now, delivery.id, Err("no 400".to_owned()));
    let dead = world.cloud.dead_letters();
    assert_eq!((&dead[0]["reason"], &dead[0]["attempts"]), (&json!("no 400"), &json!(400)));
    assert_eq!(dead[0]["event"], delivery.event);
}

#[test]
fn a_rule_may_lead_to_the_dead_letters() {
    let mut config = config();
    config.rules[1].targets = vec![Target::DeadLetters];
    let mut world = World::with(config, 7);
    let detail = json!({"reason": "no such thing", "event": {"id": "7"}});
    world.put(&json!([entry("Backup Requested", &detail)]));
    assert!(world.cloud.deliveries(world.now).is_empty());
    let dead = world.cloud.dead_letters();
    assert_eq!(dead.as_array().unwrap().len(), 1);
    assert_eq!(dead[0]["reason"], "no such thing");
    assert_eq!(dead[0]["event"], json!({"id": "7"}));
    assert_eq!(dead[0]["rule"], "requests");
}

#[test]
fn put_events_fails_entry_by_entry() {
    let mut world = World::new();
    let good = entry("Backup Requested", &json!({}));
    let with = |name: &str, value: Value| {
        let mut entry = entry("Backup Requested", &json!({}));
        entry[name] = value;
        entry
    };
    let reply = world.put(&json!([
        with("Detail", json!("{")),
        good,
        with("Detail", json!("[]")),
        with("Source", json!("aws.ec2")),
        with("DetailType", Value::Null),
        with("Detail", json!(r#"{"a": [{"id": 9223372036854775807}, -9223372036854775808, 1.5]}"#)),
        with("Detail", json!(r#"{"a": [{"id": 9223372036854775808}]}"#)),
        with("Detail", json!(r#"{"id": 18446744073709551616}"#)),
        with("Detail", json!(r#"{"id": -9223372036854777000}"#)),
    ]));
    assert_eq!(answer(&reply).0, 200);
    let answer = json_answer(&reply);
    assert_eq!(answer["FailedEntryCount"], 7);
    let codes: Vec<_> =
        answer["Entries"].as_array().unwrap().iter().map(|e| e["ErrorCode"].as_str()).collect();
    let malformed = Some("MalformedDetail");
    let denied = Some("NotAuthorizedForSourceException");
    assert_eq!(codes[..5], [malformed, None, malformed, denied, Some("InvalidArgument")]);
    assert_eq!(codes[5..], [None, malformed, malformed, malformed]);
    assert!(answer["Entries"][1]["EventId"].is_string());
    assert_eq!(world.cloud.deliveries(world.now).len(), 2);
    assert_eq!(world.cloud.calls()[0]["outcome"], "MalformedDetail");
}

#[test]
fn put_events_is_refused_as_a_whole() {
    let mut world = World::new();
    let many: Vec<Value> = (0..11).map(|_| entry("Backup Requested", &json!({}))).collect();
    let large = json!([entry("Backup Requested", &json!("x".repeat(256 * 1024)))]);
    for entries in [json!(many), json!([]), large] {
        let reply = world.put(&entries);
        assert_eq!(answer(&reply).0, 400);
        assert_eq!(reply.code().as_deref(), Some("ValidationException"));
    }
    let reply = world.cloud.events(world.now, "AWSEvents.PutEvents", b"{");
    assert_eq!(reply.code().as_deref(), Some("SerializationException"));
    let reply = world.cloud.events(world.now, "AWSEvents.PutRule", b"{}");
    assert_eq!(reply.code().as_deref(), Some("InvalidAction"));
    assert!(world.cloud.deliveries(world.now).is_empty());
}

#[test]
fn ebs_events_come_late_and_some_twice() {
    let (mut late, mut doubled, mut shapes) = (false, 0, std::collections::BTreeSet::new());
    for seed in 0..100 {
        let mut world = World::with(config(), seed);
        let id = world.create_one();
        while world.snapshot_states() != ["completed"] {
            world.pass(1);
        }
        late |= world.cloud.deliveries(world.now).is_empty();
        world.pass(10);
        let events = world.events("EBS Snapshot Notification");
        doubled += usize::from(events.len() == 2);
        assert!((1..=2).contains(&events.len()));
        let arn = events[0]["snapshot_id"].as_str().unwrap().to_owned();
        shapes.insert(arn.replace(&id, "ID"));
    }
    assert!(late);
    assert!((2..20).contains(&doubled), "one in sixteen: {doubled}");
    assert_eq!(
        shapes.into_iter().collect::<Vec<_>>(),
        [
            "arn:aws:ec2::us-west-1:snapshot/ID",
            "arn:aws:ec2:us-west-1:123456789012:snapshot/ID",
            "arn:aws:ec2:us-west-1::snapshot/ID",
        ]
    );
}

#[test]
fn next_due_leads_from_event_to_event() {
    let mut world = World::new();
    world.create_set();
    let mut steps = 0;
    while let Some(due) = world.cloud.next_due() {
        assert!(due >= world.now);
        world.now = due;
        for delivery in world.cloud.deliveries(due) {
            world.cloud.delivered(due, delivery.id, Ok(()));
        }
        steps += 1;
        assert!(steps < 100);
    }
    assert_eq!(world.snapshot_states(), ["completed"; 3]);
    assert!(steps >= 6, "{steps}");
}

#[test]
fn a_wrong_configuration_is_refused() {
    let refused = |change: fn(&mut cloud::Config)| {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err()
    };
    assert!(
        refused(|c| c.rules.push(rule("x", "default", json!({"a": [{"cidr": "x"}]}), "f")))
            .contains("cidr")
    );
    assert!(
        refused(|c| c.rules.push(rule("x", "nowhere", json!({"a": [1]}), "f"))).contains("nowhere")
    );
    assert!(
        refused(|c| c.rules.push(rule("ebs", "default", json!({"a": [1]}), "f"))).contains("twice")
    );
    assert!(refused(|c| c.speed = 0.0).contains("speed"));
    assert!(refused(|c| c.speed = f64::NAN).contains("speed"));
    assert!(refused(|c| c.zones.push("eu-west-1a".to_owned())).contains("eu-west-1a"));
    let aimed_at = |target: Target| {
        let mut config = config();
        config.rules[0].targets = vec![target];
        config.check().unwrap_err()
    };
    let function = || "worker".to_owned();
    let old = Target::Function { function: function(), retries: 2, max_age: 86_401 };
    assert!(aimed_at(old).contains("86400"));
    for (hidden, receives) in [(43_201, 1), (1, 0), (1, 1_001)] {
        let arn = QUEUE.to_owned();
        let queue = Target::Queue { arn, function: function(), hidden, receives };
        assert!(aimed_at(queue).contains("43200"));
    }
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is refused")]
    let empty = 5..=4;
    for (name, change) in [
        ("snapshot_ms", (|pace, range| pace.snapshot_ms = range) as fn(&mut Pace, _)),
        ("describe_lag_ms", |pace, range| pace.describe_lag_ms = range),
        ("event_delay_ms", |pace, range| pace.event_delay_ms = range),
        ("volume_ms", |pace, range| pace.volume_ms = range),
        ("attach_ms", |pace, range| pace.attach_ms = range),
        ("stop_ms", |pace, range| pace.stop_ms = range),
        ("start_ms", |pace, range| pace.start_ms = range),
    ] {
        for (range, why) in [(empty.clone(), "is empty"), (0..=u64::MAX, "goes over")] {
            let mut config = config();
            change(&mut config.pace, range);
            let refused = config.check().unwrap_err();
            assert!(refused.contains(name) && refused.contains(why), "{refused}");
        }
    }
    assert!(config().check().is_ok());
    let error = Cloud::restore(config(), []).unwrap_err();
    assert!(error.to_string().contains("meta"));
}
