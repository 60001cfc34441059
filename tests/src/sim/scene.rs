//! Who and what there is: tenants with their keys, deployments with their nodes.

use std::collections::BTreeMap;

use backups_aws::table::keys::{Key as KeyRow, Permission, Secret};
use backups_core::id::{DeploymentId, TenantId};
use backups_core::time::{Seconds, Time};
use cloud::{Cloud, InstanceSpec, VolumeSpec};
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use local::{REGION, ZONES};
use serde_json::{Value, json};

use super::happenings::Script;
use super::plan::Kind;
use super::table::Table;

/// Around the end of a key's time nobody can say: clocks are off, and cut to seconds.
const UNSURE: SignedDuration = SignedDuration::from_secs(9);

/// Within this a revoked key is known to be (the contract's).
const REVOKED: SignedDuration = SignedDuration::from_secs(30);

/// The scene.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) deployments: Vec<Deployment>,
    /// Names given to backups: each request has its own.
    pub(crate) names: u32,
    /// What the last request was called that was called anything.
    pub(crate) called: String,
    /// When the keys end that end in the middle of the run.
    pub(crate) ends: Timestamp,
}

/// A customer.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) keys: BTreeMap<Key, String>,
    /// When its old key was revoked, and it had got a new one.
    pub(crate) renewed: Option<Timestamp>,
    /// When the control plane said so, if it did: it is so some time later.
    pub(crate) renewing: Option<Timestamp>,
}

/// The kinds of key that a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Manage,
    Read,
    /// Of the tenant's first deployment alone.
    Bound,
    Expired,
    /// Its time is over in the middle of the run.
    Ending,
    /// Good until it is revoked.
    Old,
    /// Good from then on.
    New,
    /// Nobody's.
    Unknown,
    /// No key at all.
    Missing,
}

/// A deployment as its control plane has it.
#[derive(Debug, Clone)]
pub(crate) struct Deployment {
    pub(crate) id: u64,
    pub(crate) tenant: usize,
    pub(crate) version: u64,
    pub(crate) nodes: Vec<(u64, String)>,
    pub(crate) status: &'static str,
    pub(crate) plan: &'static str,
    pub(crate) limit: Option<u64>,
    /// Something about it for which nothing can be backed up, and its value.
    pub(crate) odd: Option<(&'static str, Value)>,
}

impl Scene {
    /// Draws the scene, launching its instances. Gives the keys to store.
    pub(crate) fn draw(
        rng: &mut Rng,
        kind: Kind,
        cloud: &mut Cloud,
        now: Timestamp,
        span: SignedDuration,
    ) -> (Self, Vec<KeyRow>) {
        let mut scene = Self { ends: now + span / 2, ..Self::default() };
        let mut last = (1 << 53) + (rng.u64(1..1 << 40) << 4) + 1;
        let mut id = move || {
            last += 16;
            last
        };
        let count = match kind {
            Kind::Failing
            | Kind::Huge
            | Kind::Sweep(Script::Failing | Script::Downtime(_) | Script::Scheduling) => 1,
            Kind::Herd(herd) => herd.deployments(),
            Kind::Sweep(_) => 2,
            Kind::ScheduledWeeks => rng.usize(1..=3),
            _ => rng.usize(2..=6),
        };
        for number in 0..count {
            let nodes = match kind {
                Kind::Failing | Kind::Huge | Kind::Herd(_) | Kind::Sweep(Script::Failing) => 1,
                Kind::Sweep(Script::Downtime(nodes)) => nodes,
                Kind::Sweep(_) => 2,
                _ => [1, 1, 1, 1, 1, 2, 2, 2, 3, rng.usize(4..=5)][rng.usize(0..10)],
            };
            let nodes = (0..nodes)
                .map(|_| {
                    let volumes = match kind {
                        Kind::Failing => usize::from(rng.u8(0..4) == 0),
                        // More than EC2 takes in one call, or some rows full of them.
                        Kind::Huge => {
                            if rng.bool() {
                                130
                            } else {
                                rng.usize(21..=28)
                            }
                        }
                        Kind::Sweep(Script::Failing) => 0,
                        Kind::Herd(_) | Kind::Sweep(_) => 2,
                        // Now and then a node with much, and one without data.
                        _ => [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, rng.usize(4..=8), 0]
                            [rng.usize(0..if number == 0 { 16 } else { 15 })],
                    };
                    (id(), launch(cloud, now, rng, volumes))
                })
                .collect();
            scene.deployments.push(Deployment {
                id: id(),
                tenant: number % 2,
                version: 1,
                nodes,
                status: "initialized",
                plan: if rng.bool() { "pro" } else { "enterprise" },
                // The fourth is one too many.
                limit: (kind == Kind::Sweep(Script::Scheduling)).then_some(3),
                odd: None,
            });
        }
        let mut rows = Vec::new();
        for (number, id) in ["acme", "umbra"].into_iter().enumerate() {
            let mut keys = BTreeMap::new();
            for kind in [
                Key::Manage,
                Key::Read,
                Key::Bound,
                Key::Expired,
                Key::Ending,
                Key::Old,
                Key::New,
                Key::Unknown,
            ] {
                let mut bytes = [0; 32];
                rng.fill(&mut bytes);
                let secret = Secret::from_bytes(bytes);
                keys.insert(kind, secret.expose().to_owned());
                let first = scene.deployments.iter().find(|one| one.tenant == number);
                let now = Time::from_unix(now.as_second());
                rows.extend((!matches!(kind, Key::New | Key::Unknown)).then(|| {
                    KeyRow {
                        hash: secret.hash(),
                        key_id: format!("{id}-{kind:?}"),
                        version: 1,
                        tenant_id: TenantId::from(id),
                        permission: if kind == Key::Read {
                            Permission::Read
                        } else {
                            Permission::Manage
                        },
                        deployments: (kind == Key::Bound)
                            .then(|| first.map(|one| DeploymentId(one.id)).into_iter().collect()),
                        allow: None,
                        revoked_at: None,
                        expires_at: match kind {
                            Key::Expired => now,
                            Key::Ending => Time::from_unix(scene.ends.as_second()),
                            _ => now + Seconds::days(60),
                        },
                    }
                }));
            }
            scene.tenants.push(Tenant { id: id.to_owned(), keys, renewed: None, renewing: None });
        }
        (scene, rows)
    }

