//! Instances' attributes and what else is described of them.

use cloud::{InstanceSpec, InstanceTraits, SpotRequest};
use serde_json::json;

use crate::support::{World, config, texts};

impl World {
    fn attribute(&mut self, name: &str) -> String {
        let id = self.node.instance_id.clone();
        self.ok("DescribeInstanceAttribute", &[("InstanceId", &id), ("Attribute", name)])
    }

    fn modify(&mut self, fields: &[(&str, &str)]) -> (u16, String) {
        let id = self.node.instance_id.clone();
        let mut all = vec![("InstanceId", id.as_str())];
        all.extend(fields);
        self.call("ModifyInstanceAttribute", &all)
    }
}

#[test]
fn an_instance_is_described_with_what_else_it_is() {
    let mut world = World::new();
    let body = world.ok("DescribeInstances", &[]);
    for (element, shown) in [("configured", "false"), ("managed", "false")] {
        assert_eq!(texts(&body, element), [shown]);
    }
    for element in ["instanceLifecycle", "spotInstanceRequestId", "principal", "stateReason"] {
        assert!(texts(&body, element).is_empty(), "{element}");
    }
    let mut spec = InstanceSpec::in_zone("us-west-1b");
    spec.traits = InstanceTraits {
        spot: Some(SpotRequest::Persistent),
        hibernation: true,
        operator: Some("eks.amazonaws.com".to_owned()),
        stop_protection: true,
        ..InstanceTraits::default()
    };
    world.node = world.cloud.launch(world.now, spec.clone());
    let id = world.node.instance_id.clone();
    let body = world.ok("DescribeInstances", &[("InstanceId.1", &id)]);
    for (element, shown) in [
        ("configured", "true"),
        ("managed", "true"),
        ("principal", "eks.amazonaws.com"),
        ("instanceLifecycle", "spot"),
        ("rootDeviceName", "/dev/xvda"),
    ] {
        assert_eq!(texts(&body, element), [shown], "{element}");
    }
    let request = texts(&body, "spotInstanceRequestId").remove(0);
    let seen = world.cloud.instance(&id).unwrap();
    assert_eq!(*seen.traits, spec.traits);
    let body = world.ok("DescribeSpotInstanceRequests", &[("SpotInstanceRequestId.1", &request)]);
    let shown = ["type", "instanceId", "state"].map(|name| texts(&body, name).remove(0));
    assert_eq!(shown, ["persistent", id.as_str(), "active"]);
    let once = InstanceTraits { spot: Some(SpotRequest::OneTime), ..InstanceTraits::default() };
    world.cloud.set_traits(world.now, &id, once).unwrap();
    let of_type = [("Filter.1.Name", "type"), ("Filter.1.Value.1", "one-time")];
    let body = world.ok("DescribeSpotInstanceRequests", &of_type);
    assert_eq!(texts(&body, "spotInstanceRequestId"), [request], "the same request");
    let unknown = [("SpotInstanceRequestId.1", "sir-00000000")];
    let refused = world.refused("DescribeSpotInstanceRequests", &unknown).1;
    assert_eq!(refused, "InvalidSpotInstanceRequestID.NotFound");
    world.cloud.set_traits(world.now, &id, InstanceTraits::default()).unwrap();
    let body = world.ok("DescribeSpotInstanceRequests", &[]);
    assert!(texts(&body, "type").is_empty());
    assert!(world.cloud.set_traits(world.now, "i-01234567", InstanceTraits::default()).is_err());
}

#[test]
fn only_aws_sets_tags_of_its_own() {
    let mut world = World::new();
    let id = world.node.instance_id.clone();
    let key = "aws:autoscaling:groupName";
    let tag = [("ResourceId.1", id.as_str()), ("Tag.1.Key", key), ("Tag.1.Value", "g")];
    assert_eq!(world.refused("CreateTags", &tag).1, "InvalidParameterValue");
    world.cloud.tag_as_aws(world.now, &id, key, "g").unwrap();
    assert_eq!(world.cloud.instance(&id).unwrap().tags.get(key).map(String::as_str), Some("g"));
    let body =
        world.ok("DescribeInstances", &[("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", key)]);
    assert_eq!(texts(&body, "instanceId"), [id]);
    assert!(world.cloud.tag_as_aws(world.now, "i-01234567", key, "g").is_err());
}

#[test]
fn attributes_are_described_one_at_a_time() {
    let mut world = World::new();
    for (name, value) in [
        ("disableApiStop", "false"),
        ("disableApiTermination", "false"),
        ("rootDeviceName", "/dev/xvda"),
        ("instanceType", "m7g.large"),
    ] {
        let body = world.attribute(name);
        assert_eq!(texts(&texts(&body, name)[0], "value"), [value]);
    }
    let body = world.attribute("blockDeviceMapping");
    assert_eq!(texts(&body, "deviceName"), ["/dev/xvda", "/dev/sdf", "/dev/sdg"]);
    assert_eq!(texts(&body, "status"), ["attached"; 3]);
    let id = world.node.instance_id.clone();
    let action = "DescribeInstanceAttribute";
    for (fields, wanted) in [
        (&[("InstanceId", id.as_str())][..], "MissingParameter"),
        (&[("InstanceId", &id), ("Attribute", "x")], "InvalidParameterValue"),
        (&[("InstanceId", "i-01234567"), ("Attribute", "x")], "InvalidInstanceID.NotFound"),
        (
            &[("InstanceId", &id), ("Attribute", "instanceType"), ("DryRun", "true")],
            "DryRunOperation",
        ),
    ] {
        assert_eq!(world.refused(action, fields).1, wanted);
    }
}

