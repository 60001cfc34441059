//! People who read a list: all of it at once, or page by page.

use fastrand::Rng;

use super::oracle::{Page, What};
use super::people::Person;
use super::plan::Kind;
use super::scene::Key;
use crate::Result;

impl Person {
    /// Reads the backups.
    pub(super) async fn read_backups(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let key = if self.rng.bool() { Key::Read } else { Key::Manage };
        self.pages((deployment, tenant, key), "backups", What::List).await
    }

    /// Reads the restores, mostly of the deployment that has most of them: few have two.
    pub(super) async fn read_restores(&mut self, deployment: u64, tenant: usize) -> Result<()> {
        let chosen = self.aside().filter(|rng| rng.clone().u8(0..4) > 0).and_then(|_| {
            let world = self.world.lock();
            let all = world.scene.deployments.iter().map(|one| (one.id, one.tenant));
            all.max_by_key(|(id, _)| world.oracle.restores_of(*id).count())
        });
        let (deployment, tenant) = chosen.unwrap_or((deployment, tenant));
        self.pages((deployment, tenant, Key::Read), "restores", What::Restores).await
    }

    /// Reads a list, and goes on for as long as a link leads on.
    pub(super) async fn pages(
        &mut self,
        (deployment, tenant, key): (u64, usize, Key),
        list: &str,
        what: fn(Page) -> What,
    ) -> Result<()> {
        let mut page = self.page(deployment, list);
        loop {
            let path = format!("/deployments/{deployment}/{list}{page}");
            let asked = self.asked(deployment, tenant, key, what(page));
            let reply = self.ask(asked, "GET", &path, "", String::new()).await?;
            let Some(reply) = reply.filter(|reply| reply.status == 200) else { return Ok(()) };
            let Some(next) = Page::of_link(reply.header("link")) else { return Ok(()) };
            self.world.lock().reach.hit(&format!("api next page of {list}"));
            page = next;
        }
    }

    /// A generator beside one's own, so that what else is drawn stays as it is. None: nothing is
    /// to differ, where every call is crashed, and in a herd.
    pub(super) fn aside(&self) -> Option<Rng> {
        let plain = matches!(self.world.lock().profile.kind, Kind::Sweep(_) | Kind::Herd(_));
        (!plain).then(|| Rng::with_seed(self.rng.clone().u64(..) ^ 0x7061_6765))
    }

    /// Which page somebody begins with, so that there are others mostly.
    fn page(&self, deployment: u64, list: &str) -> Page {
        let Some(mut rng) = self.aside() else { return Page::FIRST };
        let world = self.world.lock();
        let known: Vec<u64> = if list == "backups" {
            world.oracle.backups_of(deployment).map(|(id, _)| id).collect()
        } else {
            world.oracle.restores_of(deployment).map(|(id, _)| id).collect()
        };
        drop(world);
        let most = u64::try_from(known.len() / 2).unwrap_or(0).max(1);
        let (limit, before) = (rng.u64(1..=most), rng.choice(known).unwrap_or(1));
        Page {
            limit: (rng.u8(0..4) > 0).then_some(limit),
            before: (rng.u8(0..3) == 0).then_some(before),
        }
    }
}
