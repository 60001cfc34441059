//! What operators, strangers and the control plane do.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use backups_aws::table::keys::Secret;
use fastrand::Rng;
use http::Request;
use serde_json::{Value, json};

use super::doing::Doing;
use super::functions::Functions;
use super::logs::has_secret;
use super::oracle::{Asked, Page, Violation, What};
use super::reply::Reply;
use super::restoring::{ORDERS, order_restore};
use super::scene::Key;
use super::world::Shared;
use crate::{Failed, Result};

/// How often somebody comes who is told to come again.
const COMES: u32 = 3;

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
            Doing::Show => self.show(deployment, tenant).await,
            Doing::Patch => Box::pin(self.patch(deployment, tenant)).await,
            Doing::List => self.read_backups(deployment, tenant).await,
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
            Doing::Keys => self.keys(deployment, tenant).await,
            Doing::Registry(change) => self.registry(deployment, tenant, change).await,
            Doing::ForeignEvent => self.foreign_event().await,
            Doing::Restore => self.restore(deployment, tenant).await,
            Doing::Restores => self.restores(deployment, tenant).await,
            Doing::Schedule => self.schedule(deployment, tenant).await,
            Doing::SetSchedule => {
                let body = json!({ "cron": "*/20 * * * *" });
                self.set_schedule(deployment, tenant, &body).await.map(|_| ())
            }
            Doing::ReadSchedule => self.read_schedule(deployment, tenant, Key::Read).await,
            Doing::Unschedule => self.unschedule(deployment, tenant).await,
            Doing::Upgrade => self.upgrade(deployment, tenant).await,
            Doing::Rush => self.rush(deployment, tenant).await,
            Doing::Crowd => Box::pin(self.crowd()).await,
            Doing::RestoreLate => self.restore_late(deployment, tenant).await,
            Doing::Order => {
                let all: Vec<(u64, u64)> = {
                    let world = self.world.lock();
                    let ids = world.scene.deployments.iter().map(|one| one.id);
                    let all = ids.flat_map(|id| {
                        world.oracle.restores_of(id).map(move |(restore, _)| (id, restore))
                    });
                    all.collect()
                };
                if let Some(key) = self.rng.choice(all) {
                    let order = ORDERS[self.rng.usize(0..ORDERS.len())];
                    order_restore(&mut self.world.lock(), key, order);
                }
                Ok(())
            }
        }
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self {
            world: self.world.clone(),
            functions: Arc::clone(&self.functions),
            rng: self.rng.fork(),
        }
    }

    pub(super) fn deployment(&mut self) -> (u64, usize) {
        let world = self.world.lock();
        let one = &world.scene.deployments[self.rng.usize(0..world.scene.deployments.len())];
        (one.id, one.tenant)
    }

    /// A backup of the deployment as the table has it, or one that is not there.
    pub(super) fn some_backup(&mut self, deployment: u64) -> u64 {
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
                Some(_) => {
                    // Whoever has made one looks whether it is there.
                    if self.aside().is_some_and(|mut rng| rng.u8(0..4) == 0) {
                        self.read_backups(deployment, tenant).await?;
                    }
                    return Ok(());
                }
            }
            let pause = Duration::from_millis(self.rng.u64(500..20_000));
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    pub(crate) async fn create(&mut self, deployment: u64, tenant: usize) -> Result<Option<Reply>> {
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
        let what = What::Create { name, body: body.clone() };
        let path = format!("/deployments/{deployment}/backups");
        let sent = ("application/json", body.to_string());
        self.send((deployment, tenant, Key::Manage), what, ("POST", &path), sent).await
    }

    async fn list(&mut self, deployment: u64, tenant: usize) -> Result<Option<Reply>> {
        let key = if self.rng.bool() { Key::Read } else { Key::Manage };
        self.get(deployment, tenant, key).await
    }

    pub(super) async fn get(
        &mut self,
        deployment: u64,
        tenant: usize,
        key: Key,
    ) -> Result<Option<Reply>> {
        let path = format!("/deployments/{deployment}/backups");
        let asked = self.asked(deployment, tenant, key, What::List(Page::FIRST));
        self.ask(asked, "GET", &path, "", String::new()).await
    }

    /// The same, and does not come again.
    pub(super) async fn get_once(
        &mut self,
        deployment: u64,
        tenant: usize,
        key: Key,
    ) -> Result<Option<Reply>> {
        let path = format!("/deployments/{deployment}/backups");
        let asked = self.asked(deployment, tenant, key, What::List(Page::FIRST));
        self.ask_once(asked, "GET", &path, ("", String::new())).await
    }

    pub(super) async fn post(
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

    pub(super) fn asked(&self, deployment: u64, tenant: usize, key: Key, what: What) -> Asked {
        let world = self.world.lock();
        let owner = world.scene.deployments.iter().find(|one| one.id == deployment);
        let first = world.scene.deployments.iter().find(|one| one.tenant == tenant);
        let bound_elsewhere = key == Key::Bound && first.is_none_or(|one| one.id != deployment);
        let foreign = owner.is_none_or(|one| one.tenant != tenant) || bound_elsewhere;
        let good = world.scene.is_good(tenant, key, world.now(), world.now());
        let (called, hash) = (None, String::new());
        Asked { at: world.now(), deployment, key, tenant, good, foreign, called, hash, what }
    }

    /// Sends a request and waits for its answer; who is to come again does so when it is told
    /// to.
    pub(super) async fn ask(
        &mut self,
        mut asked: Asked,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Option<Reply>> {
        let mut comes = 1;
        loop {
            let sent = (content_type, body.clone());
            let reply = Box::pin(self.ask_once(asked.clone(), method, path, sent)).await?;
            let after = reply.as_ref().filter(|reply| reply.status == 429);
            let Some(after) = after.filter(|_| comes < COMES) else {
                if comes > 1 && after.is_none() {
                    self.world.lock().reach.hit("api came again");
                }
                return Ok(reply);
            };
            comes += 1;
            tokio::time::sleep(Duration::from_secs(after.header("retry-after").parse()?)).await;
            let again = self.asked(asked.deployment, asked.tenant, asked.key, asked.what);
            asked = Asked { called: asked.called, ..again };
        }
    }

    /// Sends a request and waits for its answer, as long as the gateway does.
    pub(super) async fn ask_once(
        &mut self,
        asked: Asked,
        method: &str,
        path: &str,
        (content_type, body): (&str, String),
    ) -> Result<Option<Reply>> {
        let secret = self.world.lock().scene.key(asked.tenant, asked.key).to_owned();
        let hash = Secret::parse(&secret).map(|secret| secret.hash()).unwrap_or_default();
        let asked = Asked { hash, ..asked };
        let mut request = Request::builder().method(method).uri(path);
        if !secret.is_empty() {
            request = request.header("ld-api-key", secret);
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if let Some(called) = &asked.called {
            request = request.header("idempotency-key", called);
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
        let good = world.scene.is_good(asked.tenant, asked.key, asked.at, now);
        let asked = Asked { good, ..asked };
        world.trace.line(now, || match &reply {
            None => format!("somebody < {method} {path}: no answer"),
            Some(reply) => {
                let body = String::from_utf8_lossy(&reply.body);
                format!("somebody < {method} {path}: {} {body}", reply.status)
            }
        });
        if let Some(reply) = &reply
            && (has_secret(&reply.body) || has_secret(format!("{:?}", reply.headers).as_bytes()))
        {
            world.judge(Err(Violation::new("secret", format!("{asked:?}: {reply:?}"))));
        }
        let verdict =
            world.oracle.answered(now, &asked, reply.as_ref(), disturbed, &mut world.reach);
        world.judge(verdict);
        Ok(reply)
    }
}
