//! What operators, strangers and the control plane do.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use fastrand::Rng;
use http::Request;
use serde_json::{Value, json};

use super::drive;
use super::functions::Functions;
use super::oracle::{Asked, Violation, What};
use super::reply::Reply;
use super::scene::{self, Key};
use super::world::Shared;
use crate::{Failed, Result};

/// A thing that somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Make a backup; at the limit, delete the oldest first.
    Routine,
    /// Make one with all that a body may have.
    Create,
    /// Several at once.
    Burst,
    List,
    Delete,
    DeleteTwice,
    /// Make one and do not wait for the answer.
    GiveUp,
    /// Somebody without the right key.
    Stranger,
    /// Requests that are wrong.
    Malformed,
    /// The control plane changes something, and mends it later.
    Registry,
    /// An event that is not ours, or not one at all.
    ForeignEvent,
}

impl Doing {
    /// Each, with how often it is drawn.
    const ALL: [(Self, u32); 11] = [
        (Self::Routine, 44),
        (Self::Create, 14),
        (Self::Burst, 6),
        (Self::List, 6),
        (Self::Delete, 8),
        (Self::DeleteTwice, 3),
        (Self::GiveUp, 4),
        (Self::Stranger, 4),
        (Self::Malformed, 4),
        (Self::Registry, 5),
        (Self::ForeignEvent, 3),
    ];

    /// One, as often as it is done.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut at = rng.u32(0..Self::ALL.iter().map(|(_, weight)| weight).sum());
        for (doing, weight) in Self::ALL {
            if at < weight {
                return doing;
            }
            at -= weight;
        }
        Self::List
    }

    /// Each of them.
    pub(crate) fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(doing, _)| doing)
    }
}

/// Somebody who does one thing.
pub(crate) struct Person {
    pub(crate) world: Shared,
    pub(crate) functions: Arc<Functions>,
    pub(crate) rng: Rng,
}

impl Person {
    /// Does it.
    pub(crate) async fn does(mut self, doing: Doing) -> Result<()> {
        let (deployment, tenant) = self.deployment();
        match doing {
            Doing::Routine => self.routine(deployment, tenant).await,
            Doing::Create => self.create(deployment, tenant).await.map(|_| ()),
            Doing::Burst => {
                let mut others = Vec::new();
                for _ in 0..self.rng.usize(2..=4) {
                    let mut other = self.fork();
                    others.push(async move { other.create(deployment, tenant).await });
                }
                for done in futures_util::future::join_all(others).await {
                    done?;
                }
                Ok(())
            }
            Doing::List => self.list(deployment, tenant).await.map(|_| ()),
            Doing::Delete => {
                let id = self.some_backup(deployment);
                self.delete(deployment, tenant, id).await.map(|_| ())
            }
            Doing::DeleteTwice => {
                let id = self.some_backup(deployment);
                let (mut one, mut other) = (self.fork(), self.fork());
                let both = tokio::join!(
                    biased;
                    one.delete(deployment, tenant, id),
                    other.delete(deployment, tenant, id)
                );
                both.0?;
                both.1.map(|_| ())
            }
            Doing::GiveUp => {
                let patience = Duration::from_millis(self.rng.u64(1..=300));
                let name = self.world.lock().scene.name();
                let mut other = self.fork();
                let body = json!({ "name": name });
                let world = self.world.clone();
                let asked = tokio::spawn(async move {
                    let done = other.post(deployment, tenant, Key::Manage, &name, &body).await;
                    if let Err(Failed(why)) = done {
                        world.lock().judge(Err(Violation::new("simulation", why)));
                    }
                });
                tokio::time::sleep(patience).await;
                // Nobody listens, but the function goes on.
                if !asked.is_finished() {
                    self.world.lock().reach.hit("api given up");
                }
                Ok(())
            }
            Doing::Stranger => self.stranger(deployment, tenant).await,
            Doing::Malformed => self.malformed(deployment, tenant).await,
            Doing::Registry => self.registry(deployment).await,
            Doing::ForeignEvent => self.foreign_event().await,
        }
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self {
            world: self.world.clone(),
            functions: Arc::clone(&self.functions),
            rng: self.rng.fork(),
        }
    }

