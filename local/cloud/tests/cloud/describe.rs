//! Describes: ids, filters, wildcards, pages; tags.

use cloud::{InstanceSpec, VolumeSpec};

use crate::support::{World, texts};

fn filter<'a>(name: &'a str, value: &'a str) -> [(&'a str, &'a str); 2] {
    [("Filter.1.Name", name), ("Filter.1.Value.1", value)]
}

#[test]
fn snapshots_by_filter() {
    let mut world = World::new();
    let ids = world.create_set();
    world.pass(5);
    for (name, value, found) in [
        ("tag:backup", "b1", 3),
        ("tag:backup", "b*", 3),
        ("tag:backup", "b?", 3),
        ("tag:backup", "?", 0),
        ("tag:backup", "\\*1", 0),
        ("tag:backup", "B1", 0),
        ("tag-key", "backup", 3),
        ("tag-key", "back", 0),
        ("status", "pending", 3),
        ("status", "completed", 0),
        ("volume-id", world.node.volume_ids[0].clone().as_str(), 1),
        ("snapshot-id", ids[1].as_str(), 1),
        ("description", "", 3),
    ] {
        let body = world.ok("DescribeSnapshots", &filter(name, value));
        assert_eq!(texts(&body, "snapshotId").len(), found, "{name} {value}");
    }
    let both = [
        ("Filter.1.Name", "tag:backup"),
        ("Filter.1.Value.1", "b1"),
        ("Filter.2.Name", "snapshot-id"),
        ("Filter.2.Value.1", &ids[0]),
        ("Filter.2.Value.2", &ids[2]),
    ];
    let mut found = texts(&world.ok("DescribeSnapshots", &both), "snapshotId");
    found.sort();
    let mut wanted = vec![ids[0].clone(), ids[2].clone()];
    wanted.sort();
    assert_eq!(found, wanted, "filters are all to match, by any of their values");
    assert_eq!(
        world.refused("DescribeSnapshots", &filter("colour", "red")).1,
        "InvalidParameterValue"
    );
    let others = world.ok("DescribeSnapshots", &[("Owner.1", "amazon")]);
    assert!(texts(&others, "snapshotId").is_empty());
    let malformed = world.refused("DescribeSnapshots", &[("SnapshotId.1", "snap-xyz")]);
    assert_eq!(malformed.1, "InvalidSnapshotID.Malformed");
}

#[test]
fn pages_hold_each_snapshot_once() {
    let mut world = World::new();
    let mut made = Vec::new();
    for _ in 0..4 {
        made.extend(world.create_set());
        world.pass(15);
    }
    made.sort();
    let (mut seen, mut token, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let fields = [("MaxResults", "5"), ("NextToken", token.as_str())];
        let body = world.ok("DescribeSnapshots", &fields);
        let page = texts(&body, "snapshotId");
        sizes.push(page.len());
        seen.extend(page);
        let Some(next) = texts(&body, "nextToken").pop() else { break };
        assert!(!next.contains("snap"), "opaque");
        token = next;
    }
    assert_eq!(sizes, [5, 5, 2]);
    assert_eq!(seen, made);
    assert_eq!(
        world.refused("DescribeSnapshots", &[("MaxResults", "4")]).1,
        "InvalidParameterValue"
    );
    assert_eq!(world.refused("DescribeSnapshots", &[("NextToken", "zz")]).1, "InvalidNextToken");
}

