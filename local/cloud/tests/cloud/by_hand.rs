//! What a person does in the console: stop, start, terminate, attach, detach;
//! and what can befall a snapshot that is being copied.

use std::collections::{BTreeMap, BTreeSet};

use cloud::VolumeSpec;
use jiff::{SignedDuration, Timestamp};

use crate::support::{World, config, texts};

const SET_EVENT: &str = "EBS Multi-Volume Snapshots Completion Status";
const EVENT: &str = "EBS Snapshot Notification";
const INSTANCE_EVENT: &str = "EC2 Instance State-change Notification";

impl World {
    fn stop(&mut self) -> Result<(), String> {
        self.cloud.stop(self.now, &self.node.instance_id)
    }

    fn start(&mut self) -> Result<(), String> {
        self.cloud.start(self.now, &self.node.instance_id)
    }

    fn terminate(&mut self) {
        self.cloud.terminate(self.now, &self.node.instance_id).unwrap();
    }

    /// What `DescribeInstances` says of its state: code and name, and why.
    fn described(&mut self) -> (String, String, Vec<String>) {
        let body = self.ok("DescribeInstances", &[]);
        let state = texts(&body, "instanceState").remove(0);
        let reason = texts(&body, "reason");
        (texts(&state, "code").remove(0), texts(&state, "name").remove(0), reason)
    }

    /// The states in the events of its instance.
    fn told(&mut self) -> BTreeSet<String> {
        let events = self.events(INSTANCE_EVENT);
        assert!(events.iter().all(|event| event["instance-id"] == *self.node.instance_id));
        events.iter().map(|event| event["state"].as_str().unwrap().to_owned()).collect()
    }

    fn write(&mut self) -> Result<(), String> {
        self.cloud.write(self.now, &self.node.volume_ids[0], "x")
    }

    fn snapshot_state(&self, id: &str) -> &'static str {
        self.cloud.snapshot(id).unwrap().state
    }

    fn progress(&mut self, id: &str) -> u32 {
        let state = self.state();
        let mut snapshots = state["snapshots"].as_array().unwrap().iter();
        let snapshot = snapshots.find(|s| s["snapshot_id"] == *id).unwrap();
        snapshot["progress"].as_str().unwrap().trim_end_matches('%').parse().unwrap()
    }

    fn ended_at(&self, id: &str) -> Option<Timestamp> {
        self.cloud.snapshot(id).unwrap().ended_at
    }

    fn ahead(&self, seconds: i64) -> Timestamp {
        self.now + SignedDuration::from_secs(seconds)
    }

    fn stall(&mut self, id: &str, seconds: i64) -> Result<(), String> {
        let until = self.ahead(seconds);
        self.cloud.stall(self.now, id, until)
    }
}

fn names(states: &[&str]) -> BTreeSet<String> {
    states.iter().map(|state| (*state).to_owned()).collect()
}

#[test]
fn an_instance_stops_and_starts_and_keeps_its_volumes() {
    let mut spans = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::with(config(), seed);
        let launched = texts(&world.ok("DescribeInstances", &[]), "launchTime");
        world.stop().unwrap();
        let reason = vec!["Client.UserInitiatedShutdown: User initiated shutdown".to_owned()];
        let shown = ("64".to_owned(), "stopping".to_owned(), reason.clone());
        assert_eq!(world.described(), shown);
        assert!(world.write().unwrap_err().contains("stopping"));
        assert_eq!(world.create_set().len(), 3, "a stopping one has its volumes");
        world.pass(19);
        assert_eq!(world.instance_state(), "stopping");
        let mut span = 19;
        while world.instance_state() == "stopping" {
            world.pass(1);
            span += 1;
        }
        assert!((20..=60).contains(&span), "{span}");
        spans.insert(span);
        assert_eq!(world.described(), ("80".to_owned(), "stopped".to_owned(), reason));
        assert!(world.write().unwrap_err().contains("stopped"));
        assert_eq!(world.create_set().len(), 3, "so has a stopped one");
        let attached = [("Filter.1.Name", "status"), ("Filter.1.Value.1", "in-use")];
        assert_eq!(texts(&world.ok("DescribeVolumes", &attached), "createTime").len(), 3);
        world.pass(10);
        assert_eq!(world.told(), names(&["stopping", "stopped"]));

        world.start().unwrap();
        assert_eq!(world.described(), ("0".to_owned(), "pending".to_owned(), vec![]));
        assert!(world.write().unwrap_err().contains("pending"));
        world.pass(14);
        assert_eq!(world.instance_state(), "pending");
        world.pass(31);
        assert_eq!(world.described(), ("16".to_owned(), "running".to_owned(), vec![]));
        assert_eq!(world.cloud.instance(&world.node.instance_id).unwrap().data_volumes.len(), 2);
        assert_ne!(texts(&world.ok("DescribeInstances", &[]), "launchTime"), launched);
        world.write().unwrap();
        world.pass(10);
        assert_eq!(world.told(), names(&["stopping", "stopped", "pending", "running"]));
    }
    assert!(spans.len() > 5, "{spans:?}");
}

