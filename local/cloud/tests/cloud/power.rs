//! `StopInstances` and `StartInstances`; the token buckets of what a restore
//! calls.

use std::collections::{BTreeMap, BTreeSet};

use cloud::{InstanceSpec, InstanceTraits, SpotRequest};
use serde_json::json;

use crate::support::{World, config, texts};

const UNKNOWN: &str = "i-01234567";

/// The states in an answer: before and after.
fn changes(body: &str) -> Vec<(String, String)> {
    let names = |element: &str| {
        texts(body, element).into_iter().map(|state| texts(&state, "name").remove(0))
    };
    names("previousState").zip(names("currentState")).collect()
}

fn pair(before: &str, after: &str) -> (String, String) {
    (before.to_owned(), after.to_owned())
}

impl World {
    fn power(&mut self, action: &str) -> Vec<(String, String)> {
        let id = self.node.instance_id.clone();
        changes(&self.ok(action, &[("InstanceId.1", &id)]))
    }

    fn power_refused(&mut self, action: &str) -> String {
        let id = self.node.instance_id.clone();
        self.refused(action, &[("InstanceId.1", &id)]).1
    }

    fn with_traits(traits: InstanceTraits) -> World {
        let mut world = World::new();
        let id = world.node.instance_id.clone();
        world.cloud.set_traits(world.now, &id, traits).unwrap();
        world
    }

    fn reason(&self) -> Option<&str> {
        self.cloud.instance(&self.node.instance_id).unwrap().state_reason
    }
}

#[test]
fn several_instances_stop_and_start_at_once_and_in_their_time() {
    let (mut stops, mut starts) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..20 {
        let mut world = World::with(config(), seed);
        let first = world.node.instance_id.clone();
        let second = world.cloud.launch(world.now, InstanceSpec::in_zone("us-west-1b")).instance_id;
        let both = [("InstanceId.1", first.as_str()), ("InstanceId.2", &second)];
        let body = world.ok("StopInstances", &both);
        assert_eq!(texts(&body, "instanceId"), [first.as_str(), &second]);
        assert_eq!(changes(&body), [pair("running", "stopping"), pair("running", "stopping")]);
        assert_eq!(world.power("StopInstances"), [pair("stopping", "stopping")]);
        let span = world.seconds_of(World::instance_state);
        assert!((20..=60).contains(&span), "{span}");
        stops.insert(span);
        assert_eq!(world.power("StopInstances"), [pair("stopped", "stopped")]);
        world.pass(60);
        let body = world.ok("StartInstances", &both);
        assert_eq!(changes(&body), [pair("stopped", "pending"), pair("stopped", "pending")]);
        assert_eq!(world.power("StartInstances"), [pair("pending", "pending")]);
        let span = world.seconds_of(World::instance_state);
        assert!((15..=45).contains(&span), "{span}");
        starts.insert(span);
        assert_eq!(world.power("StartInstances"), [pair("running", "running")]);
        world.pass(60);
        assert_eq!(world.cloud.instance(&second).unwrap().state, "running");
    }
    assert!(stops.len() > 5 && starts.len() > 5, "{stops:?} {starts:?}");
}

#[test]
fn one_wrong_instance_refuses_the_whole_call() {
    let mut world = World::new();
    let first = world.node.instance_id.clone();
    let (stop, start) = ("StopInstances", "StartInstances");
    let second = world.cloud.launch(world.now, InstanceSpec::in_zone("us-west-1b")).instance_id;
    let both = [("InstanceId.1", first.as_str()), ("InstanceId.2", &second)];
    for action in [stop, start] {
        let with = [both[0], ("InstanceId.2", UNKNOWN)];
        assert_eq!(world.refused(action, &with).1, "InvalidInstanceID.NotFound");
        let with = [both[0], ("InstanceId.2", "i-x")];
        assert_eq!(world.refused(action, &with).1, "InvalidInstanceID.Malformed");
        assert_eq!(world.refused(action, &[]).1, "MissingParameter");
        let dry = [both[0], ("DryRun", "true")];
        assert_eq!(world.refused(action, &dry), (412, "DryRunOperation".to_owned()));
        world.pass(1);
    }
    world.cloud.stop(world.now, &second).unwrap();
    world.pass(1);
    assert_eq!(world.refused(start, &both).1, "IncorrectInstanceState", "one stops");
    world.pass(60);
    world.cloud.start(world.now, &second).unwrap();
    assert_eq!(world.refused(stop, &both).1, "IncorrectInstanceState", "one starts");
    world.cloud.terminate(world.now, &second).unwrap();
    for action in [stop, start] {
        assert_eq!(world.refused(action, &both).1, "IncorrectInstanceState", "one ends");
    }
    assert_eq!(world.instance_state(), "running");
    let twice = [both[0], ("InstanceId.2", first.as_str())];
    assert_eq!(changes(&world.ok(stop, &twice)).len(), 1);
}

