//! People who look at one backup and change it.

use std::time::Duration;

use serde_json::{Value, json};

use super::oracle::What;
use super::people::Person;
use super::plan::Kind;
use super::reply::Reply;
use super::scene::Key;
use crate::Result;

/// How often a request is sent: for less than the ten minutes for which its answer is kept.
const TRIES: u32 = 8;

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

    /// Asks for a change of any kind. Who calls it anything asks again as long as nobody knows
    /// what came of it.
    pub(super) async fn send(
        &mut self,
        (deployment, tenant, key): (u64, usize, Key),
        what: What,
        (method, path): (&str, &str),
        (kind, body): (&str, String),
    ) -> Result<Option<Reply>> {
        // A herd needs what it asks for, and what a sweep's runs meet is demanded of them.
        let about = self.world.lock().profile.kind;
        let (sweep, herd) = (matches!(about, Kind::Sweep(_)), matches!(about, Kind::Herd(_)));
        let plain = herd || sweep && matches!(what, What::Restore { .. } | What::Reschedule(_));
        let called = (!plain && self.rng.bool()).then(|| self.called(!sweep));
        let mut tries = 0;
        loop {
            let mut asked = self.asked(deployment, tenant, key, what.clone());
            asked.called.clone_from(&called);
            let reply = self.ask(asked, method, path, kind, body.clone()).await?;
            tries += 1;
            if called.is_none() || tries == TRIES || !self.again(reply.as_ref()).await {
                return Ok(reply);
            }
        }
    }

    /// What a request is called: now and then as the one before it, whosever that was, if
    /// that may be.
    fn called(&mut self, any: bool) -> String {
        let new = format!("{:016x}", self.rng.u64(..));
        let again = any && self.rng.u8(0..16) == 0;
        let last = &mut self.world.lock().scene.called;
        if !again || last.is_empty() {
            *last = new;
        }
        last.clone()
    }

    /// Whether a request is sent again, after a while: when nobody knows what came of it, and
    /// now and then for no reason.
    async fn again(&mut self, reply: Option<&Reply>) -> bool {
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