#[test]
fn instances_and_their_volumes() {
    let mut world = World::new();
    let (instance, root) = (world.node.instance_id.clone(), world.node.root_volume_id.clone());
    let body = world.ok("DescribeInstances", &[("InstanceId.1", &instance)]);
    assert_eq!(texts(&body, "deviceName"), ["/dev/xvda", "/dev/sdf", "/dev/sdg"]);
    assert_eq!(texts(&body, "deleteOnTermination"), ["true", "false", "false"]);
    assert_eq!(texts(&body, "rootDeviceName"), ["/dev/xvda"]);
    assert_eq!(texts(&body, "availabilityZone"), ["us-west-1a"]);
    let running = world.ok("DescribeInstances", &filter("instance-state-name", "running"));
    assert_eq!(texts(&running, "instanceId"), [instance.as_str()]);
    let gone = [("InstanceId.1", "i-01234567"), ("InstanceId.2", "i-01234568")];
    let (_, body) = world.call("DescribeInstances", &gone);
    assert!(
        body.contains("The instance IDs &apos;i-01234567, i-01234568&apos; do not exist"),
        "{body}"
    );
    let both = [("InstanceId.1", instance.as_str()), ("MaxResults", "5")];
    assert_eq!(world.refused("DescribeInstances", &both).1, "InvalidParameterCombination");

    let body = world.ok("DescribeVolumes", &filter("attachment.instance-id", &instance));
    assert_eq!(texts(&body, "size").len(), 3);
    let data = world.ok("DescribeVolumes", &filter("tag:role", "data"));
    assert_eq!(texts(&data, "volumeType"), ["gp3", "gp3"]);
    assert_eq!(texts(&data, "iops"), ["3000", "3000"]);
    let one = world.ok("DescribeVolumes", &[("VolumeId.1", &root)]);
    assert_eq!(texts(&one, "size"), ["8"]);
    let missing = world.refused("DescribeVolumes", &[("VolumeId.1", "vol-01234567")]);
    assert_eq!(missing.1, "InvalidVolume.NotFound");
    let dry = world.refused("DescribeVolumes", &[("DryRun", "true")]);
    assert_eq!(dry, (412, "DryRunOperation".to_owned()));
}

#[test]
fn tags_come_and_go() {
    let mut world = World::new();
    let (instance, volume) = (world.node.instance_id.clone(), world.node.volume_ids[0].clone());
    let ids = [("ResourceId.1", instance.as_str()), ("ResourceId.2", volume.as_str())];
    let mut fields = ids.to_vec();
    fields.extend([("Tag.1.Key", "owner"), ("Tag.1.Value", "x"), ("Tag.2.Key", "empty")]);
    world.ok("CreateTags", &fields);
    let body = world.ok("DescribeTags", &filter("resource-id", &instance));
    assert_eq!(texts(&body, "key"), ["empty", "owner"]);
    assert_eq!(texts(&body, "value"), ["", "x"]);
    let body = world.ok("DescribeTags", &filter("tag:owner", "x"));
    assert_eq!(texts(&body, "resourceType"), ["instance", "volume"]);

    let mut fields = ids.to_vec();
    fields.extend([("Tag.1.Key", "owner"), ("Tag.1.Value", "other")]);
    world.ok("DeleteTags", &fields);
    fields.truncate(3);
    let body = world.ok("DescribeTags", &filter("key", "owner"));
    assert_eq!(texts(&body, "key").len(), 2, "another value's tag stays");
    world.ok("DeleteTags", &fields);
    let body = world.ok("DescribeTags", &filter("key", "owner"));
    assert_eq!(texts(&body, "key").len(), 0);

    let gone =
        [("ResourceId.1", instance.as_str()), ("ResourceId.2", "vol-01234567"), ("Tag.1.Key", "z")];
    assert_eq!(world.refused("CreateTags", &gone).1, "InvalidVolume.NotFound");
    let body = world.ok("DescribeTags", &filter("key", "z"));
    assert!(texts(&body, "key").is_empty(), "all or none");
}

#[test]
fn a_backslash_takes_a_wildcards_meaning_away() {
    let mut world = World::new();
    let volume = world.node.root_volume_id.clone();
    let tag = [("ResourceId.1", volume.as_str()), ("Tag.1.Key", "k"), ("Tag.1.Value", "a*c")];
    world.ok("CreateTags", &tag);
    for (value, found) in
        [("a\\*c", 1), ("a\\?c", 0), ("a?c", 1), ("*c", 1), ("a*b", 0), ("***", 1)]
    {
        let body = world.ok("DescribeVolumes", &filter("tag:k", value));
        assert_eq!(texts(&body, "volumeType").len(), found, "{value}");
    }
}

