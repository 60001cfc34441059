//! The crash loop: users make and delete backups, the process is killed at a
//! random moment, and what it left behind must hold, each time and at the end.
//!
//! ```text
//!   start ─▶ users at work ─▶ kill -9 ─▶ read the file: what holds always? what was acknowledged?
//!     ▲                                    │
//!     └────────────────────────────────────┘   every few rounds: until all is at rest, and audit
//! ```

pub mod restores;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use crate::rows::{self, BackupKey, Row};
use crate::{Cloud, Process, Result, audit, database, fail};

/// Every status that a backup can have.
pub const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "deleting"];

/// Snapshots take two to eight seconds: some run at every kill.
const FLAGS: [&str; 6] = ["--speed", "60", "--tick", "1", "--log", "debug"];

/// Every so many rounds everything is brought to rest and audited.
const AUDIT_EVERY: u32 = 12;

/// How long the loop goes on, and from which seed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The most kills.
    pub rounds: u32,
    /// It ends when each status was the state of some backup at this many kills.
    pub until_each: u32,
    /// Of every choice but the operating system's.
    pub seed: u64,
}

/// In how many kills each status was the state of some backup.
pub type Tally = BTreeMap<&'static str, u32>;

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Kills.
    pub kills: u32,
    /// By status.
    pub tally: Tally,
    /// Creates that were acknowledged.
    pub made: usize,
    /// Deletes that were acknowledged.
    pub deleted: usize,
    /// Requests that the kill left without an answer.
    pub unanswered: usize,
}

/// What a user knows of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// 204 and its id.
    Made,
    /// A delete was sent, and nobody said what came of it.
    DeleteSent,
    /// 204.
    Deleted,
}

/// What all users know together.
#[derive(Debug, Default)]
struct Ledger {
    backups: BTreeMap<BackupKey, Known>,
    names: u64,
    unanswered: usize,
    faults: Vec<String>,
}

/// The loop's state.
struct Loop<'a> {
    folder: &'a Path,
    rng: Rng,
    ledger: Arc<Mutex<Ledger>>,
    report: Report,
    deployments: Vec<u64>,
    seed: String,
}

/// Runs the loop in an empty folder. `told` hears of each kill.
///
/// # Errors
/// The first thing that does not hold.
pub async fn run(folder: &Path, plan: Plan, told: &dyn Fn(&Report)) -> Result<Report> {
    let mut state = Loop {
        folder,
        rng: Rng::with_seed(plan.seed),
        ledger: Arc::default(),
        report: Report { tally: STATUSES.map(|status| (status, 0)).into(), ..Report::default() },
        deployments: Vec::new(),
        seed: plan.seed.to_string(),
    };
    state.prepare().await?;
    while state.report.tally.values().any(|kills| *kills < plan.until_each) {
        if state.report.kills == plan.rounds {
            return fail(format!(
                "{} kills did not hit each status: {:?}",
                plan.rounds, state.report.tally
            ));
        }
        state.round().await?;
        told(&state.report);
        if state.report.kills.is_multiple_of(AUDIT_EVERY) {
            state.audit().await?;
        }
    }
    state.audit().await?;
    let mut report = state.report;
    let ledger = lock(&state.ledger);
    report.made = ledger.backups.len();
    report.deleted = ledger.backups.values().filter(|known| **known == Known::Deleted).count();
    report.unanswered = ledger.unanswered;
    Ok(report)
}

