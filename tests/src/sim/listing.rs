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

    /// Reads a list, and goes on for as long as a link leads on.
    pub(super) async fn pages(
        &mut self,
        (deployment, tenant, key): (u64, usize, Key),
        list: &str,
        what: fn(Page) -> What,
    ) -> Result<()> {
        let mut page = self.page();
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

    /// Which page somebody begins with. Of a generator of its own: what else is drawn stays as
    /// it is. Those whose every call is crashed, and those that wait in a herd, read all.
    fn page(&self) -> Page {
        if matches!(self.world.lock().profile.kind, Kind::Sweep(_) | Kind::Herd(_)) {
            return Page::FIRST;
        }
        let mut rng = Rng::with_seed(self.rng.clone().u64(..) ^ 0x7061_6765);
        if rng.u8(0..3) == 0 {
            return Page::FIRST;
        }
        Page {
            limit: (rng.u8(0..8) > 0).then(|| rng.u64(1..=3)),
            before: (rng.u8(0..4) == 0).then(|| rng.u64(1..=12)),
        }
    }
}