    fn deployment(&mut self) -> (u64, usize) {
        let world = self.world.lock();
        let one = &world.scene.deployments[self.rng.usize(0..world.scene.deployments.len())];
        (one.id, one.tenant)
    }

    /// A backup of the deployment as the table has it, or one that is not there.
    fn some_backup(&mut self, deployment: u64) -> u64 {
        let ids: Vec<u64> =
            self.world.lock().oracle.backups_of(deployment).map(|(id, _)| id).collect();
        let none = self.rng.u64(1..500);
        match self.rng.u8(0..8) {
            0 => none,
            // The newest: it may be running.
            1 | 2 => ids.last().copied().unwrap_or(none),
            _ => self.rng.choice(ids).unwrap_or(none),
        }
    }

    async fn routine(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        for _ in 0..3 {
            let reply = self.create(deployment, tenant).await?;
            match reply.as_ref().map(|reply| (reply.status, reply.code())) {
                Some((409, code)) if code == "backup_limit_reached" => {
                    let Some(list) = self.list(deployment, tenant).await? else { continue };
                    let oldest =
                        list.json().as_array().into_iter().flatten().rev().find_map(|one| {
                            (one["status"] == "completed").then(|| one["id"].as_u64()).flatten()
                        });
                    let Some(oldest) = oldest else { return Ok(()) };
                    self.delete(deployment, tenant, oldest).await?;
                }
                // Nobody knows whether it was made: a person asks again.
                None | Some((500.., _)) => {}
                Some(_) => return Ok(()),
            }
            let pause = Duration::from_millis(self.rng.u64(500..20_000));
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn create(&mut self, deployment: u64, tenant: usize) -> Result<Option<Reply>> {
        let (name, nodes, long) = {
            let mut world = self.world.lock();
            let long = world.profile.span.as_hours() > 72;
            let nodes: Vec<u64> = world
                .scene
                .deployments
                .iter()
                .filter(|one| one.id == deployment)
                .flat_map(|one| one.nodes.iter().map(|(node, _)| *node))
                .collect();
            (world.scene.name(), nodes, long)
        };
        let mut body = json!({ "name": name });
        if self.rng.u8(0..4) == 0 {
            let node = self.rng.choice(nodes).unwrap_or(1);
            body["node_id"] = json!(if self.rng.u8(0..12) == 0 { node + 1 } else { node });
        }
        if self.rng.u8(0..10) < if long { 6 } else { 2 } {
            body["expires_in_days"] = json!(self.rng.u32(1..=5));
        }
        if self.rng.u8(0..4) == 0 {
            body["remarks"] = json!("because");
            body["backup_type"] = json!("scheduled");
        }
        self.post(deployment, tenant, Key::Manage, &name, &body).await
    }

    async fn list(&mut self, deployment: u64, tenant: usize) -> Result<Option<Reply>> {
        let key = if self.rng.bool() { Key::Read } else { Key::Manage };
        self.get(deployment, tenant, key).await
    }

    async fn get(&mut self, deployment: u64, tenant: usize, key: Key) -> Result<Option<Reply>> {
        let path = format!("/deployments/{deployment}/backups");
        let asked = self.asked(deployment, tenant, key, What::List);
        self.ask(asked, "GET", &path, "", String::new()).await
    }

    async fn post(
        &mut self,
        deployment: u64,
        tenant: usize,
        key: Key,
        name: &str,
        body: &Value,
    ) -> Result<Option<Reply>> {
        let path = format!("/deployments/{deployment}/backups");
        let what = What::Create { name: name.to_owned(), body: body.clone() };
        let asked = self.asked(deployment, tenant, key, what);
        self.ask(asked, "POST", &path, "application/json", body.to_string()).await
    }

    pub(crate) async fn delete(
        &mut self,
        deployment: u64,
        tenant: usize,
        id: u64,
    ) -> Result<Option<Reply>> {
        let path = format!("/deployments/{deployment}/backups/{id}");
        let asked = self.asked(deployment, tenant, Key::Manage, What::Delete(id));
        self.ask(asked, "DELETE", &path, "", String::new()).await
    }

    fn asked(&self, deployment: u64, tenant: usize, key: Key, what: What) -> Asked {
        let world = self.world.lock();
        let owner = world.scene.deployments.iter().find(|one| one.id == deployment);
        let first = world.scene.deployments.iter().find(|one| one.tenant == tenant);
        let bound_elsewhere = key == Key::Bound && first.is_none_or(|one| one.id != deployment);
        let foreign = owner.is_none_or(|one| one.tenant != tenant) || bound_elsewhere;
        let good = world.scene.is_good(key, world.now());
        Asked { at: world.now(), deployment, key, tenant, good, foreign, what }
    }

    /// Sends a request and waits for its answer, as long as the gateway does.
    async fn ask(
        &mut self,
        asked: Asked,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Option<Reply>> {
        let secret = self.world.lock().scene.key(asked.tenant, asked.key).to_owned();
        let mut request = Request::builder().method(method).uri(path);
        if !secret.is_empty() {
            request = request.header("ld-api-key", secret);
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Body::from(body))?;
        {
            let mut world = self.world.lock();
            let now = world.now();
            world.trace.line(now, || format!("somebody > {method} {path} {:?}", asked.what));
            world.oracle.ask(&asked);
        }
        let (reply, disturbed) = self.functions.http(request).await?;
        let mut world = self.world.lock();
        let world = &mut *world;
        let now = world.now();
        world.trace.line(now, || match &reply {
            None => format!("somebody < {method} {path}: no answer"),
            Some(reply) => {
                let body = String::from_utf8_lossy(&reply.body);
                format!("somebody < {method} {path}: {} {body}", reply.status)
            }
        });
        let verdict =
            world.oracle.answered(now, &asked, reply.as_ref(), disturbed, &mut world.reach);
        world.judge(verdict);
        Ok(reply)
    }

    async fn stranger(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let keys = [
            Key::Missing,
            Key::Expired,
            Key::Unknown,
            Key::Ending,
            Key::Read,
            Key::Bound,
            Key::Manage,
        ];
        let key = keys[self.rng.usize(0..keys.len())];
        // A good key of another tenant.
        let tenant = if key == Key::Manage { 1 - tenant } else { tenant };
        // Or one that there never was.
        let deployment = if self.rng.u8(0..4) == 0 { 1 << 60 } else { deployment };
        match self.rng.u8(0..3) {
            0 => self.get(deployment, tenant, key).await?,
            1 => {
                let id = self.some_backup(deployment);
                let path = format!("/deployments/{deployment}/backups/{id}");
                let asked = self.asked(deployment, tenant, key, What::Delete(id));
                self.ask(asked, "DELETE", &path, "", String::new()).await?
            }
            _ => {
                let name = self.world.lock().scene.name();
                self.post(deployment, tenant, key, &name, &json!({ "name": name })).await?
            }
        };
        Ok(())
    }

    async fn malformed(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let backups = format!("/deployments/{deployment}/backups");
        let json = "application/json";
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
        let (method, path, content_type, body, status) = match self.rng.u8(0..9) {
            0 => ("POST", backups, json, "{\"name\": ".to_owned(), 400),
            1 => {
                ("POST", backups, json, json!({"name": "n", "expire_in_days": 3}).to_string(), 400)
            }
            2 => ("POST", backups, json, json!({"name": " "}).to_string(), 400),
            3 => ("POST", backups, json, long, 413),
            4 => ("POST", backups, "text/plain", "{\"name\": \"n\"}".to_owned(), 415),
            5 => ("GET", "/deployments/07/backups".to_owned(), "", String::new(), 400),
            6 => ("GET", "/deployment".to_owned(), "", String::new(), 404),
            7 => ("PUT", backups, json, String::new(), 405),
            _ => ("DELETE", format!("{backups}/0"), "", String::new(), 400),
        };
        let asked = self.asked(deployment, tenant, Key::Manage, What::Wrong(status));
        self.ask(asked, method, &path, content_type, body).await.map(|_| ())
    }

    async fn registry(&mut self, deployment: u64) -> Result<()> {
        let change = self.rng.u8(0..11);
        {
            let mut world = self.world.lock();
            let now = world.now();
            let world = &mut *world;
            let scene = &mut world.scene;
            let Some(one) = scene.deployments.iter_mut().find(|one| one.id == deployment) else {
                return Ok(());
            };
            let tenant = scene.tenants[one.tenant].id.clone();
            let mut older = one.changed(&tenant);
            one.version += 1;
            match change {
                10 => {
                    let node = one.nodes.iter().map(|(node, _)| *node).max().unwrap_or(one.id) + 16;
                    let new = scene::launch(&mut world.cloud, now, &mut self.rng, 1);
                    one.nodes.push((node, new));
                }
                0 => one.status = "upgrading",
                1 => one.plan = "basic",
                2 => {
                    one.odd = self.rng.choice([
                        ("storage_type", json!("local_ssd")),
                        ("cloud", json!("gcp")),
                        ("variant", json!("byoc")),
                        ("shared", json!(true)),
                    ]);
                }
                3 => one.limit = Some(self.rng.u64(0..6)),
                4 => one.nodes = one.nodes.split_off(one.nodes.len() / 2),
                _ => {}
            }
            let mut detail = one.changed(&tenant);
            let mut kind = "Deployment Changed";
            match change {
                5 => {
                    kind = "Deployment Deleted";
                    detail = json!({"version": one.version, "deployment_id": one.id});
                }
                6 => {
                    // The last word once more, or one before it, which was another.
                    // Only if it is known: else it would be the newest.
                    let known = world.oracle.knows(one.id);
                    if self.rng.bool() && one.version > 2 && known >= one.version - 1 {
                        older["version"] = json!(one.version - 2);
                        older["nodes"] = json!([]);
                    }
                    detail = older;
                    world.reach.hit("registry older event");
                }
                7 => {
                    detail["tenant_id"] = json!("somebody else");
                    world.reach.hit("registry other tenant");
                }
                8 => detail["nodes"] = json!("none"),
                _ => {}
            }
            if change == 9 {
                // Of one that lived so shortly that its end comes first.
                let mut short = one.clone();
                (short.id, short.version) = ((1 << 60) + one.id + one.version, 1);
                detail = short.changed(&tenant);
                let gone = json!({"version": 2, "deployment_id": short.id});
                let kind = "Deployment Deleted";
                drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &gone);
                world.reach.hit("registry deleted first");
            }
            drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
            world.wake_if_sooner();
        }
        let pause = Duration::from_secs(self.rng.u64(60..3600));
        tokio::time::sleep(pause).await;
        // And it is mended: a deleted deployment may come back.
        let mut world = self.world.lock();
        let world = &mut *world;
        let now = world.now();
        let scene = &mut world.scene;
        if let Some(one) = scene.deployments.iter_mut().find(|one| one.id == deployment) {
            one.version += 1;
            (one.status, one.plan) = ("initialized", "pro");
            (one.limit, one.odd) = (None, None);
            let detail = one.changed(&scene.tenants[one.tenant].id);
            let kind = "Deployment Changed";
            drive::control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
            world.wake_if_sooner();
        }
        Ok(())
    }

    async fn foreign_event(&mut self) -> Result<()> {
        let (id, kind) = (self.rng.u64(..), self.rng.u8(0..4));
        let arn = format!("arn:aws:ec2::us-west-1:snapshot/snap-0{id:016x}");
        let (source, detail_type, detail) = match kind {
            0 => (
                "aws.ec2",
                "EBS Snapshot Notification",
                json!({"snapshot_id": arn, "result": "failed"}),
            ),
            1 => (
                "aws.ec2",
                "EBS Multi-Volume Snapshots Completion Status",
                json!({"result": "succeeded", "snapshots": [{"snapshot_id": arn}]}),
            ),
            2 => ("supervisor.backups", "Operation Due", json!({"version": 1, "operation": "tea"})),
            _ => ("supervisor.control-plane", "Deployment Changed", json!({"deployment_id": "x"})),
        };
        let line = if kind < 2 { "fault event_foreign" } else { "fault event_malformed" };
        self.world.lock().reach.hit(line);
        let event = json!({
            "version": "0", "id": format!("{id:x}"), "source": source, "detail-type": detail_type,
            "account": local::ACCOUNT, "time": "2030-01-01T00:00:00Z", "region": local::REGION,
            "resources": [], "detail": detail,
        });
        // Its answer is for Lambda.
        let _ = self.functions.worker(event).await?;
        Ok(())
    }
}
