//! People who look at one backup and change it.

use std::time::Duration;

use serde_json::{Value, json};

use super::oracle::What;
use super::people::Person;
use super::scene::Key;
use crate::Result;

impl Person {
    /// Looks at one backup.
    pub(super) async fn show(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let id = self.some_backup(deployment);
        let path = format!("/deployments/{deployment}/backups/{id}");
        let asked = self.asked(deployment, tenant, Key::Read, What::Show(id));
        self.ask(asked, "GET", &path, "", String::new()).await.map(|_| ())
    }

    /// Changes one: one that is about to expire if there is any, else one that is being
    /// deleted; now and then two do at once.
    pub(super) async fn patch(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let (expiring, going, now) = {
            let world = self.world.lock();
            let mut all = world.oracle.backups_of(deployment);
            let going = all.find(|(_, row)| row["status"] == "deleting").map(|(id, _)| id);
            (world.oracle.expiring(deployment, world.now()), going, world.now())
        };
        let id = match expiring {
            Some((id, at)) => {
                let at = at.duration_since(now).as_secs() + self.rng.i64(-5..=70);
                tokio::time::sleep(Duration::from_secs(u64::try_from(at).unwrap_or(0))).await;
                id
            }
            None => going.unwrap_or_else(|| self.some_backup(deployment)),
        };
        if self.rng.u8(0..4) > 0 {
            return self.patch_one(deployment, tenant, id).await;
        }
        let (mut one, mut other) = (self.fork(), self.fork());
        let both = tokio::join!(
            biased;
            one.patch_one(deployment, tenant, id),
            other.patch_one(deployment, tenant, id)
        );
        both.0.and(both.1)
    }

    /// Changes this one.
    async fn patch_one(&mut self, deployment: u64, tenant: usize, id: u64) -> Result<()> {
        let mut body = json!({ "name": self.world.lock().scene.name() });
        match self.rng.u8(0..4) {
            0 => body["remarks"] = Value::Null,
            1 => body["remarks"] = json!("changed"),
            _ => {}
        }
        match self.rng.u8(0..4) {
            0 => body["expires_in_days"] = Value::Null,
            1 | 2 => body["expires_in_days"] = json!(self.rng.u32(1..=5)),
            _ => {}
        }
        let key = if self.rng.u8(0..12) == 0 { Key::Read } else { Key::Manage };
        let path = format!("/deployments/{deployment}/backups/{id}");
        let what = What::Patch { backup: id, body: body.clone() };
        let sent = ("application/json", body.to_string());
        self.send((deployment, tenant, key), what, ("PATCH", &path), sent).await.map(|_| ())
    }
}
