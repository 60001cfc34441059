//! The crash loop of restores: each is killed at a phase that was hit least so far, there
//! or on the way back, once or twice, and must end `completed` or `rolled_back` with every
//! node running on the volumes that its status says, the data of then on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::{Plan, Tally};
use crate::http::Call;
use crate::rows::{items, text};
use crate::{Cloud, MANY, Process, Result, audit, database, fail};

/// Where a restore can be killed: before it is looked at, in each phase of the way there,
/// and in each of the way back.
pub const MOMENTS: [&str; 9] = [
    "pending",
    "safeguarding",
    "preparing",
    "stopping",
    "swapping",
    "starting",
    "back stopping",
    "back swapping",
    "back starting",
];

/// Instances and volumes take nearly their own time; [`pace`] makes time go faster.
const FLAGS: [&str; 6] = ["--speed", "4", "--tick", "1", "--log", "debug"];

/// Looks until a restore must have come to where it is waited for.
const LOOKS: usize = 6000;

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Restores that were asked for.
    pub restores: u32,
    /// Kills.
    pub kills: u32,
    /// Kills by where they hit.
    pub tally: Tally,
    /// How the restores ended.
    pub ends: BTreeMap<String, u32>,
}

/// What is written on each data volume of each node, by instance and device.
type Contents = BTreeMap<(String, String), String>;

struct Loop<'a> {
    folder: &'a Path,
    rng: Rng,
    seed: String,
    report: Report,
    /// The data of the backup.
    kept: Contents,
}

/// A running process, and what makes its time go.
struct Running {
    process: Process,
    pace: tokio::task::JoinHandle<()>,
}

/// Runs the loop in an empty folder. `told` hears of each restore.
///
/// # Errors
/// The first thing that does not hold.
pub async fn run(folder: &Path, plan: Plan, told: &dyn Fn(&Report)) -> Result<Report> {
    let tally = MOMENTS.map(|moment| (moment, 0)).into();
    let mut state = Loop {
        folder,
        rng: Rng::with_seed(plan.seed),
        seed: plan.seed.to_string(),
        report: Report { tally, ..Report::default() },
        kept: Contents::new(),
    };
    state.prepare().await?;
    while state.report.tally.values().any(|kills| *kills < plan.until_each) {
        if state.report.kills >= plan.rounds {
            let tally = &state.report.tally;
            return fail(format!("{} kills did not hit each moment: {tally:?}", plan.rounds));
        }
        state.restore().await?;
        told(&state.report);
    }
    state.leaves_nothing().await?;
    Ok(state.report)
}