#[test]
fn a_termination_wins_over_a_stop_and_a_start() {
    for seed in 0..20 {
        for before in ["stopping", "stopped", "pending"] {
            let mut world = World::with(config(), seed);
            world.stop().unwrap();
            if before != "stopping" {
                world.pass(60);
            }
            if before == "pending" {
                world.start().unwrap();
            }
            assert_eq!(world.instance_state(), before);
            world.terminate();
            assert_eq!(world.instance_state(), "shutting-down");
            assert!(world.stop().unwrap_err().contains("shutting-down"));
            assert!(world.start().unwrap_err().contains("shutting-down"));
            let mut seen = vec!["shutting-down"];
            for _ in 0..120 {
                world.pass(1);
                seen.push(world.instance_state());
            }
            seen.dedup();
            assert_eq!(seen, ["shutting-down", "terminated"]);
            assert!(!world.told().contains("running"), "no start ends");
            assert_eq!(world.told().contains("stopped"), before != "stopping");
            assert!(world.stop().unwrap_err().contains("terminated"));
            assert!(world.start().unwrap_err().contains("terminated"));
            world.terminate();
            assert_eq!(world.instance_state(), "terminated");
        }
    }
}

#[test]
fn what_stops_or_starts_already_is_left_to_it_and_the_other_way_is_refused() {
    let mut world = World::new();
    world.start().unwrap();
    assert_eq!(world.instance_state(), "running");
    world.stop().unwrap();
    world.pass(10);
    world.stop().unwrap();
    assert!(world.start().unwrap_err().contains("stopping"));
    world.pass(50);
    assert_eq!(world.instance_state(), "stopped", "the second stop did not delay the first");
    world.stop().unwrap();
    assert_eq!(world.instance_state(), "stopped");
    world.start().unwrap();
    assert!(world.stop().unwrap_err().contains("pending"));
    world.start().unwrap();
    world.pass(45);
    assert_eq!(world.instance_state(), "running");
    assert!(world.cloud.stop(world.now, "i-01234567").unwrap_err().contains("i-01234567"));
    assert!(world.cloud.start(world.now, "i-01234567").unwrap_err().contains("i-01234567"));
}

#[test]
fn an_attached_volume_is_like_one_launched() {
    let mut world = World::new();
    let instance = world.node.instance_id.clone();
    let mut spec = VolumeSpec::gib(7);
    spec.tags = BTreeMap::from([("role".to_owned(), "late".to_owned())]);
    spec.delete_on_termination = true;
    spec.multi_attach = true;
    let id = world.cloud.attach(world.now, &instance, spec).unwrap();
    let body = world.ok("DescribeVolumes", &[("VolumeId.1", &id)]);
    for (name, value) in [
        ("device", "/dev/sdh"),
        ("instanceId", instance.as_str()),
        ("availabilityZone", "us-west-1a"),
        ("size", "7"),
        ("value", "late"),
        ("deleteOnTermination", "true"),
        ("multiAttachEnabled", "true"),
    ] {
        assert_eq!(texts(&body, name), [value], "{name}");
    }
    world.cloud.write(world.now, &id, "x").unwrap();
    assert_eq!(world.create_set().len(), 4);
    world.stop().unwrap();
    world.pass(60);
    let second = world.cloud.attach(world.now, &instance, VolumeSpec::gib(1)).unwrap();
    let body = world.ok("DescribeVolumes", &[("VolumeId.1", &second)]);
    assert_eq!(texts(&body, "device"), ["/dev/sdi"], "also to a stopped one");

    world.terminate();
    let refused = |world: &mut World| {
        world.cloud.attach(world.now, &instance, VolumeSpec::gib(1)).unwrap_err()
    };
    assert!(refused(&mut world).contains("shutting-down"));
    world.pass(60);
    assert!(refused(&mut world).contains("terminated"));
    world.pass(3600);
    assert!(refused(&mut world).contains("no instance"));
    let left = world.state()["volumes"].to_string();
    assert!(!left.contains(&id) && left.contains(&second), "{left}");
}

