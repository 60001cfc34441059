//! `cargo run -p tests --bin measure`: what each operation costs in calls and in
//! `DynamoDB` capacity, as a table for the README.
//!
//! At AWS's own pace: the clock is pushed only while no function runs, in steps
//! short enough that every event and tick comes when it would.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use tests::http::Call;
use tests::{Cloud, Failed, Here, MANY, Result, Setup, fail};

/// How far the clock is pushed at once.
const STEP: u64 = 5;

/// Seconds between ticks, as in template.yaml.
const TICK: i64 = 60;

/// The operation by which this program looks at the table, and which the service
/// never uses.
const LOOKING: &str = "Scan";

/// Calls by `service.operation`, and capacity read and written.
#[derive(Debug, Clone, Default)]
struct Cost {
    calls: BTreeMap<String, i64>,
    read: f64,
    write: f64,
}

impl Cost {
    /// What everything has cost so far, but for [`LOOKING`].
    async fn so_far(cloud: &Cloud) -> Result<Self> {
        let state = cloud.state().await?;
        let mut cost = Self::default();
        for (service, operations) in state["calls"].as_object().into_iter().flatten() {
            let operations = operations.as_object().into_iter().flatten();
            for (operation, count) in operations.filter(|(name, _)| *name != LOOKING) {
                cost.calls.insert(format!("{service}.{operation}"), count.as_i64().unwrap_or(0));
            }
        }
        let capacity = state["capacity"].as_object().into_iter().flatten();
        for (_, used) in capacity.filter(|(name, _)| *name != LOOKING) {
            cost.read += used["read"].as_f64().unwrap_or(0.0);
            cost.write += used["write"].as_f64().unwrap_or(0.0);
        }
        Ok(cost)
    }

    /// Without `times` times another.
    fn without(mut self, other: &Self, times: u32) -> Self {
        for (name, count) in &other.calls {
            *self.calls.entry(name.clone()).or_default() -= count * i64::from(times);
        }
        self.read -= other.read * f64::from(times);
        self.write -= other.write * f64::from(times);
        self
    }

