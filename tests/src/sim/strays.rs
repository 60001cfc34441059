//! What makes work for the reconciliation: things with our tags that no call of ours made.

use fastrand::Rng;
use jiff::Timestamp;
use serde_json::Value;

use super::call::snapshot_ids;
use super::world::World;

/// So many a script makes that goes wrong: more than a run deletes.
const FLOOD: usize = 108;

/// And so many of them at a time, each of another volume: EC2 lets nobody take a second
/// one of the same within 15 s.
const WAVE: usize = 6;

/// The tags of the stack and of its table.
fn tags_of_stack(world: &World) -> Option<Vec<(String, String)>> {
    let row = world.table.rows().get(&("STACK".to_owned(), "TABLE".to_owned()))?;
    let table = row["table_id"].as_str()?.to_owned();
    let environment = &world.template.function(local::Name::Worker).ok()?.environment;
    let stack = environment.get("STACK_NAME")?.clone();
    Some(vec![("ld:stack".to_owned(), stack), ("ld:table".to_owned(), table)])
}

/// Asks EC2, as somebody else.
fn asks(
    world: &mut World,
    now: Timestamp,
    fields: &[(&str, &str)],
    kind: &str,
    tags: &[(String, String)],
) -> Option<Vec<u8>> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Version", "2016-11-15");
    form.extend_pairs(fields);
    if !tags.is_empty() {
        form.append_pair("TagSpecification.1.ResourceType", kind);
    }
    for (number, (key, value)) in (1..).zip(tags) {
        form.append_pair(&format!("TagSpecification.1.Tag.{number}.Key"), key);
        form.append_pair(&format!("TagSpecification.1.Tag.{number}.Value"), value);
    }
    match world.cloud.ec2(now, form.finish().as_bytes()) {
        cloud::Reply::Answer { status: 200, body, .. } => Some(body),
        _ => None,
    }
}

fn volumes(world: &World) -> Vec<String> {
    let all = world.cloud.instances().flat_map(|one| one.data_volumes.clone());
    all.map(|(volume, _)| volume.to_owned()).collect()
}

/// A snapshot of a backup that never was.
pub(super) fn rowless(world: &mut World, rng: &mut Rng, now: Timestamp) -> Option<String> {
    let volume = rng.choice(volumes(world))?;
    let deployment =
        rng.choice(world.scene.deployments.iter().map(|one| one.id).collect::<Vec<_>>())?;
    let mut tags = tags_of_stack(world)?;
    tags.push(("ld:deployment".to_owned(), deployment.to_string()));
    tags.push(("ld:backup".to_owned(), rng.u32(1_000_000..).to_string()));
    tags.push(("ld:node".to_owned(), "1".to_owned()));
    let fields =
        [("Action", "CreateSnapshot"), ("VolumeId", &volume), ("Description", "by somebody")];
    asks(world, now, &fields, "snapshot", &tags)?;
    Some(volume)
}

/// A volume of a restore that never was.
pub(super) fn volume(world: &mut World, rng: &mut Rng, now: Timestamp) -> Option<String> {
    let deployment =
        rng.choice(world.scene.deployments.iter().map(|one| one.id).collect::<Vec<_>>())?;
    let mut tags = tags_of_stack(world)?;
    tags.push(("ld:deployment".to_owned(), deployment.to_string()));
    tags.push(("ld:restore".to_owned(), rng.u32(1_000_000..).to_string()));
    let fields = [
        ("Action", "CreateVolume"),
        ("AvailabilityZone", local::ZONES[0]),
        ("Size", "8"),
        ("VolumeType", "gp3"),
    ];
    asks(world, now, &fields, "volume", &tags)?;
    Some(format!("a volume of {deployment}"))
}

/// A snapshot that looks to the letter like one of a backup that is at rest, and that its
/// row does not name.
pub(super) fn forge(world: &mut World, rng: &mut Rng, now: Timestamp) -> Option<String> {
    let volume = rng.choice(volumes(world))?;
    forge_of(world, rng, now, &volume)
}

fn forge_of(world: &mut World, rng: &mut Rng, now: Timestamp, volume: &str) -> Option<String> {
    let rests = |world: &World, tags: &std::collections::BTreeMap<String, String>| {
        let number = |key: &str| tags.get(key).and_then(|text| text.parse::<u64>().ok());
        let key = number("ld:deployment").zip(number("ld:backup"));
        key.is_some_and(|(deployment, backup)| {
            let mut all = world.oracle.backups_of(deployment);
            all.any(|(id, row)| {
                id == backup && row["status"] == "completed" && row["sweep_until"] == Value::Null
            })
        })
    };
    let ours = world.cloud.snapshots().filter(|one| one.exists);
    let ours = ours.filter(|one| world.oracle.is_ours(one.snapshot_id));
    let ours: Vec<String> =
        ours.filter(|one| rests(world, one.tags)).map(|one| one.snapshot_id.to_owned()).collect();
    let like = rng.choice(ours)?;
    let (description, tags) = {
        let one = world.cloud.snapshot(&like)?;
        (one.description.to_owned(), one.tags.clone().into_iter().collect::<Vec<_>>())
    };
    let fields =
        [("Action", "CreateSnapshot"), ("VolumeId", volume), ("Description", &description)];
    let body = asks(world, now, &fields, "snapshot", &tags)?;
    let id = snapshot_ids(&body).into_iter().next()?;
    world.oracle.forged(&id, &like);
    Some(format!("{id} like {like}"))
}

/// One more wave of a flood; it is over when there are more than a run deletes.
pub(super) fn flood(world: &mut World, rng: &mut Rng, now: Timestamp) -> Option<String> {
    let there = world.cloud.snapshots();
    let there = there.filter(|one| one.exists && world.oracle.is_forged(one.snapshot_id)).count();
    if there >= FLOOD {
        return Some(format!("{there} forged snapshots"));
    }
    let free = |world: &World| -> Vec<String> {
        let all = world.cloud.volumes().filter(|one| one.state == "available");
        all.filter(|one| one.tags.is_empty()).map(|one| one.volume_id.to_owned()).collect()
    };
    for _ in free(world).len()..WAVE {
        let fields = [
            ("Action", "CreateVolume"),
            ("AvailabilityZone", local::ZONES[0]),
            ("Size", "8"),
            ("VolumeType", "gp3"),
        ];
        asks(world, now, &fields, "volume", &[])?;
    }
    for volume in free(world).into_iter().take(WAVE) {
        forge_of(world, rng, now, &volume);
    }
    None
}