#[test]
fn devices_run_out_and_a_freed_one_is_given_again() {
    let mut world = World::new();
    let instance = world.node.instance_id.clone();
    let mut devices = 2;
    let refused = loop {
        match world.cloud.attach(world.now, &instance, VolumeSpec::gib(1)) {
            Ok(_) => devices += 1,
            Err(why) => break why,
        }
    };
    assert!(refused.contains("no device left"), "{refused}");
    assert_eq!(devices, 11 + 25 * 26);
    let seen = world.cloud.instance(&instance).unwrap();
    let given: BTreeSet<&str> = seen.data_volumes.iter().map(|(_, device)| *device).collect();
    assert_eq!(given.len(), devices, "none twice");
    let (gone, device) = seen.data_volumes[400];
    let (gone, device) = (gone.to_owned(), device.to_owned());
    world.cloud.detach(world.now, &gone).unwrap();
    let new = world.cloud.attach(world.now, &instance, VolumeSpec::gib(1)).unwrap();
    let seen = world.cloud.instance(&instance).unwrap();
    assert_eq!(seen.data_volumes[400], (new.as_str(), device.as_str()));
}

#[test]
fn a_detached_volume_stays_and_goes_its_own_way() {
    let mut world = World::new();
    let (instance, data) = (world.node.instance_id.clone(), world.node.volume_ids.clone());
    let root = world.node.root_volume_id.clone();
    let spec = VolumeSpec { delete_on_termination: true, ..VolumeSpec::gib(1) };
    let late = world.cloud.attach(world.now, &instance, spec).unwrap();
    assert!(world.cloud.detach(world.now, &root).unwrap_err().contains("root"));
    assert!(world.cloud.detach(world.now, "vol-01234567").unwrap_err().contains("no volume"));
    for volume in [&data[0], &late] {
        world.cloud.detach(world.now, volume).unwrap();
        let body = world.ok("DescribeVolumes", &[("VolumeId.1", volume)]);
        assert_eq!(texts(&body, "status"), ["available"]);
        let again = world.cloud.detach(world.now, volume).unwrap_err();
        assert!(again.contains("attached to no instance"), "{again}");
    }
    assert!(world.write().unwrap_err().contains("attached to no instance"));
    let body = world.ok("DescribeInstances", &[("InstanceId.1", &instance)]);
    assert_eq!(texts(&body, "deviceName"), ["/dev/xvda", "/dev/sdg"]);
    assert_eq!(world.create_set().len(), 2);
    world.ok("CreateSnapshot", &[("VolumeId", &late)]);
    world.terminate();
    world.pass(60);
    let left = world.state()["volumes"].to_string();
    assert!(left.contains(&late) && !left.contains(&root), "{left}");
    world.cloud.delete(world.now, &late).unwrap();
}

