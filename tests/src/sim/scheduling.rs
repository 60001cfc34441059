//! What people do about schedules, and the control plane about upgrades.

use std::time::Duration;

use serde_json::{Value, json};

use super::drive::control_plane;
use super::oracle::What;
use super::oracle::slots::{NIGHTLY, OFTEN, SELDOM};
use super::people::Person;
use super::scene::Key;
use crate::Result;

impl Person {
    /// Sets a schedule, most of the time; or reads it, or deletes it.
    pub(super) async fn schedule(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let path = format!("/deployments/{deployment}/backups/schedule");
        let nodes: Vec<u64> = {
            let world = self.world.lock();
            let mut all = world.scene.deployments.iter();
            let one = all.find(|one| one.id == deployment);
            one.into_iter().flat_map(|one| one.nodes.iter().map(|(node, _)| *node)).collect()
        };
        let (method, body) = match self.rng.u8(0..10) {
            0 | 1 => ("GET", Value::Null),
            2 => ("DELETE", Value::Null),
            _ => {
                let (clocks, long) = {
                    let world = self.world.lock();
                    (world.profile.clocks, world.profile.kind.is_long())
                };
                let of = match self.rng.u8(0..4) {
                    _ if long => &SELDOM[..],
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
                ("PUT", body)
            }
        };
        let what = if method == "GET" { What::Schedule } else { What::Reschedule(body.clone()) };
        let key = if method == "GET" && self.rng.bool() { Key::Read } else { Key::Manage };
        let asked = self.asked(deployment, tenant, key, what);
        let (content_type, text) = match method {
            "PUT" => ("application/json", body.to_string()),
            _ => ("", String::new()),
        };
        self.ask(asked, method, &path, content_type, text).await.map(|_| ())
    }

    /// Deletes a schedule, until that is answered.
    pub(super) async fn unschedule(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let path = format!("/deployments/{deployment}/backups/schedule");
        for _ in 0..5 {
            let what = What::Reschedule(Value::Null);
            let asked = self.asked(deployment, tenant, Key::Manage, what);
            let reply = self.ask(asked, "DELETE", &path, "", String::new()).await?;
            if reply.is_some_and(|reply| reply.status < 500) {
                break;
            }
        }
        Ok(())
    }

    /// An upgrade is about to begin; some ask more than once.
    pub(super) async fn upgrade(&mut self, deployment: u64) -> Result<()> {
        // Also of a deployment that nobody knows.
        let deployment = if self.rng.u8(0..12) == 0 { 1 << 61 } else { deployment };
        let detail = json!({
            "deployment_id": deployment,
            "upgrade_id": format!("upgrade-{}", self.rng.u8(0..24)),
        });
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
