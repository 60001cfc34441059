//! A small world and a client for it.

use std::collections::BTreeMap;

use cloud::{
    Cloud, Config, FaultSpec, InstanceSpec, Launched, Pace, Reply, Rule, Target, VolumeSpec,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub(crate) fn rule(name: &str, bus: &str, pattern: Value, function: &str) -> Rule {
    let target = Target::Function { function: function.to_owned(), retries: 2, max_age: 3600 };
    Rule { name: name.to_owned(), bus: bus.to_owned(), pattern, targets: vec![target] }
}

pub(crate) fn config() -> Config {
    Config {
        account: "123456789012".to_owned(),
        region: "us-west-1".to_owned(),
        zones: ["a", "b", "c"].map(|zone| format!("us-west-1{zone}")).to_vec(),
        speed: 1.0,
        stack_bus: "backups".to_owned(),
        rules: vec![
            rule("ebs", "default", json!({"source": ["aws.ec2"]}), "worker"),
            rule("requests", "backups", json!({"detail-type": ["Backup Requested"]}), "worker"),
        ],
        pace: Pace::default(),
    }
}

/// A cloud with one node, and the time.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) now: Timestamp,
    pub(crate) node: Launched,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(config(), 7)
    }

    pub(crate) fn with(config: Config, seed: u64) -> World {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let mut cloud = Cloud::new(config, seed, now);
        let mut spec = InstanceSpec::in_zone("us-west-1a");
        spec.data = vec![VolumeSpec::gib(50), VolumeSpec::gib(50)];
        for volume in &mut spec.data {
            volume.tags = BTreeMap::from([("role".to_owned(), "data".to_owned())]);
        }
        let node = cloud.launch(now, spec);
        World { cloud, now, node }
    }

    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.cloud.advance(self.now);
    }

    /// Until the snapshots of now have ended and their events have arrived.
    pub(crate) fn finish(&mut self) {
        self.pass(600);
    }

    pub(crate) fn raw(&mut self, action: &str, fields: &[(&str, &str)]) -> Reply {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("Action", action).append_pair("Version", "2016-11-15");
        body.extend_pairs(fields);
        self.cloud.ec2(self.now, body.finish().as_bytes())
    }

    /// Status and body.
    pub(crate) fn call(&mut self, action: &str, fields: &[(&str, &str)]) -> (u16, String) {
        answer(&self.raw(action, fields))
    }

    /// The body of a call that must succeed.
    pub(crate) fn ok(&mut self, action: &str, fields: &[(&str, &str)]) -> String {
        let (status, body) = self.call(action, fields);
        assert_eq!(status, 200, "{action} {fields:?}: {body}");
        body
    }

    /// Status and code of a call that must fail.
    pub(crate) fn refused(&mut self, action: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let (status, body) = self.call(action, fields);
        assert_ne!(status, 200, "{action} {fields:?}: {body}");
        (status, texts(&body, "Code").remove(0))
    }

    /// The ids of a set's snapshots, root first.
    pub(crate) fn create_set(&mut self) -> Vec<String> {
        let instance = self.node.instance_id.clone();
        let fields = [
            ("InstanceSpecification.InstanceId", instance.as_str()),
            ("TagSpecification.1.ResourceType", "snapshot"),
            ("TagSpecification.1.Tag.1.Key", "backup"),
            ("TagSpecification.1.Tag.1.Value", "b1"),
        ];
        texts(&self.ok("CreateSnapshots", &fields), "snapshotId")
    }

    pub(crate) fn create_one(&mut self) -> String {
        self.create_one_of(0)
    }

    /// Of the data volume of that number.
    pub(crate) fn create_one_of(&mut self, number: usize) -> String {
        let volume = self.node.volume_ids[number].clone();
        texts(&self.ok("CreateSnapshot", &[("VolumeId", &volume)]), "snapshotId").remove(0)
    }

    /// After a restart from all rows, which then are all saved.
    pub(crate) fn restart(&mut self, rows: &mut BTreeMap<String, String>) {
        for (key, value) in self.cloud.take_dirty() {
            match value {
                Some(json) => rows.insert(key, json),
                None => rows.remove(&key),
            };
        }
        self.cloud = Cloud::restore(config(), rows.clone()).unwrap();
        self.cloud.advance(self.now);
    }

    /// Ids that an unfiltered describe shows.
    pub(crate) fn shown(&mut self) -> Vec<String> {
        texts(&self.ok("DescribeSnapshots", &[("Owner.1", "self")]), "snapshotId")
    }

    pub(crate) fn state(&mut self) -> Value {
        self.cloud.advance(self.now);
        self.cloud.state(self.now)
    }

    /// The states of the snapshots that are there.
    pub(crate) fn snapshot_states(&mut self) -> Vec<String> {
        let state = self.state();
        let snapshots = state["snapshots"].as_array().unwrap().iter();
        snapshots.map(|s| s["state"].as_str().unwrap().to_owned()).collect()
    }

    /// The details of the events of a type that arrived.
    pub(crate) fn events(&mut self, detail_type: &str) -> Vec<Value> {
        let state = self.state();
        let events = state["events"].as_array().unwrap().iter();
        events
            .filter(|event| event["detail_type"] == detail_type)
            .map(|event| event["detail"].clone())
            .collect()
    }

    pub(crate) fn arm(&mut self, fault: Value) -> Result<(), String> {
        let fault: FaultSpec = serde_json::from_value(fault).map_err(|error| error.to_string())?;
        self.cloud.arm(fault)
    }

    /// Puts events on the stack's bus; the details as given.
    pub(crate) fn put(&mut self, entries: &Value) -> Reply {
        let body = json!({ "Entries": entries }).to_string();
        self.cloud.events(self.now, "AWSEvents.PutEvents", body.as_bytes())
    }
}