#[test]
fn a_doomed_snapshot_ends_in_error_when_it_would_have_ended() {
    let (mut plain, mut doomed) = (World::new(), World::new());
    let id = plain.create_one();
    assert_eq!(doomed.create_one(), id);
    doomed.pass(100);
    doomed.cloud.doom(doomed.now, &id).unwrap();
    assert_eq!(doomed.snapshot_state(&id), "pending");
    doomed.pass(500);
    plain.finish();
    assert_eq!((plain.snapshot_state(&id), doomed.snapshot_state(&id)), ("completed", "error"));
    assert_eq!(plain.ended_at(&id), doomed.ended_at(&id));
    assert!(doomed.events(EVENT).iter().all(|event| event["result"] == "failed"));
    for world in [&mut plain, &mut doomed] {
        let state = world.snapshot_state(&id);
        assert!(world.cloud.doom(world.now, &id).unwrap_err().contains(state));
        world.cloud.delete(world.now, &id).unwrap();
        assert!(world.cloud.doom(world.now, &id).unwrap_err().contains("no snapshot"));
    }
    let unknown = plain.cloud.doom(plain.now, "snap-01234567").unwrap_err();
    assert!(unknown.contains("no snapshot"));
}

#[test]
fn a_doomed_snapshot_takes_its_set_with_it() {
    let mut world = World::new();
    let ids = world.create_set();
    world.cloud.doom(world.now, &ids[2]).unwrap();
    world.finish();
    assert_eq!(world.snapshot_states(), ["error"; 3]);
    let set = world.events(SET_EVENT).remove(0);
    assert_eq!(set["cause"], format!("Snapshot {} is in status error", ids[2]));
}

#[test]
fn a_stalled_snapshot_stands_still_and_then_ends_at_once() {
    for seed in 0..10 {
        let mut world = World::with(config(), seed);
        let id = world.create_one();
        world.pass(60);
        let frozen = world.progress(&id);
        assert!(frozen > 0);
        let until = world.ahead(1_000);
        world.stall(&id, 1_000).unwrap();
        for _ in 0..999 {
            world.pass(1);
            assert_eq!((world.snapshot_state(&id), world.progress(&id)), ("pending", frozen));
        }
        let body = world.ok("DescribeSnapshots", &[("SnapshotId.1", &id)]);
        assert_eq!(texts(&body, "progress"), [format!("{frozen}%")]);
        assert!(world.events(EVENT).is_empty());
        world.pass(1);
        assert_eq!((world.snapshot_state(&id), world.progress(&id)), ("completed", 100));
        assert_eq!(world.ended_at(&id), Some(until));
        world.pass(10);
        assert!(world.events(EVENT).iter().all(|event| event["result"] == "succeeded"));
        assert!(!world.events(EVENT).is_empty());
    }
}

#[test]
fn a_driver_that_sleeps_through_a_stall_finds_it_ended_at_its_time() {
    let mut world = World::new();
    let id = world.create_one();
    let until = world.ahead(1_000);
    world.stall(&id, 1_000).unwrap();
    world.pass(5_000);
    assert_eq!((world.snapshot_state(&id), world.ended_at(&id)), ("completed", Some(until)));
}

#[test]
fn a_stall_that_is_over_in_time_delays_nothing() {
    for seconds in [-5, 0, 1, 100] {
        let (mut plain, mut stalled) = (World::new(), World::new());
        let id = plain.create_one();
        stalled.create_one();
        stalled.pass(10);
        stalled.stall(&id, seconds).unwrap();
        let mut seen = Vec::new();
        for _ in 0..590 {
            stalled.pass(1);
            seen.push(stalled.progress(&id));
        }
        plain.finish();
        assert!(seen.is_sorted() && seen.last() == Some(&100), "{seen:?}");
        assert_eq!(stalled.ended_at(&id), plain.ended_at(&id), "{seconds}");
        assert_eq!(stalled.events(EVENT).len(), plain.events(EVENT).len());
    }
}

#[test]
fn of_two_stalls_the_longer_holds() {
    for (first, second) in [(900, 600), (600, 890)] {
        let mut world = World::new();
        let id = world.create_one();
        world.pass(60);
        let frozen = world.progress(&id);
        let started = world.now;
        world.stall(&id, first).unwrap();
        world.pass(10);
        world.stall(&id, second).unwrap();
        world.pass(889);
        assert_eq!((world.snapshot_state(&id), world.progress(&id)), ("pending", frozen));
        world.pass(20);
        assert_eq!(world.ended_at(&id), Some(started + SignedDuration::from_secs(900)));
        let kinds: BTreeSet<String> = world.events(EVENT).iter().map(ToString::to_string).collect();
        assert!(kinds.len() <= 1, "it ended once: {kinds:?}");
    }
}

