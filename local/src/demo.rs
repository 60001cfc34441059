//! The demo: a deployment to back up, another tenant's, and keys for both.
//!
//! It is made once per data folder. Instances, the control plane's events and
//! demo.json's content are one transaction of the simulated AWS; what follows
//! (keys, the file) can be done again, and is until it is known to be done.

use std::collections::BTreeMap;
use std::path::Path;

use backups_aws::settings::Settings;
use backups_aws::table::Table;
use backups_aws::table::keys::{Key, KeyWritten, Permission, Secret};
use backups_core::control_plane;
use backups_core::id::TenantId;
use backups_core::time::Seconds;
use cloud::{Cloud, InstanceSpec, VolumeSpec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::stack::{ACCOUNT, REGION, ZONES};
use crate::template::Template;
use crate::world::World;

/// Under which the demo's content is stored.
const DEMO: &str = "demo";
/// Set once keys, file and registered deployments are there.
const DONE: &str = "demo_done";
/// How long the keys open: the most that the contract allows.
const KEY_LIFE: Seconds = Seconds::days(365);
/// The most entries of one `PutEvents` (EventBridge API reference).
const AT_ONCE: usize = 10;
/// The size of a data volume.
const VOLUME_GIB: u32 = 50;

/// demo.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demo {
    /// Where the Supervisor API answers.
    pub supervisor_url: String,
    /// Where the simulated AWS answers.
    pub aws_endpoint: String,
    /// The Region.
    pub region: String,
    /// The account.
    pub account: String,
    /// The stack's bus.
    pub event_bus: String,
    /// The stack's table.
    pub table: String,
    /// Whose the deployment is.
    pub tenant_id: String,
    /// A pro deployment with three nodes.
    pub deployment_id: u64,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The tenant's other deployments, each with one node: as many as `--deployments` says.
    #[serde(default)]
    pub more_deployment_ids: Vec<u64>,
    /// Secrets of keys.
    pub keys: Keys,
    /// Another tenant.
    pub other_tenant_id: String,
    /// Its enterprise deployment.
    pub other_deployment_id: u64,
}

/// A node of the demo's deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The platform's id.
    pub node_id: u64,
    /// Where it runs.
    pub instance_id: String,
    /// Its data volumes, the root's not among them.
    pub volume_ids: Vec<String>,
}

/// The secrets of the demo's keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Opens the demo's deployment for everything.
    pub manage: String,
    /// Opens it for reading.
    pub read: String,
    /// Opens the other tenant's for everything.
    pub other_tenant: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Where the demo's programs answer.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    pub(crate) supervisor: String,
    pub(crate) aws: String,
}

/// The demo of this data folder; made if there is none. Its addresses are those
/// of this run.
pub(crate) fn plant(
    world: &World,
    template: &Template,
    urls: &Urls,
    deployments: u32,
) -> Result<Demo, String> {
    let mut demo = match world.own(DEMO)? {
        Some(kept) => serde_json::from_str(&kept)
            .map_err(|error| format!("the demo in the data folder: {error}"))?,
        None => world
            .with_own(|cloud, now| {
                let demo = make(cloud, now, world.seed, template, urls, deployments);
                let text = json!(demo).to_string();
                (demo, vec![(DEMO, text)])
            })
            .map_err(|lost| lost.to_string())?,
    };
    demo.supervisor_url.clone_from(&urls.supervisor);
    demo.aws_endpoint.clone_from(&urls.aws);
    Ok(demo)
}

/// Whether an earlier run got as far as [`done`].
pub(crate) fn is_done(world: &World) -> Result<bool, String> {
    Ok(world.own(DONE)?.is_some())
}

/// Everything of the demo is where it belongs. Keys are not stored again from
/// here on: one that was revoked does not come back at a restart.
pub(crate) fn done(world: &World) -> Result<(), String> {
    world.with_own(|_, _| ((), vec![(DONE, "yes".to_owned())])).map_err(|lost| lost.to_string())
}

/// Stores the keys. `table` talks to the running port.
pub(crate) async fn put_keys(demo: &Demo, world: &World, table: &Table) -> Result<(), String> {
    let now = world.clock.now();
    let expires_at = now + KEY_LIFE;
    for (secret, key_id, tenant_id, permission) in [
        (&demo.keys.manage, "demo-manage", &demo.tenant_id, Permission::Manage),
        (&demo.keys.read, "demo-read", &demo.tenant_id, Permission::Read),
        (&demo.keys.other_tenant, "demo-other-tenant", &demo.other_tenant_id, Permission::Manage),
    ] {
        let secret = Secret::parse(secret).ok_or("a key in the data folder is none")?;
        let key = Key {
            hash: secret.hash(),
            key_id: key_id.to_owned(),
            version: 1,
            tenant_id: TenantId(tenant_id.clone()),
            permission,
            deployments: None,
            allow: None,
            revoked_at: None,
            expires_at,
        };
        match table.put_key(&key, now).await.map_err(|error| format!("the demo's keys: {error}"))? {
            // Made by an earlier start, which was ended before it could say so.
            KeyWritten::Yes | KeyWritten::Older => {}
            other => return Err(format!("the demo's keys: {other:?}")),
        }
    }
    Ok(())
}