pub(crate) fn entry(detail_type: &str, detail: &Value) -> Value {
    json!({
        "Source": "supervisor", "DetailType": detail_type, "Detail": detail.to_string(),
        "EventBusName": "backups",
    })
}

pub(crate) fn answer(reply: &Reply) -> (u16, String) {
    match reply {
        Reply::Answer { status, body, .. } => (*status, String::from_utf8(body.clone()).unwrap()),
        other => panic!("no answer: {other:?}"),
    }
}

pub(crate) fn json_answer(reply: &Reply) -> Value {
    serde_json::from_str(&answer(reply).1).unwrap()
}

/// The texts of all elements of that name.
pub(crate) fn texts(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = xml.split(open.as_str()).skip(1);
    parts.map(|part| part.split(close.as_str()).next().unwrap().to_owned()).collect()
}

/// What a restore does, call by call.
impl World {
    /// A completed snapshot of the first data volume.
    pub(crate) fn snapshot(&mut self) -> String {
        let id = self.create_one();
        self.finish();
        id
    }

    /// A volume that a call with these fields makes, in the node's zone unless
    /// they say otherwise.
    pub(crate) fn create_volume(&mut self, fields: &[(&str, &str)]) -> String {
        let mut all = fields.to_vec();
        if !fields.iter().any(|(name, _)| *name == "AvailabilityZone") {
            all.push(("AvailabilityZone", "us-west-1a"));
        }
        texts(&self.ok("CreateVolume", &all), "volumeId").remove(0)
    }

    /// One of a GiB that is `available`.
    pub(crate) fn free_volume(&mut self) -> String {
        let id = self.create_volume(&[("Size", "1")]);
        self.pass(60);
        assert_eq!(self.volume_state(&id), "available");
        id
    }

    /// Its state, or `gone`.
    pub(crate) fn volume_state(&self, id: &str) -> &'static str {
        self.cloud.volume(id).map_or("gone", |volume| volume.state)
    }

    /// The state of its attachment, or `none`.
    pub(crate) fn attachment_state(&self, id: &str) -> &'static str {
        let volume = self.cloud.volume(id).unwrap();
        volume.attachment.map_or("none", |(_, state)| state)
    }

    /// Of the node.
    pub(crate) fn instance_state(&self) -> &'static str {
        self.cloud.instance(&self.node.instance_id).unwrap().state
    }

    /// The seconds until the state is another than now.
    pub(crate) fn seconds_of(&mut self, state: impl Fn(&World) -> &'static str) -> i64 {
        let before = state(self);
        for second in 1..=3_600 {
            self.pass(1);
            if state(self) != before {
                return second;
            }
        }
        panic!("it stays {before}");
    }

    /// Attaches it to the node, by the API.
    pub(crate) fn attach_at(&mut self, volume: &str, device: &str) -> (u16, String) {
        let instance = self.node.instance_id.clone();
        let fields = [("VolumeId", volume), ("InstanceId", &instance), ("Device", device)];
        self.call("AttachVolume", &fields)
    }

    pub(crate) fn detach(&mut self, volume: &str) -> (u16, String) {
        self.call("DetachVolume", &[("VolumeId", volume)])
    }

    pub(crate) fn stop_node(&mut self) {
        let instance = self.node.instance_id.clone();
        self.ok("StopInstances", &[("InstanceId.1", &instance)]);
        self.pass(60);
        assert_eq!(self.instance_state(), "stopped");
    }

    pub(crate) fn start_node(&mut self) {
        let instance = self.node.instance_id.clone();
        self.ok("StartInstances", &[("InstanceId.1", &instance)]);
        self.pass(45);
    }

    /// The volume events of that kind: result and cause.
    pub(crate) fn volume_events(&mut self, event: &str) -> Vec<(String, String)> {
        let mut events = self.events("EBS Volume Notification");
        events.retain(|one| one["event"] == event);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut seen: Vec<_> =
            events.iter().map(|one| (text(&one["result"]), text(&one["cause"]))).collect();
        seen.dedup();
        seen
    }
}

/// The code of a call that must have failed.
pub(crate) fn code(answer: &(u16, String)) -> String {
    assert_ne!(answer.0, 200, "{}", answer.1);
    texts(&answer.1, "Code").remove(0)
}