    fn row(&self, what: &str) -> String {
        let calls: Vec<String> = self
            .calls
            .iter()
            .filter(|(_, count)| **count != 0)
            .map(|(name, count)| format!("{count} {}", name.split('.').nth(1).unwrap_or(name)))
            .collect();
        format!("| {what} | {} | {:.1} | {:.1} |", calls.join(", "), self.read, self.write)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure().await {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<String> {
    let here = Here::start(Setup { speed: 1.0, ..Setup::default() }).await?;
    let progress = ProgressBar::new_spinner();
    let mut rows = vec![
        "| Operation | Calls | Read units | Write units |".to_owned(),
        "|---|---|---:|---:|".to_owned(),
    ];
    let keys = here.demo.keys.clone();
    let list = || Call::new("GET", here.backups()).key(&keys.manage);

    // The first one also reads the stack's own row.
    here.tick().await?;
    let before = Cost::so_far(&here).await?;
    here.tick().await?;
    let tick = Cost::so_far(&here).await?.without(&before, 1);
    rows.push(tick.row("a tick of the scheduler, nothing due"));

    rows.push(request(&here, list(), "list, the key not read in the last 20 s").await?);
    rows.push(request(&here, list(), "list").await?);

    // The worker hears of it later: what is counted is the request's own.
    here.advance(30).await?;
    here.arm(&json!({"on": "bus", "do": "drop", "times": MANY})).await?;
    let before = Cost::so_far(&here).await?;
    let id = here.create("measured").await?;
    rows.push(Cost::so_far(&here).await?.without(&before, 1).row("create, the request alone"));
    here.disarm().await?;
    here.tick().await?;
    pass(&here, id, "completed", &progress).await?;
    demand(here.delete(id).await?.status == 204, "the delete")?;
    pass(&here, id, "", &progress).await?;

    here.advance(30).await?;
    let before = Cost::so_far(&here).await?;
    let id = here.create("measured").await?;
    let ticks = pass(&here, id, "completed", &progress).await?;
    let life = Cost::so_far(&here).await?.without(&before, 1).without(&tick, ticks);
    let what =
        format!("a backup of three nodes and six volumes, from create to completed ({ticks} min)");
    rows.push(life.row(&what));
    // So many, that some more are counted by now.
    here.begin_minute().await?;
    for _ in 0..40 {
        demand(here.send(list()).await?.status == 200, "the list")?;
    }
    let (one, schedule) =
        (format!("{}/{id}", here.backups()), format!("{}/schedule", here.backups()));
    let call = |method: &str, path: &str| Call::new(method, path).key(&keys.manage);
    let cron = r#"{"cron": "0 3 29 2 *"}"#;
    for (call, what) in [
        (call("GET", &one), "show one backup"),
        (call("PATCH", &one).json(r#"{"remarks": "measured"}"#), "change one"),
        (call("PUT", &schedule).json(cron), "set the schedule"),
        (call("GET", &schedule), "show it"),
        (call("DELETE", &schedule), "delete it"),
    ] {
        rows.push(request(&here, call, what).await?);
    }
    let before = Cost::so_far(&here).await?;
    let path = format!("{}/{id}/restore", here.backups());
    let asked = here.send(Call::new("POST", path).key(&keys.manage)).await?;
    demand(asked.status == 204, "the restore")?;
    let (ticks, down) = restored(&here, &progress).await?;
    let life = Cost::so_far(&here).await?.without(&before, 1).without(&tick, ticks);
    rows.push(life.row(&format!("its restore, down for {down} s ({ticks} min)")));
    let before = Cost::so_far(&here).await?;
    demand(here.delete(id).await?.status == 204, "the delete")?;
    let ticks = pass(&here, id, "", &progress).await?;
    let life = Cost::so_far(&here).await?.without(&before, 1).without(&tick, ticks);
    rows.push(life.row("its delete, until the row is gone"));
    progress.finish_and_clear();
    here.stop().await;
    Ok(rows.join("\n"))
}

/// What one request costs.
async fn request(here: &Here, call: Call, what: &str) -> Result<String> {
    let before = Cost::so_far(here).await?;
    let status = here.send(call).await?.status;
    demand(status / 100 == 2, what)?;
    Ok(Cost::so_far(here).await?.without(&before, 1).row(what))
}

fn demand(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { fail(format!("{what} failed")) }
}

/// Waits until the restore is completed and its volumes are tagged: in real time, for in
/// the downtime a function always runs. Gives how many ticks there were, and how long the
/// deployment was down.
async fn restored(cloud: &Cloud, progress: &ProgressBar) -> Result<(u32, i64)> {
    let (mut ticks, mut next) = (0, cloud.now().await?.as_second() + TICK);
    for _ in 0..1200 {
        let rows = cloud.rows().await?;
        let row = rows.iter().find(|row| row.restore().is_some());
        let Some(row) = row else { return fail("no restore") };
        progress.set_message(format!("restore {}, {}", row.text("status"), row.text("phase")));
        progress.tick();
        let left = tests::rows::items(&row.0["leftovers"]);
        let settled = left.into_iter().all(|one| one["tagged"] == true);
        if row.text("status") == "completed" && settled {
            idle(cloud).await?;
            let at = |name: &str| -> Result<jiff::Timestamp> { Ok(row.text(name).parse()?) };
            return Ok((ticks, at("started_at")?.duration_since(at("stopped_at")?).as_secs()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cloud.now().await?.as_second() >= next {
            cloud.tick().await?;
            (ticks, next) = (ticks + 1, next + TICK);
        }
    }
    fail("the restore did not complete")
}

/// Lets time pass until a backup has a status and nothing runs. Gives how many
/// ticks there were.
async fn pass(cloud: &Cloud, id: u64, status: &str, progress: &ProgressBar) -> Result<u32> {
    let (mut ticks, mut next) = (0, cloud.now().await?.as_second() + TICK);
    for _ in 0..2000 {
        idle(cloud).await?;
        let rows = cloud.rows().await?;
        let key = (cloud.demo.deployment_id, id);
        let backups = tests::rows::backups(&rows);
        let row = backups.get(&key);
        let is = row.map_or("", |row| row.text("status"));
        progress.set_message(format!("backup {id} {is}, {ticks} ticks"));
        progress.tick();
        if is == status && row.is_none_or(|row| !row.moving()) {
            return Ok(ticks);
        }
        cloud.advance(STEP).await?;
        if cloud.now().await?.as_second() >= next {
            cloud.tick().await?;
            (ticks, next) = (ticks + 1, next + TICK);
        }
    }
    fail(format!("backup {id} did not become {status:?}"))
}

/// Waits until no function runs and no event waits to be delivered now.
async fn idle(cloud: &Cloud) -> Result<()> {
    for _ in 0..1200 {
        let in_flight = cloud.in_flight().await?;
        if !in_flight.iter().any(|what| what.contains(" runs for ") || what.contains("being tried"))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let what: Vec<Value> = cloud.in_flight().await?.into_iter().map(Value::from).collect();
    fail(format!("still running after a minute: {what:?}"))
}