/// The table as the functions have it, for the keys.
pub(crate) async fn table(template: &Template, world: &World, aws: &str) -> Result<Table, String> {
    let function = template.function(crate::template::Name::Api)?;
    let settings = Settings::from_lookup(&|name| function.environment.get(name).cloned())
        .map_err(|missing| missing.to_string())?;
    let sdk = backups_aws::sdk::local_config(&world.clock, aws, REGION).await;
    Ok(Table::new(&settings, &sdk))
}

/// Writes demo.json: whole or not at all, also when the process is killed.
pub(crate) fn write(demo: &Demo, file: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(demo).map_err(|error| error.to_string())?;
    let beside = file.with_extension("json.new");
    let written =
        std::fs::write(&beside, text + "\n").and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

fn make(
    cloud: &mut Cloud,
    now: Timestamp,
    seed: u64,
    template: &Template,
    urls: &Urls,
    deployments: u32,
) -> Demo {
    // Not the cloud's own sequence, so that a demo more or less shifts no choice of it.
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6465_6d6f);
    // Above 2^53, where a JSON number read as a float is another one; steps of
    // 16, so that ids that differ by such a rounding name nothing.
    let mut last = (1 << 53) + (rng.u64(1..1 << 40) << 4) + 1;
    let mut id = move || {
        last += 16;
        last
    };
    let mut secret = || {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        Secret::from_bytes(bytes).expose().to_owned()
    };
    let keys = Keys { manage: secret(), read: secret(), other_tenant: secret() };

    let deployment_id = id();
    let nodes: Vec<Node> =
        ZONES.iter().map(|zone| launch(cloud, now, template, id(), zone, 2)).collect();
    let other_deployment_id = id();
    let other_nodes = vec![launch(cloud, now, template, id(), ZONES[0], 1)];
    // Last, so that the first ones are the same however many there are.
    let more: Vec<(u64, Node)> = (1..deployments)
        .zip(ZONES.iter().cycle())
        .map(|(_, zone)| (id(), launch(cloud, now, template, id(), zone, 1)))
        .collect();
    let demo = Demo {
        supervisor_url: urls.supervisor.clone(),
        aws_endpoint: urls.aws.clone(),
        region: REGION.to_owned(),
        account: ACCOUNT.to_owned(),
        event_bus: template.bus.clone(),
        table: template.table.clone(),
        tenant_id: "tenant-demo".to_owned(),
        deployment_id,
        nodes,
        more_deployment_ids: more.iter().map(|(deployment, _)| *deployment).collect(),
        keys,
        other_tenant_id: "tenant-other".to_owned(),
        other_deployment_id,
    };
    let bus = &demo.event_bus;
    let mut entries = vec![
        changed(bus, deployment_id, &demo.tenant_id, "pro", &demo.nodes),
        changed(bus, other_deployment_id, &demo.other_tenant_id, "enterprise", &other_nodes),
    ];
    entries.extend(more.iter().map(|(deployment, node)| {
        changed(bus, *deployment, &demo.tenant_id, "pro", std::slice::from_ref(node))
    }));
    for some in entries.chunks(AT_ONCE) {
        let body = json!({"Entries": some}).to_string();
        cloud.events(now, "AWSEvents.PutEvents", body.as_bytes());
    }
    demo
}

fn launch(
    cloud: &mut Cloud,
    now: Timestamp,
    template: &Template,
    node_id: u64,
    zone: &str,
    volumes: usize,
) -> Node {
    let mut tags = BTreeMap::from([("Name".to_owned(), format!("node-{node_id}"))]);
    // The platform's own tag, where the stack demands it.
    if let (Some(key), Some(value)) =
        (template.parameters.get("ManagedTagKey"), template.parameters.get("ManagedTagValue"))
    {
        tags.insert(key.clone(), value.clone());
    }
    let mut spec = InstanceSpec::in_zone(zone);
    spec.root.tags.clone_from(&tags);
    spec.data = vec![VolumeSpec { tags: tags.clone(), ..VolumeSpec::gib(VOLUME_GIB) }; volumes];
    spec.tags = tags;
    let launched = cloud.launch(now, spec);
    Node { node_id, instance_id: launched.instance_id, volume_ids: launched.volume_ids }
}