#[test]
fn attributes_are_modified_one_at_a_time() {
    let mut world = World::new();
    let device = |n: usize, name: &'static str| {
        (["BlockDeviceMapping.1.DeviceName", "BlockDeviceMapping.2.DeviceName"][n], name)
    };
    let goes = |n: usize, yes: &'static str| {
        let names = [
            "BlockDeviceMapping.1.Ebs.DeleteOnTermination",
            "BlockDeviceMapping.2.Ebs.DeleteOnTermination",
        ];
        (names[n], yes)
    };
    let shown = |world: &mut World| {
        texts(&world.attribute("blockDeviceMapping"), "deleteOnTermination").join(" ")
    };
    assert_eq!(shown(&mut world), "true false false");
    assert_eq!(world.modify(&[device(0, "/dev/sdf")]).0, 200);
    assert_eq!(shown(&mut world), "true true false", "omitted it means true");
    let both = [device(0, "/dev/sdf"), goes(0, "false"), device(1, "/dev/sdg"), goes(1, "true")];
    let mut dry = both.to_vec();
    dry.push(("DryRun", "true"));
    assert_eq!(crate::support::code(&world.modify(&dry)), "DryRunOperation");
    assert_eq!(shown(&mut world), "true true false");
    assert_eq!(world.modify(&both).0, 200);
    assert_eq!(shown(&mut world), "true false true");
    for (fields, wanted) in [
        (&[device(0, "/dev/sdf"), device(1, "/dev/sdz")][..], "InvalidInstanceAttributeValue"),
        (&[goes(0, "true")], "MissingParameter"),
        (&[device(0, "/dev/sdf"), goes(0, "maybe")], "InvalidParameterValue"),
        (&[device(0, "/dev/sdf"), ("DisableApiStop.Value", "true")], "InvalidParameterCombination"),
        (&[], "InvalidParameterCombination"),
    ] {
        assert_eq!(crate::support::code(&world.modify(fields)), wanted, "{fields:?}");
    }
    assert_eq!(shown(&mut world), "true false true", "all or none");
    let late = world.free_volume();
    world.attach_at(&late, "/dev/sdz");
    let refused = crate::support::code(&world.modify(&[device(0, "/dev/sdz")]));
    assert_eq!(refused, "InvalidInstanceAttributeValue", "it is only being attached");
    world.pass(8);
    assert_eq!(world.modify(&[device(0, "/dev/sdz")]).0, 200);
    assert_eq!(world.cloud.volume(&late).unwrap().attached, Some(("/dev/sdz", true)));

    assert_eq!(world.modify(&[("DisableApiStop.Value", "true")]).0, 200);
    assert_eq!(texts(&world.attribute("disableApiStop"), "value"), ["true"]);
    assert_eq!(world.modify(&[("DisableApiTermination.Value", "true")]).0, 200);
    assert_eq!(texts(&world.attribute("disableApiTermination"), "value"), ["true"]);
    let id = world.node.instance_id.clone();
    let spot = InstanceTraits { spot: Some(SpotRequest::Persistent), ..InstanceTraits::default() };
    world.cloud.set_traits(world.now, &id, spot).unwrap();
    let refused = world.modify(&[("DisableApiStop.Value", "true")]);
    assert_eq!(crate::support::code(&refused), "UnsupportedOperation");
}

#[test]
fn types_and_zones_are_described() {
    let mut world = World::new();
    let body = world.ok("DescribeInstanceTypes", &[]);
    assert_eq!(texts(&body, "instanceType"), ["m7g.large"]);
    let wrong = [("InstanceType.1", "m7g.large"), ("InstanceType.2", "large")];
    assert_eq!(world.refused("DescribeInstanceTypes", &wrong).1, "InvalidInstanceType");
    let body = world.ok("DescribeAvailabilityZones", &[]);
    assert_eq!(texts(&body, "zoneName"), ["us-west-1a", "us-west-1b", "us-west-1c"]);
    assert_eq!(texts(&body, "zoneId"), ["usw1-az1", "usw1-az2", "usw1-az3"]);
    assert_eq!(texts(&body, "zoneState"), ["available"; 3]);
    let body = world.ok("DescribeAvailabilityZones", &[("ZoneName.1", "us-west-1b")]);
    assert_eq!(texts(&body, "zoneId"), ["usw1-az2"]);
    let unknown = [("ZoneName.1", "us-west-1z")];
    assert_eq!(world.refused("DescribeAvailabilityZones", &unknown).1, "InvalidParameterValue");
}

#[test]
fn the_state_shows_attachments_and_traits() {
    let mut world = World::with(config(), 7);
    let id = world.free_volume();
    world.attach_at(&id, "/dev/sdz");
    let state = world.state();
    let attachments = state["instances"][0]["attachments"].as_array().unwrap().clone();
    let states: Vec<_> = attachments.iter().map(|a| a["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["attached", "attached", "attached", "attaching"]);
    let node = world.node.instance_id.clone();
    let traits = InstanceTraits { spot: Some(SpotRequest::OneTime), ..InstanceTraits::default() };
    world.cloud.set_traits(world.now, &node, traits).unwrap();
    world.cloud.stop(world.now, &node).unwrap();
    let shown = &world.state()["instances"][0];
    assert_eq!(shown["state_reason"], "Client.UserInitiatedShutdown");
    assert_eq!(
        shown["traits"],
        json!({
            "stop_protection": false, "termination_protection": false, "spot": "one_time",
            "hibernation": false, "operator": null,
        })
    );
    let made = world.create_volume(&[("Size", "1")]);
    let state = world.state();
    let volumes = state["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|v| v["volume_id"] == *made).unwrap();
    assert_eq!((&volume["state"], &volume["snapshot_id"]), (&json!("creating"), &json!(null)));
}