#[test]
fn some_instances_cannot_be_stopped() {
    let mut world = World::with_traits(InstanceTraits { stop_protection: true, ..plain() });
    assert_eq!(world.power_refused("StopInstances"), "OperationNotPermitted");
    let id = world.node.instance_id.clone();
    let off = [("InstanceId", id.as_str()), ("DisableApiStop.Value", "false")];
    world.ok("ModifyInstanceAttribute", &off);
    world.power("StopInstances");

    let mut world =
        World::with_traits(InstanceTraits { spot: Some(SpotRequest::OneTime), ..plain() });
    assert_eq!(world.power_refused("StopInstances"), "UnsupportedOperation");
    let persistent = InstanceTraits { spot: Some(SpotRequest::Persistent), ..plain() };
    let id = world.node.instance_id.clone();
    world.cloud.set_traits(world.now, &id, persistent).unwrap();
    world.stop_node();
    world.start_node();
    assert_eq!(world.instance_state(), "running");

    let mut world = World::new();
    let id = world.node.instance_id.clone();
    let hibernate = [("InstanceId.1", id.as_str()), ("Hibernate", "true")];
    let refused = world.refused("StopInstances", &hibernate).1;
    assert_eq!(refused, "UnsupportedHibernationConfiguration");
    let able = InstanceTraits { hibernation: true, ..plain() };
    world.cloud.set_traits(world.now, &id, able).unwrap();
    world.ok("StopInstances", &hibernate);
    world.pass(60);
    assert_eq!(world.reason(), Some("Client.UserInitiatedHibernate"));
}

fn plain() -> InstanceTraits {
    InstanceTraits::default()
}

#[test]
fn an_instance_without_its_root_volume_does_not_start() {
    let mut world = World::new();
    world.stop_node();
    let root = world.node.root_volume_id.clone();
    assert_eq!(world.detach(&root).0, 200);
    assert_eq!(world.power_refused("StartInstances"), "InvalidParameterValue");
    world.pass(8);
    assert_eq!(world.power_refused("StartInstances"), "InvalidParameterValue");
    assert_eq!(world.attach_at(&root, "/dev/xvda").0, 200);
    world.start_node();
    assert_eq!(world.instance_state(), "running");
}

#[test]
fn a_start_that_fails_later_goes_back_to_stopped_and_says_why() {
    for (fault, reason) in [
        (
            json!({"on": "StartInstances", "do": "fail_later"}),
            "Server.InsufficientInstanceCapacity",
        ),
        (
            json!({"on": "StartInstances", "do": "fail_later", "code": "Client.InternalError"}),
            "Client.InternalError",
        ),
    ] {
        let mut world = World::new();
        let mut rows = BTreeMap::new();
        world.stop_node();
        world.arm(fault).unwrap();
        assert_eq!(world.power("StartInstances"), [pair("stopped", "pending")]);
        assert_eq!(world.reason(), None);
        world.restart(&mut rows);
        let span = world.seconds_of(World::instance_state);
        assert!((15..=45).contains(&span), "{span}");
        assert_eq!((world.instance_state(), world.reason()), ("stopped", Some(reason)));
        let body = world.ok("DescribeInstances", &[]);
        let shown = texts(&body, "stateReason").remove(0);
        assert_eq!(texts(&shown, "code"), [reason]);
        assert!(texts(&shown, "message")[0].starts_with(reason));
        world.start_node();
        assert_eq!((world.instance_state(), world.reason()), ("running", None), "it struck once");
    }
    let mut world = World::new();
    let code = json!({"on": "StopInstances", "do": "fail_later", "code": "X"});
    assert!(world.arm(code).unwrap_err().contains("code"));
}

#[test]
fn a_fault_strikes_one_instance_of_several() {
    let mut world = World::new();
    let first = world.node.instance_id.clone();
    let second = world.cloud.launch(world.now, InstanceSpec::in_zone("us-west-1b")).instance_id;
    let both = [("InstanceId.1", first.as_str()), ("InstanceId.2", &second)];
    world.ok("StopInstances", &both);
    world.pass(60);
    world.arm(json!({"on": "StartInstances", "do": "fail_later", "resource": second})).unwrap();
    world.ok("StartInstances", &both);
    world.pass(45);
    assert_eq!(world.instance_state(), "running");
    assert_eq!(world.cloud.instance(&second).unwrap().state, "stopped");
}

#[test]
fn a_stop_that_hangs_lasts_fifteen_minutes_unless_it_is_forced() {
    let mut world = World::new();
    let mut rows = BTreeMap::new();
    let id = world.node.instance_id.clone();
    let fault = json!({"on": "StopInstances", "do": "fail_later", "times": 2});
    world.arm(fault).unwrap();
    world.power("StopInstances");
    world.restart(&mut rows);
    world.pass(15 * 60 - 1);
    assert_eq!(world.instance_state(), "stopping");
    world.pass(1);
    assert_eq!(world.instance_state(), "stopped");
    world.start_node();
    world.power("StopInstances");
    world.pass(100);
    let force = [("InstanceId.1", id.as_str()), ("Force", "true")];
    assert_eq!(changes(&world.ok("StopInstances", &force)), [pair("stopping", "stopping")]);
    world.pass(60);
    assert_eq!(world.instance_state(), "stopped");
    // The end that was planned for the stop that hung ends no later one.
    world.start_node();
    world.arm(json!({"on": "StopInstances", "do": "fail_later"})).unwrap();
    world.power("StopInstances");
    let span = world.seconds_of(World::instance_state);
    assert_eq!(span, 15 * 60);
}

#[test]
fn each_action_has_its_own_tokens() {
    for (action, capacity, per_second) in [
        ("CreateVolume", 100, 5),
        ("DeleteVolume", 100, 5),
        ("AttachVolume", 50, 5),
        ("DetachVolume", 50, 5),
        ("StopInstances", 50, 5),
        ("ModifyInstanceAttribute", 50, 5),
        ("StartInstances", 5, 2),
        ("DescribeVolumeStatus", 50, 10),
        ("DescribeAvailabilityZones", 50, 10),
    ] {
        let mut world = World::new();
        let mut granted = || {
            let mut count = 0;
            while world.call(action, &[]).0 != 503 {
                count += 1;
            }
            world.pass(1);
            count
        };
        assert_eq!((granted(), granted()), (capacity, per_second), "{action}");
    }
}