/// `Deployment Changed`, as the control plane sends it.
fn changed(bus: &str, deployment_id: u64, tenant_id: &str, plan: &str, nodes: &[Node]) -> Value {
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|node| json!({"node_id": node.node_id, "instance_id": node.instance_id}))
        .collect();
    let detail = json!({
        "version": 1,
        "deployment_id": deployment_id,
        "tenant_id": tenant_id,
        "status": "initialized",
        "plan": plan,
        "cloud": "aws",
        "variant": "managed",
        "storage_type": "network_balanced",
        "shared": false,
        "region": REGION,
        "backup_limit": null,
        "nodes": nodes,
    });
    json!({
        "EventBusName": bus,
        "Source": control_plane::SOURCE,
        "DetailType": "Deployment Changed",
        "Detail": detail.to_string(),
    })
}

/// Lines to paste.
pub(crate) fn lines(demo: &Demo, file: &Path) -> String {
    let Demo { supervisor_url: url, aws_endpoint: aws, deployment_id: id, keys, region, .. } = demo;
    let (manage, read) = (&keys.manage, &keys.read);
    let backups = format!("{url}/deployments/{id}/backups");
    format!(
        "\
# list (pending, in_progress, completed)
curl -s {backups} -H 'ld-api-key: {read}'
# create: 204, the id in ld-backup
curl -si -X POST {backups} -H 'ld-api-key: {manage}' -H 'content-type: application/json' -d '{{\"name\": \"my first backup\"}}'
# delete, once it has completed
curl -si -X DELETE {backups}/1 -H 'ld-api-key: {manage}'
# the snapshots on the simulated AWS; its whole state: {aws}/_local/state
AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION={region} aws --endpoint-url {aws} ec2 describe-snapshots --owner-ids self
# all of this as JSON: {}
",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(seed: u64, deployments: u32) -> (Demo, Value) {
        let template = Template::load(&[]).expect("template.yaml");
        let config = crate::config(&template, 10.0);
        let now: Timestamp = "2025-01-15T10:30:00Z".parse().expect("a time");
        let mut cloud = Cloud::new(config, seed, now);
        let urls = Urls { supervisor: "http://s".to_owned(), aws: "http://a".to_owned() };
        let demo = make(&mut cloud, now, seed, &template, &urls, deployments);
        (demo, cloud.state(now))
    }

    #[test]
    fn more_deployments_leave_the_first_as_they_are() {
        let (one, _) = demo(7, 1);
        let (mut many, state) = demo(7, 25);
        assert_eq!(many.more_deployment_ids.len(), 24);
        assert_eq!(state["instances"].as_array().map(Vec::len), Some(3 + 1 + 24));
        many.more_deployment_ids.clear();
        assert_eq!(many, one);
    }

    #[test]
    fn the_demo_is_as_documented() {
        let (demo, state) = demo(7, 1);
        let mut ids: Vec<u64> = demo.nodes.iter().map(|node| node.node_id).collect();
        ids.extend([demo.deployment_id, demo.other_deployment_id]);
        ids.sort_unstable();
        assert!(ids.iter().all(|id| *id > 1 << 53), "{ids:?}");
        assert!(ids.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{ids:?}");
        assert_eq!(demo.nodes.len(), 3);
        let instances = state["instances"].as_array().expect("instances");
        for (node, zone) in demo.nodes.iter().zip(ZONES) {
            let instance =
                instances.iter().find(|one| one["instance_id"] == node.instance_id.as_str());
            let instance = instance.expect("the node's instance");
            assert_eq!(instance["availability_zone"], zone);
            assert_eq!(instance["state"], "running");
            let attached = instance["attachments"].as_array().expect("attachments");
            assert_eq!(attached.len(), 3);
            assert_eq!(attached[0]["device"], "/dev/xvda");
            assert_eq!(node.volume_ids.len(), 2);
        }
        for volume in state["volumes"].as_array().expect("volumes") {
            assert_eq!(volume["content"], Value::Null);
        }
        assert!(Secret::parse(&demo.keys.manage).is_some());
    }

    #[test]
    fn a_seed_makes_the_same_demo_and_another_one_another() {
        let demo = |seed| demo(seed, 1).0;
        assert_eq!(demo(7), demo(7));
        assert_ne!(demo(7).keys.manage, demo(8).keys.manage);
        assert!(!format!("{:?}", demo(7)).contains(&demo(7).keys.read));
    }
}