impl Loop<'_> {
    async fn start(&self) -> Result<Running> {
        let mut flags = FLAGS.to_vec();
        flags.extend(["--seed", &self.seed]);
        let process = Process::start(self.folder, &flags).await?;
        let cloud = process.cloud.clone();
        let pace = tokio::spawn(async move { while pace(&cloud).await.is_ok() {} });
        Ok(Running { process, pace })
    }

    /// A backup of what is written now.
    async fn prepare(&mut self) -> Result<()> {
        let running = self.start().await?;
        let cloud = &running.process.cloud;
        self.kept = write(cloud, "kept").await?;
        let backup = cloud.create("kept").await?;
        cloud.until_status(backup, "completed").await?;
        running.kill().await
    }

    /// One restore, killed once or twice.
    async fn restore(&mut self) -> Result<()> {
        self.report.restores += 1;
        let least = self.report.tally.values().min().copied().unwrap_or(0);
        let open = self.report.tally.iter().filter(|(_, kills)| **kills == least);
        let open: Vec<&str> = open.map(|(moment, _)| *moment).collect();
        let mut aim = self.rng.choice(open).unwrap_or("pending");
        let running = self.start().await?;
        let cloud = running.process.cloud.clone();
        let before = write(&cloud, &format!("before {}", self.report.restores)).await?;
        let id = ask(&cloud, aim == "safeguarding").await?;
        if aim.starts_with("back") {
            self.turn_back(&cloud, id, aim).await?;
        }
        let mut running = self.killed_at(running, id, aim).await?;
        if self.rng.bool() {
            aim = self.rng.choice(MOMENTS).unwrap_or(aim);
            running = self.killed_at(running, id, aim).await?;
        }
        let cloud = &running.process.cloud;
        let done = until(cloud, id, |_, over| over).await?;
        self.ended(cloud, &done, &before).await?;
        running.kill().await
    }

    /// Makes it go back: by a refused attachment, or, from where a node runs on its new
    /// volumes already, by an operator's order.
    async fn turn_back(&mut self, cloud: &Cloud, id: u64, aim: &str) -> Result<()> {
        if aim != "back stopping" {
            let phase = if self.rng.bool() { "stopping" } else { "swapping" };
            until(cloud, id, |at, over| over || at == phase).await?;
            let code = "AttachmentLimitExceeded";
            return cloud.arm(&json!({"on": "AttachVolume", "do": "error", "code": code})).await;
        }
        until(cloud, id, |at, over| over || at == "swapping").await?;
        let instance = &cloud.demo.nodes[1].instance_id;
        let code = "Server.InsufficientInstanceCapacity";
        cloud
            .arm(&json!({
                "on": "StartInstances", "do": "fail_later", "code": code,
                "resource": instance, "times": MANY,
            }))
            .await?;
        until(cloud, id, |at, over| over || at == "starting").await?;
        for _ in 0..LOOKS {
            let state = cloud.state().await?;
            if items(&state["instances"]).any(|one| one["state"] == "running") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let order = json!({
            "version": 1,
            "order_id": format!("order-{id}"),
            "deployment_id": cloud.demo.deployment_id,
            "restore_id": id,
            "order": "roll_back",
        });
        cloud.put_event("supervisor.backups", "Restore Ordered", &order).await
    }

    /// Kills it when the restore is seen at `aim`, or over; looks at what it left, and
    /// starts it again.
    async fn killed_at(&mut self, running: Running, id: u64, aim: &str) -> Result<Running> {
        let cloud = running.process.cloud.clone();
        if aim != "pending" {
            until(&cloud, id, |at, over| over || at == aim).await?;
            tokio::time::sleep(Duration::from_millis(self.rng.u64(0..80))).await;
        }
        let table = cloud.demo.table.clone();
        running.kill().await?;
        self.report.kills += 1;
        let rows = database::rows(self.folder, &table)?;
        let faults = audit::always(&rows);
        if !faults.is_empty() {
            return fail(format!("after kill {}:\n{}", self.report.kills, faults.join("\n")));
        }
        let row = rows.iter().find(|row| row.restore() == Some((cloud.demo.deployment_id, id)));
        let at = row.map(|row| moment(&row.0)).unwrap_or_default();
        if let Some((_, kills)) = self.report.tally.iter_mut().find(|(one, _)| **one == at) {
            *kills += 1;
        }
        let running = self.start().await?;
        running.process.cloud.disarm().await?;
        Ok(running)
    }

    /// Every node runs, with the data that the restore's end says.
    async fn ended(&mut self, cloud: &Cloud, done: &Value, before: &Contents) -> Result<()> {
        let status = text(done, "status");
        *self.report.ends.entry(status.to_owned()).or_default() += 1;
        let wanted = match status {
            "completed" => &self.kept,
            "rolled_back" => before,
            _ => return fail(format!("restore {} ended {status}: {done}", done["id"])),
        };
        let state = cloud.state().await?;
        for node in &cloud.demo.nodes {
            let of = |one: &&Value| text(one, "instance_id") == node.instance_id;
            let state =
                items(&state["instances"]).find(of).map_or("gone", |one| text(one, "state"));
            if state != "running" {
                return fail(format!("{} is {state} after {done}", node.instance_id));
            }
        }
        let found = contents(cloud, &state);
        if found != *wanted {
            return fail(format!("{found:?}\nis not {wanted:?}\nafter {done}"));
        }
        // Of the limit one is to be free for the next one's.
        if let Some(safety) = done["safety_backup_id"].as_u64() {
            cloud.delete(safety).await?;
            for _ in 0..LOOKS {
                if cloud.status(safety).await?.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            return fail(format!("backup {safety} is not deleted"));
        }
        Ok(())
    }

    /// After the old volumes' time each volume hangs on a node, or is kept and named.
    async fn leaves_nothing(&self) -> Result<()> {
        let running = self.start().await?;
        let cloud = &running.process.cloud;
        cloud.advance(25 * 3600).await?;
        let mut left = BTreeSet::new();
        for _ in 0..200 {
            cloud.tick().await?;
            let state = cloud.state().await?;
            let rows = cloud.rows().await?;
            let named = rows.iter().filter(|row| row.restore().is_some());
            let named = named.flat_map(|row| items(&row.0["leftovers"]));
            let named: BTreeSet<&str> = named
                .filter(|one| one["fate"] == "kept")
                .map(|one| text(one, "volume_id"))
                .collect();
            let there = items(&state["volumes"]).filter(|one| one["state"] == "available");
            left = there.map(|one| text(one, "volume_id").to_owned()).collect();
            left.retain(|id| !named.contains(id.as_str()));
            if left.is_empty() {
                let faults = audit::at_rest(cloud, &cloud.rest().await?).await?;
                running.kill().await?;
                return if faults.is_empty() { Ok(()) } else { fail(faults.join("\n")) };
            }
        }
        fail(format!("volumes that nobody needs and nobody names: {left:?}"))
    }
}

impl Running {
    async fn kill(self) -> Result<()> {
        self.pace.abort();
        self.process.kill().await
    }
}

/// Lets a second pass. The worker's waits end with it.
async fn pace(cloud: &Cloud) -> Result<()> {
    cloud.advance(1).await?;
    tokio::time::sleep(Duration::from_millis(25)).await;
    Ok(())
}

/// Asks for a restore of the backup.
async fn ask(cloud: &Cloud, safety: bool) -> Result<u64> {
    let path = format!("{}/1/restore", cloud.backups());
    let call = Call::new("POST", path).key(&cloud.demo.keys.manage);
    let reply = cloud.send(call.json(json!({"safety_backup": safety}).to_string())).await?;
    match reply.header("ld-restore").parse() {
        Ok(id) => Ok(id),
        Err(_) => fail(format!("no restore: {} {}", reply.status, reply.text)),
    }
}

/// Asks for the restore until it is where it is waited for, or over.
async fn until(cloud: &Cloud, id: u64, wanted: impl Fn(&str, bool) -> bool) -> Result<Value> {
    let path = format!("/deployments/{}/restores/{id}", cloud.demo.deployment_id);
    let mut shown = Value::Null;
    for _ in 0..LOOKS {
        let reply = cloud.send(Call::new("GET", path.clone()).key(&cloud.demo.keys.read)).await?;
        shown = reply.json();
        let ends = ["completed", "rolled_back", "failed", "stuck"];
        if wanted(&moment(&shown), ends.contains(&text(&shown, "status"))) {
            return Ok(shown);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fail(format!("restore {id} stays as it is: {shown}"))
}

/// Where a restore is, as [`MOMENTS`] names it.
fn moment(restore: &Value) -> String {
    match (text(restore, "status"), text(restore, "phase")) {
        ("rolling_back", phase) => format!("back {phase}"),
        ("in_progress", phase) => phase.to_owned(),
        (status, _) => status.to_owned(),
    }
}

/// Writes on every data volume of every node.
async fn write(cloud: &Cloud, what: &str) -> Result<Contents> {
    let state = cloud.state().await?;
    for (instance, attached) in attached(cloud, &state) {
        let body = json!({
            "volume_id": attached["volume_id"],
            "content": format!("{what} {instance} {}", attached["device"]),
        });
        cloud.local("POST", "write", &body).await?;
    }
    Ok(contents(cloud, &cloud.state().await?))
}

fn contents(cloud: &Cloud, state: &Value) -> Contents {
    let content = |id: &Value| {
        let mut found = items(&state["volumes"]).filter(|one| one["volume_id"] == *id);
        found.next().map_or("gone", |one| text(one, "content")).to_owned()
    };
    let all = attached(cloud, state);
    all.map(|(instance, one)| {
        ((instance.to_owned(), text(one, "device").to_owned()), content(&one["volume_id"]))
    })
    .collect()
}

/// The data volumes of the deployment's nodes.
fn attached<'a>(cloud: &'a Cloud, state: &'a Value) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let ours = |one: &&Value| {
        cloud.demo.nodes.iter().any(|node| node.instance_id == text(one, "instance_id"))
    };
    items(&state["instances"]).filter(ours).flat_map(|instance| {
        let data = items(&instance["attachments"]).filter(|one| one["device"] != "/dev/xvda");
        data.map(move |one| (text(instance, "instance_id"), one))
    })
}
