//! Who has no business here, and what is no request or event of ours.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::drive::control_plane;
use super::oracle::{Violation, What};
use super::people::Person;
use super::scene::Key;
use crate::Result;

impl Person {
    pub(super) async fn stranger(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let keys = [
            Key::Missing,
            Key::Expired,
            Key::Unknown,
            Key::Ending,
            Key::Ending,
            Key::Read,
            Key::Bound,
            Key::Manage,
        ];
        let key = keys[self.rng.usize(0..keys.len())];
        if key == Key::Ending && self.rng.bool() {
            // In its last seconds, or in the first after them.
            let at = {
                let world = self.world.lock();
                let ends = world.scene.ends + SignedDuration::from_secs(self.rng.i64(-20..=12));
                ends.duration_since(world.now())
            };
            tokio::time::sleep(Duration::try_from(at).unwrap_or_default()).await;
        }
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

    pub(super) async fn malformed(&mut self, deployment: u64, tenant: usize) -> Result<()> {
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

    /// A key is revoked while instances keep it in mind, and a new one is used at once.
    pub(super) async fn keys(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        for key in [Key::Old, Key::New] {
            self.get(deployment, tenant, key).await?;
        }
        if self.rng.bool() {
            self.keys_by_events(tenant).await;
        } else {
            let mut world = self.world.lock();
            let now = world.now();
            let world = &mut *world;
            world.scene.renew(tenant, now, &mut world.table)?;
        }
        for key in [Key::New, Key::Old] {
            self.get(deployment, tenant, key).await?;
        }
        let soon = self.rng.u64(50..80);
        tokio::time::sleep(Duration::from_secs(soon)).await;
        if let Some(reply) = self.get(deployment, tenant, Key::Old).await?
            && reply.status == 401
        {
            self.world.lock().reach.hit("turn revoked key known");
        }
        Ok(())
    }

    /// The same by the control plane's word, in any order; waits until it is so.
    async fn keys_by_events(&mut self, tenant: usize) {
        {
            let mut world = self.world.lock();
            let world = &mut *world;
            let now = world.now();
            let (late, odd) = (self.rng.bool(), self.rng.u8(0..4) == 0);
            let Some(mut said) = world.scene.renew_by_events(tenant, now, (late, odd)) else {
                return;
            };
            self.rng.shuffle(&mut said);
            for detail in &said {
                let kind = "API Key Changed";
                control_plane(&mut world.cloud, &mut world.oracle, now, kind, detail);
            }
            world.wake_if_sooner();
        }
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut world = self.world.lock();
            let world = &mut *world;
            let now = world.now();
            if world.scene.renewed_by_events(tenant, now, &world.table) {
                world.reach.hit("registry key changed");
                return;
            }
        }
    }

    pub(super) async fn foreign_event(&mut self) -> Result<()> {
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
        // What is not ours is no error; what is nothing goes to the dead letters.
        let answer = self.functions.worker(event).await?;
        let refused = answer.as_ref().is_err_and(|why| why.starts_with("event refused"));
        // Of ours nobody asks AWS first, so that nothing can stand in its way.
        if (kind < 2 && refused) || (kind >= 2 && answer.is_ok()) {
            let what = format!("{source} {detail_type}: {answer:?}");
            self.world.lock().judge(Err(Violation::new("foreign-event", what)));
        }
        Ok(())
    }
}
