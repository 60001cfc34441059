//! Scripts that ask as fast as they can, where a key may make only some requests in a minute.

use std::time::Duration;

use fastrand::Rng;
use futures_util::future::try_join_all;

use super::doing::Doing;
use super::happenings::Happens;
use super::people::Person;
use super::plan::{Kind, Plan, Profile};
use super::scene::Key;
use crate::{Failed, Result};

/// How many such scripts a seed has whose keys may make only some requests.
const RUSHES: u32 = 2;

/// How many of their requests go on at a time.
const SIDE_BY_SIDE: u32 = 3;

/// How many requests a key may make in a minute, if not as many as the template says.
pub(crate) fn limit(plan: &Plan, kind: Kind) -> Option<u32> {
    if matches!(kind, Kind::Herd(_) | Kind::Sweep(_)) {
        return None;
    }
    let mut rng = Rng::with_seed(plan.seed ^ 0x7275_7368);
    (rng.u8(0..8) == 0).then(|| [6, 12, 24][rng.usize(0..3)])
}

/// How many scripts a seed has.
pub(crate) const fn how_many(limit: Option<u32>) -> u32 {
    if limit.is_some() { RUSHES } else { 0 }
}

/// The scripts of a seed, and when they run.
pub(crate) fn draw(plan: &Plan, profile: &Profile) -> Vec<(i64, Happens)> {
    let mut rng = Rng::with_seed(plan.seed ^ 0x0068_6173_7465);
    let span = profile.span.as_secs();
    let all = 0..how_many(profile.requests);
    all.map(|_| (rng.i64(0..span), Happens::Doing(Doing::Rush))).collect()
}

impl Person {
    /// Asks for a list more often than the key may in a minute, and then as it was told to.
    pub(super) async fn rush(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let Some(limit) = self.world.lock().profile.requests else { return Ok(()) };
        let key = if self.rng.bool() { Key::Read } else { Key::Manage };
        let all: Vec<Self> = (0..SIDE_BY_SIDE).map(|_| self.fork()).collect();
        let asking = all.into_iter().map(|mut one| async move {
            for _ in 0..=limit / 2 {
                one.get_once(deployment, tenant, key).await?;
                tokio::time::sleep(Duration::from_millis(one.rng.u64(0..200))).await;
            }
            Ok::<_, Failed>(())
        });
        try_join_all(asking).await?;
        self.get(deployment, tenant, key).await.map(|_| ())
    }
}