    /// The key of a tenant.
    pub(crate) fn key(&self, tenant: usize, kind: Key) -> &str {
        self.tenants.get(tenant).and_then(|one| one.keys.get(&kind)).map_or("", String::as_str)
    }

    /// Whether a key counts, for a request between these times. None: nobody can say.
    pub(crate) fn is_good(
        &self,
        tenant: usize,
        kind: Key,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<bool> {
        let renewed = self.tenants.get(tenant).and_then(|one| one.renewed);
        let renewing = self.tenants.get(tenant).and_then(|one| one.renewing);
        let on_its_way = renewed.is_none() && renewing.is_some_and(|at| at <= until);
        match kind {
            Key::Old | Key::New if on_its_way => None,
            Key::Manage | Key::Read | Key::Bound => Some(true),
            Key::Expired | Key::Unknown | Key::Missing => Some(false),
            Key::Ending if until + UNSURE < self.ends => Some(true),
            Key::Ending => (from - UNSURE >= self.ends).then_some(false),
            Key::Old => match renewed.filter(|at| *at <= until) {
                None => Some(true),
                // Instances that keep it count by clocks of their own.
                Some(at) => (from >= at + REVOKED + UNSURE + UNSURE).then_some(false),
            },
            Key::New => match renewed.filter(|at| *at <= until) {
                None => Some(false),
                Some(at) => (from >= at).then_some(true),
            },
        }
    }

    /// What the control plane says when it revokes the tenant's old key and makes a new one, if
    /// nobody has: one of the three is outdated by then.
    /// `late`: its end is of an older version than its last change. `odd`: and of a shape that is
    /// refused.
    pub(crate) fn renew_by_events(
        &mut self,
        tenant: usize,
        now: Timestamp,
        (late, odd): (bool, bool),
    ) -> Option<[Value; 3]> {
        let one = self.tenants.get_mut(tenant)?;
        if one.renewed.or(one.renewing).is_some() {
            return None;
        }
        one.renewing = Some(now);
        let whole = |at: i64| Timestamp::from_second(at).map(|at| at.to_string()).ok();
        let (said_at, expires_at) = (whole(now.as_second()), whole(now.as_second() + 60 * 86_400));
        let said = |kind: Key, version: u64, revoked_at: Option<String>| {
            json!({
                "version": version,
                "key_id": format!("{}-{kind:?}", one.id),
                "hash": Secret::parse(&one.keys[&kind]).map(|secret| secret.hash()),
                "tenant_id": one.id,
                "permission": "deployment:manage",
                "expires_at": expires_at,
                "revoked_at": revoked_at,
            })
        };
        let (change, end) = if late { (3, 2) } else { (2, 3) };
        let mut ended = said(Key::Old, end, said_at);
        if odd {
            ended["colour"] = json!("red");
        }
        Some([said(Key::New, 1, None), said(Key::Old, change, None), ended])
    }

    /// Whether all of that is so by now.
    pub(crate) fn renewed_by_events(
        &mut self,
        tenant: usize,
        now: Timestamp,
        table: &Table,
    ) -> bool {
        let Some(one) = self.tenants.get_mut(tenant) else { return false };
        let row = |kind| table.item(&(key_pk(&one.keys[&kind]), "KEY".to_owned()));
        let revoked = row(Key::Old).is_some_and(|old| !old["revoked_at"].is_null());
        let done = revoked && row(Key::New).is_some();
        if done {
            one.renewed = Some(now);
        }
        done
    }

    /// The operator revokes the tenant's old key and makes a new one.
    pub(crate) fn renew(
        &mut self,
        tenant: usize,
        now: Timestamp,
        table: &mut Table,
    ) -> crate::Result<()> {
        let Some(one) =
            self.tenants.get_mut(tenant).filter(|one| one.renewed.or(one.renewing).is_none())
        else {
            return Ok(());
        };
        let row = |kind| key_pk(&one.keys[&kind]);
        let old = table.item(&(row(Key::Old), "KEY".to_owned()));
        let old = old.ok_or_else(|| crate::Failed("a key has no row".to_owned()))?;
        let mut new = Value::clone(&old);
        new["pk"]["S"] = row(Key::New).into();
        new["hash"]["S"] = row(Key::New).trim_start_matches("KEY#").into();
        new["key_id"]["S"] = format!("{}-New", one.id).into();
        one.renewed = Some(now);
        table.uproot(&old, now)?;
        table.plant(new)
    }

    /// A name that no other request has.
    pub(crate) fn name(&mut self) -> String {
        self.names += 1;
        format!("request {}", self.names)
    }
}

/// The partition of a key's row.
fn key_pk(secret: &str) -> String {
    let hash = Secret::parse(secret).map(|secret| secret.hash());
    format!("KEY#{}", hash.unwrap_or_default())
}

/// Launches a node's instance, and gives its id.
pub(crate) fn launch(cloud: &mut Cloud, now: Timestamp, rng: &mut Rng, volumes: usize) -> String {
    let mut spec = InstanceSpec::in_zone(ZONES[rng.usize(0..ZONES.len())]);
    spec.data = (0..volumes).map(|_| volume(rng)).collect();
    cloud.launch(now, spec).instance_id
}

/// A data volume: of one kind or another, so that what is kept of it can be wrong.
pub(crate) fn volume(rng: &mut Rng) -> VolumeSpec {
    let plain = VolumeSpec::gib(rng.u32(1..=500));
    let (volume_type, iops, throughput) = match rng.u8(0..6) {
        0 => ("io2", Some(rng.u32(1..=640) * 100), None),
        1 => ("gp3", Some(rng.u32(30..=160) * 100), Some(rng.u32(125..=1_000))),
        2 => ("st1", None, None),
        _ => ("gp3", plain.iops, plain.throughput),
    };
    let key = format!("arn:aws:kms:{REGION}:{}:key/{:08x}", local::ACCOUNT, rng.u32(..));
    VolumeSpec {
        volume_type: volume_type.to_owned(),
        iops,
        throughput,
        kms_key_id: (rng.u8(0..4) == 0).then_some(key),
        delete_on_termination: rng.bool(),
        tags: (0..rng.u32(0..=2))
            .map(|tag| (format!("tag {tag}"), rng.u32(..).to_string()))
            .collect(),
        content: Some(format!("{:08x}", rng.u32(..))),
        ..plain
    }
}

impl Deployment {
    /// `Deployment Changed`, as the control plane sends it.
    pub(crate) fn changed(&self, tenant: &str) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            // In no order that would mean anything.
            .rev()
            .map(|(node, instance)| json!({"node_id": node, "instance_id": instance}))
            .collect();
        let mut detail = json!({
            "version": self.version,
            "deployment_id": self.id,
            "tenant_id": tenant,
            "status": self.status,
            "plan": self.plan,
            "cloud": "aws",
            "variant": "managed",
            "storage_type": "network_balanced",
            "shared": false,
            "region": REGION,
            "backup_limit": self.limit,
            "nodes": nodes,
        });
        if let Some((name, value)) = &self.odd {
            detail[*name] = value.clone();
        }
        detail
    }
}
