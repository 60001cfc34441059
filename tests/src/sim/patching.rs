//! People who look at one backup and change it.

use std::time::Duration;

use serde_json::{Value, json};

use super::oracle::What;
use super::people::Person;
use super::reply::Reply;
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

    /// Changes one, one that is about to expire if there is any; now and then two do at once.
    pub(super) async fn patch(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let (expiring, now) = {
            let world = self.world.lock();
            (world.oracle.expiring(deployment, world.now()), world.now())
        };
        let id = match expiring {
            Some((id, at)) => {
                let at = at.duration_since(now).as_secs() + self.rng.i64(-5..=70);
                tokio::time::sleep(Duration::from_secs(u64::try_from(at).unwrap_or(0))).await;
                id
            }
            None => self.some_backup(deployment),
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

    /// Changes this one, and asks again as long as nobody knows what came of it.
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
        let called = self.called();
        loop {
            let what = What::Patch { backup: id, body: body.clone() };
            let mut asked = self.asked(deployment, tenant, key, what);
            asked.called.clone_from(&called);
            let json = "application/json";
            let reply = self.ask(asked, "PATCH", &path, json, body.to_string()).await?;
            if called.is_none() || !self.again(reply.as_ref()).await {
                return Ok(());
            }
        }
    }

    /// What a request is called, by those who call theirs anything.
    pub(super) fn called(&mut self) -> Option<String> {
        self.rng.bool().then(|| format!("{:016x}", self.rng.u64(..)))
    }

    /// Whether a request is sent again, after a while: when nobody knows what came of it, and
    /// now and then for no reason.
    pub(super) async fn again(&mut self, reply: Option<&Reply>) -> bool {
        let unknown = reply.is_none_or(|reply| {
            reply.status >= 500 || reply.code() == "idempotent_request_in_progress"
        });
        let again = self.rng.u8(0..8) < if unknown { 7 } else { 1 };
        if again {
            tokio::time::sleep(Duration::from_millis(self.rng.u64(0..20_000))).await;
        }
        again
    }
}
