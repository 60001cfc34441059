//! How people send what changes something: half of it by a name, and by that again and again.

use std::time::Duration;

use futures_util::future::join;

use super::oracle::What;
use super::people::Person;
use super::plan::Kind;
use super::reply::Reply;
use super::scene::Key;
use crate::Result;

/// How often a request is sent: for less than the ten minutes for which its answer is kept.
const TRIES: u32 = 8;

impl Person {
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
            // Now and then it is sent twice at the same moment.
            let mut twin =
                (called.is_some() && !sweep && self.rng.u8(0..8) == 0).then(|| self.fork());
            let second = async {
                let Some(twin) = &mut twin else { return Ok(None) };
                twin.ask(asked.clone(), method, path, kind, body.clone()).await
            };
            let first = self.ask(asked.clone(), method, path, kind, body.clone());
            let (first, second) = join(first, second).await;
            let (first, second) = (first?, second?);
            let done = |reply: &Option<Reply>| reply.as_ref().is_some_and(|one| one.status == 204);
            if done(&first) && done(&second) {
                self.world.lock().reach.hit("api 204 twice at once");
            }
            let reply = if done(&second) { second } else { first };
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
