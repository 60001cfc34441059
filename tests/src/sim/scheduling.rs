//! What people do about schedules, and the control plane about upgrades.

use std::time::Duration;

use serde_json::{Value, json};

use super::drive::control_plane;
use super::oracle::What;
use super::oracle::slots::{NIGHTLY, OFTEN, SELDOM};
use super::people::Person;
use super::reply::Reply;
use super::scene::Key;
use crate::Result;

impl Person {
    /// Sets a schedule, most of the time; or reads it, or deletes it.
    pub(super) async fn schedule(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let nodes: Vec<u64> = {
            let world = self.world.lock();
            let mut all = world.scene.deployments.iter();
            let one = all.find(|one| one.id == deployment);
            one.into_iter().flat_map(|one| one.nodes.iter().map(|(node, _)| *node)).collect()
        };
        let key = if self.rng.bool() { Key::Read } else { Key::Manage };
        match self.rng.u8(0..10) {
            0 | 1 => return self.read_schedule(deployment, tenant, key).await,
            2 => return self.ask_no_schedule(deployment, tenant).await.map(|_| ()),
            _ => {}
        }
        let (clocks, kind) = {
            let world = self.world.lock();
            (world.profile.clocks, world.profile.kind)
        };
        let long = kind.is_long();
        let of = match self.rng.u8(0..4) {
            _ if long => &SELDOM[..],
            // Restores last for minutes.
            _ if kind.has_restores() => &OFTEN[..3],
            0..3 if clocks.is_changed() => &NIGHTLY,
            _ => &OFTEN,
        };
        let mut body = json!({ "cron": of[self.rng.usize(0..of.len())] });
        if clocks.is_changed() || self.rng.bool() {
            body["timezone"] = json!(clocks.zone(&mut self.rng));
        }
        if self.rng.u8(0..4) < if long { 2 } else { 1 } {
            body["expires_in_days"] = json!(self.rng.u32(1..=3));
        }
        if self.rng.u8(0..6) == 0 {
            let node = self.rng.choice(nodes).unwrap_or(1);
            body["node_id"] = json!(if self.rng.u8(0..4) == 0 { node + 1 } else { node });
        }
        if self.rng.u8(0..8) == 0 {
            body["enabled"] = json!(false);
        }
        self.set_schedule(deployment, tenant, &body).await.map(|_| ())
    }

    pub(super) async fn set_schedule(
        &mut self,
        deployment: u64,
        tenant: usize,
        body: &Value,
    ) -> Result<Option<Reply>> {
        let what = What::Reschedule(body.clone());
        let sent = ("application/json", body.to_string());
        let by = (deployment, tenant, Key::Manage);
        self.send(by, what, ("PUT", &path(deployment)), sent).await
    }

    pub(super) async fn read_schedule(
        &mut self,
        deployment: u64,
        tenant: usize,
        key: Key,
    ) -> Result<()> {
        let asked = self.asked(deployment, tenant, key, What::Schedule);
        self.ask(asked, "GET", &path(deployment), "", String::new()).await.map(|_| ())
    }

    async fn ask_no_schedule(&mut self, deployment: u64, tenant: usize) -> Result<Option<Reply>> {
        let what = What::Reschedule(Value::Null);
        let asked = self.asked(deployment, tenant, Key::Manage, what);
        self.ask(asked, "DELETE", &path(deployment), "", String::new()).await
    }

    /// Deletes a schedule, until that is answered.
    pub(super) async fn unschedule(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        for _ in 0..5 {
            let reply = self.ask_no_schedule(deployment, tenant).await?;
            if reply.is_some_and(|reply| reply.status < 500) {
                break;
            }
        }
        Ok(())
    }

    /// An upgrade is about to begin; some ask more than once.
    pub(super) async fn upgrade(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        // Also of a deployment that nobody knows.
        let deployment = if self.rng.u8(0..12) == 0 { 1 << 61 } else { deployment };
        let detail = json!({
            "deployment_id": deployment,
            "upgrade_id": format!("upgrade-{}", self.rng.u8(0..24)),
        });
        // It waits for what somebody has just begun.
        if self.rng.u8(0..3) == 0 {
            self.create(deployment, tenant).await?;
        }
        for _ in 0..=self.rng.u8(0..3) {
            {
                let mut world = self.world.lock();
                let world = &mut *world;
                let now = world.now();
                let kind = "Deployment Upgrade Requested";
                control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
                world.wake.notify_one();
            }
            tokio::time::sleep(Duration::from_secs(self.rng.u64(1..1_500))).await;
        }
        Ok(())
    }
}

fn path(deployment: u64) -> String {
    format!("/deployments/{deployment}/backups/schedule")
}