impl Loop<'_> {
    async fn start(&self) -> Result<Process> {
        let mut flags = FLAGS.to_vec();
        flags.extend(["--seed", &self.seed]);
        Process::start(self.folder, &flags).await
    }

    /// Two more deployments, of one node each.
    async fn prepare(&mut self) -> Result<()> {
        let process = self.start().await?;
        let cloud = &process.cloud;
        self.deployments = vec![cloud.demo.deployment_id, cloud.demo.other_deployment_id];
        for (n, node) in (1..).zip(&cloud.demo.nodes[..2]) {
            let id = cloud.demo.deployment_id + 1000 + n;
            let node = json!({"node_id": node.node_id, "instance_id": node.instance_id});
            cloud.register(id, 1, &json!({"nodes": [node]})).await?;
            self.deployments.push(id);
        }
        process.kill().await
    }

    /// From a start to a kill, and what the killed one left behind.
    async fn round(&mut self) -> Result<()> {
        let process = self.start().await?;
        let cloud = process.cloud.clone();
        // A worker that was killed holds its lease for a minute.
        if self.rng.bool() {
            cloud.advance(self.rng.u64(1..=75)).await?;
        }
        if self.rng.u8(0..4) == 0 {
            cloud.arm(&json!({"on": "CreateSnapshots", "do": "fail_later"})).await?;
        }
        if self.rng.u8(0..4) == 0 {
            let on = if self.rng.bool() { "event" } else { "bus" };
            cloud.arm(&json!({"on": on, "do": "drop", "times": self.rng.u64(1..4)})).await?;
        }
        let mut users = JoinSet::new();
        // Two at each, who know nothing of one another.
        for deployment in self.deployments.repeat(2) {
            let (cloud, ledger) = (cloud.clone(), Arc::clone(&self.ledger));
            let rng = self.rng.fork();
            users.spawn(async move {
                // Ends with the first request that the kill cuts off.
                let _ = user(&cloud, deployment, &ledger, rng).await;
            });
        }
        // Half of the kills come while the first requests are worked on: being
        // pending takes no longer than that.
        let longest = if self.rng.bool() { 100 } else { 3000 };
        tokio::time::sleep(Duration::from_millis(self.rng.u64(0..longest))).await;
        process.kill().await?;
        while users.join_next().await.is_some() {}
        let rows = database::rows(self.folder, &cloud.demo.table)?;
        self.report.kills += 1;
        for (status, kills) in &mut self.report.tally {
            let hit = rows::backups(&rows).values().any(|row| row.text("status") == *status);
            *kills += u32::from(hit);
        }
        let mut faults = audit::always(&rows);
        faults.extend(self.acknowledged(&rows));
        self.hold(&faults)
    }

    /// What users were told, against the rows.
    fn acknowledged(&self, rows: &[Row]) -> Vec<String> {
        let backups = rows::backups(rows);
        let ledger = lock(&self.ledger);
        let mut faults = ledger.faults.clone();
        for (key, known) in &ledger.backups {
            let status = backups.get(key).map_or("gone", |row| row.text("status"));
            let fits = match known {
                Known::Made => !matches!(status, "gone" | "deleting"),
                Known::DeleteSent => true,
                Known::Deleted => matches!(status, "gone" | "deleting"),
            };
            if !fits {
                faults.push(format!("{key:?}: users know {known:?}, and it is {status}"));
            }
        }
        // Each create has a name of its own and is sent once.
        let mut names = BTreeMap::new();
        for (key, row) in backups {
            if let Some(other) = names.insert(row.text("name"), key) {
                faults.push(format!("{other:?} and {key:?} are of one request"));
            }
        }
        faults
    }

    /// Brings everything to rest and looks at all of it.
    async fn audit(&mut self) -> Result<()> {
        let process = self.start().await?;
        let cloud = &process.cloud;
        cloud.disarm().await?;
        let rows = cloud.rest().await?;
        let mut faults = audit::at_rest(cloud, &rows).await?;
        faults.extend(self.acknowledged(&rows));
        for (key, known) in &lock(&self.ledger).backups {
            if *known == Known::Deleted && rows::backups(&rows).contains_key(key) {
                faults.push(format!("{key:?} was deleted and is still there"));
            }
        }
        process.kill().await?;
        self.hold(&faults)
    }

    fn hold(&self, faults: &[String]) -> Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        fail(format!("after kill {}:\n{}", self.report.kills, faults.join("\n")))
    }
}

/// One user of one deployment: makes a backup whenever none runs, and deletes
/// what is more than two of.
async fn user(cloud: &Cloud, deployment: u64, ledger: &Mutex<Ledger>, mut rng: Rng) -> Result<()> {
    loop {
        let list = cloud.list_of(deployment).await?;
        let status = |status: &str| {
            let of_it = list.iter().filter(move |item| item["status"] == status);
            of_it.filter_map(|item| item["id"].as_u64()).collect::<Vec<u64>>()
        };
        let (completed, failed) = (status("completed"), status("failed"));
        let active = status("pending").len() + status("in_progress").len();
        if active == 0 && completed.len() < 4 {
            create(cloud, deployment, ledger).await?;
        }
        let spare = completed.iter().skip(2).chain(failed.iter().skip(1));
        let spare: Vec<u64> = spare.copied().collect();
        if let Some(id) = rng.choice(spare) {
            delete(cloud, (deployment, id), ledger).await?;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(5..60))).await;
    }
}

async fn create(cloud: &Cloud, deployment: u64, ledger: &Mutex<Ledger>) -> Result<()> {
    let name = {
        let mut ledger = lock(ledger);
        ledger.names += 1;
        ledger.unanswered += 1;
        format!("request {}", ledger.names)
    };
    let reply = cloud.create_on(deployment, &json!({"name": name})).await?;
    let mut ledger = lock(ledger);
    ledger.unanswered -= 1;
    if reply.status == 204 {
        let key = (deployment, reply.backup()?);
        if ledger.backups.insert(key, Known::Made).is_some() {
            ledger.faults.push(format!("{key:?} was given out twice"));
        }
    }
    Ok(())
}

async fn delete(cloud: &Cloud, key: BackupKey, ledger: &Mutex<Ledger>) -> Result<()> {
    {
        let mut ledger = lock(ledger);
        ledger.unanswered += 1;
        // One whose create was not answered is known from the list.
        ledger.backups.insert(key, Known::DeleteSent);
    }
    let reply = cloud.delete_on(key.0, key.1).await?;
    let mut ledger = lock(ledger);
    ledger.unanswered -= 1;
    if matches!(reply.status, 204 | 404) {
        ledger.backups.insert(key, Known::Deleted);
    }
    Ok(())
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