#[test]
fn a_stalled_one_fails_is_deleted_and_holds_its_set_as_any_other() {
    let mut world = World::new();
    let ids = world.create_set();
    world.stall(&ids[0], 1_000).unwrap();
    world.finish();
    assert_eq!(world.snapshot_state(&ids[0]), "pending");
    assert!(world.events(SET_EVENT).is_empty(), "the set waits");
    world.finish();
    assert_eq!(world.snapshot_states(), ["completed"; 3]);
    assert_eq!(world.events(SET_EVENT)[0]["result"], "succeeded");

    let mut world = World::new();
    let id = world.create_one();
    world.stall(&id, 1_000).unwrap();
    world.cloud.doom(world.now, &id).unwrap();
    world.pass(999);
    assert_eq!(world.snapshot_state(&id), "pending");
    world.pass(1);
    assert_eq!(world.snapshot_state(&id), "error");

    let mut world = World::new();
    let id = world.create_one();
    world.stall(&id, 1_000).unwrap();
    world.cloud.delete(world.now, &id).unwrap();
    world.pass(999);
    assert!(world.cloud.snapshot(&id).unwrap().exists);
    world.pass(1);
    assert!(world.cloud.snapshot(&id).is_none_or(|s| !s.exists));

    let mut world = World::new();
    let ids = world.create_set();
    world.pass(60);
    world.stall(&ids[0], 1_000).unwrap();
    let frozen = world.progress(&ids[0]);
    world.cloud.doom(world.now, &ids[1]).unwrap();
    world.finish();
    assert_eq!(world.snapshot_states(), ["error"; 3], "its set fails it");
    assert_eq!(world.progress(&ids[0]), frozen);
    let ended = world.ended_at(&ids[0]);
    world.finish();
    assert_eq!((world.snapshot_state(&ids[0]), world.ended_at(&ids[0])), ("error", ended));
}

#[test]
fn a_stall_is_refused_where_nothing_is_copied() {
    let mut world = World::new();
    let id = world.create_one();
    world.finish();
    assert!(world.stall(&id, 10).unwrap_err().contains("completed"));
    assert!(world.stall("snap-01234567", 10).unwrap_err().contains("no snapshot"));
    world.cloud.delete(world.now, &id).unwrap();
    assert!(world.stall(&id, 10).unwrap_err().contains("no snapshot"));
}

#[test]
fn all_of_it_goes_on_after_a_restart() {
    let run = |restarts: bool| {
        let mut world = World::new();
        let mut rows = BTreeMap::new();
        let mut seen = Vec::new();
        let ids = world.create_set();
        let instance = world.node.instance_id.clone();
        for n in 0..90 {
            match n {
                3 => world.stall(&ids[0], 700).unwrap(),
                4 => world.stop().unwrap(),
                12 => world.start().unwrap(),
                16 => {
                    let spec = VolumeSpec { multi_attach: true, ..VolumeSpec::gib(2) };
                    world.cloud.attach(world.now, &instance, spec).unwrap();
                }
                17 => world.cloud.detach(world.now, &world.node.volume_ids[0]).unwrap(),
                18 => {
                    let id = world.create_one_of(1);
                    world.cloud.doom(world.now, &id).unwrap();
                }
                20 => world.terminate(),
                _ => {}
            }
            world.pass(10);
            if restarts {
                world.restart(&mut rows);
            }
            seen.push(world.state());
            seen.push(world.ok("DescribeVolumes", &[("MaxResults", "100")]).into());
        }
        if restarts {
            let snapshots = rows.iter().filter(|(key, _)| key.starts_with("snapshot/"));
            let stalls = snapshots.filter(|(_, json)| json.contains("stall"));
            assert_eq!(stalls.count(), 1, "the others are as rows without the field");
        }
        seen
    };
    for (n, (plain, restarted)) in run(false).iter().zip(&run(true)).enumerate() {
        assert_eq!(plain, restarted, "at {n}");
    }
}