#[test]
fn deleting_tags_without_naming_any_leaves_those_of_aws() {
    let mut world = World::new();
    let mut spec = InstanceSpec::in_zone("us-west-1b");
    for key in ["aws:autoscaling:groupName", "owner", "role"] {
        spec.tags.insert(key.to_owned(), "x".to_owned());
    }
    let instance = world.cloud.launch(world.now, spec).instance_id;
    world.ok("DeleteTags", &[("ResourceId.1", &instance)]);
    let body = world.ok("DescribeTags", &filter("resource-id", &instance));
    assert_eq!(texts(&body, "key"), ["aws:autoscaling:groupName"]);
}

#[test]
fn a_filter_by_id_finds_what_a_filter_by_anything_finds() {
    let mut world = World::new();
    let (first, second) = (world.node.instance_id.clone(), world.create_set());
    let other = world.cloud.launch(world.now, InstanceSpec::in_zone("us-west-1b"));
    world.pass(5);
    let (snapshot, volume) = (second[1].clone(), world.node.volume_ids[0].clone());
    for (action, name, element, id, all) in [
        ("DescribeSnapshots", "snapshot-id", "snapshotId", &snapshot, 3),
        ("DescribeInstances", "instance-id", "instanceId", &other.instance_id, 2),
        ("DescribeVolumes", "volume-id", "createTime", &volume, 4),
    ] {
        let mut count = |fields: &[(&str, &str)]| texts(&world.ok(action, fields), element).len();
        let begin = format!("{}*", &id[..id.len() - 1]);
        let one = format!("{}?", &id[..id.len() - 1]);
        let escaped = format!("\\{id}");
        for value in [id.as_str(), &begin, &one, &escaped] {
            assert_eq!(count(&filter(name, value)), 1, "{name} {value}");
        }
        assert_eq!(count(&filter(name, "*")), all, "{name}");
        assert_eq!(count(&filter(name, "nothing-0")), 0, "{name}");
        let mixed = [
            ("Filter.1.Name", name),
            ("Filter.1.Value.1", "nothing-0"),
            ("Filter.1.Value.2", begin.as_str()),
        ];
        assert_eq!(count(&mixed), 1, "{name}: a plain value and a wildcard");
        let twice = [
            ("Filter.1.Name", name),
            ("Filter.1.Value.1", id.as_str()),
            ("Filter.2.Name", name),
            ("Filter.2.Value.1", "nothing-0"),
        ];
        assert_eq!(count(&twice), 0, "{name}: both must match");
    }
    let ids = [("InstanceId.1", first.as_str()), ("InstanceId.2", first.as_str())];
    assert_eq!(texts(&world.ok("DescribeInstances", &ids), "instanceId"), [first.as_str()]);
    let mut ids = ids.to_vec();
    ids.extend(filter("instance-id", &other.instance_id));
    assert!(texts(&world.ok("DescribeInstances", &ids), "instanceId").is_empty());
    let (low, high) = (second.iter().min().unwrap(), second.iter().max().unwrap());
    let backwards = [("SnapshotId.1", high.as_str()), ("SnapshotId.2", low.as_str())];
    let found = texts(&world.ok("DescribeSnapshots", &backwards), "snapshotId");
    assert_eq!(found, [low.as_str(), high], "in the order of all");
}

#[test]
fn a_volume_says_whether_several_may_have_it() {
    let mut world = World::new();
    let mut spec = InstanceSpec::in_zone("us-west-1b");
    spec.data = vec![VolumeSpec { multi_attach: true, ..VolumeSpec::gib(4) }];
    let node = world.cloud.launch(world.now, spec);
    for (volume, shown) in [(&node.volume_ids[0], "true"), (&node.root_volume_id, "false")] {
        let body = world.ok("DescribeVolumes", &[("VolumeId.1", volume)]);
        assert_eq!(texts(&body, "multiAttachEnabled"), [shown]);
    }
}
