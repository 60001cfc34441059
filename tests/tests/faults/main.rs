//! Every fault of the local mode on every call that a backup's life makes, once
//! and for good: each backup ends `completed` where the fault passes, or
//! `failed` with a reason where it stays, and nothing is doubled or left over.
//!
//! A fault that strikes once or twice is `passing`. One that stays is cleared
//! once the backup has come to its end, so that what it made can be removed.

mod calls;
mod delete;
mod events;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tests::{Failed, Here, MANY, Result, Setup, audit, rows};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many clouds run side by side.
const SIDE_BY_SIDE: usize = 32;

/// How a backup that meets a fault ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Completed,
    /// With this code, and a reason with this word.
    Failed(&'static str, &'static str),
}

/// A fault, and what a backup that meets it comes to.
#[derive(Debug, Clone, Copy)]
struct Case {
    on: &'static str,
    action: &'static str,
    code: &'static str,
    times: u64,
    /// How far the clock jumps, in minutes, once the fault has struck.
    jump: u64,
    end: End,
}

impl Case {
    const fn new(on: &'static str, action: &'static str, code: &'static str, times: u64) -> Self {
        Self { on, action, code, times, jump: 0, end: End::Completed }
    }

    /// The fault stays: it is met for this long, and then the backup has failed.
    const fn fails(mut self, minutes: u64, code: &'static str, word: &'static str) -> Self {
        self.jump = minutes;
        self.end = End::Failed(code, word);
        self
    }

    fn fault(&self) -> Value {
        let mut fault = json!({"on": self.on, "do": self.action, "times": self.times});
        if !self.code.is_empty() {
            fault["code"] = json!(self.code);
        }
        fault
    }
}

/// Runs cases side by side, each on a cloud of its own, and tells of every one
/// that does not end as it must.
async fn all<F>(cases: Vec<Case>, run: fn(Here, Case) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut running = JoinSet::new();
    for (seed, case) in cases.into_iter().enumerate() {
        let slots = Arc::clone(&slots);
        running.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            let begun = tokio::time::Instant::now();
            let setup = Setup { seed: seed as u64 + 1, ..Setup::default() };
            let ended = run(Here::start(setup).await?, case).await;
            println!("{:5.1} s  {case:?}", begun.elapsed().as_secs_f64());
            ended.map_err(|Failed(why)| Failed(format!("{case:?}: {why}")))
        });
    }
    let mut faults = Vec::new();
    while let Some(ended) = running.join_next().await {
        if let Err(Failed(why)) = ended? {
            faults.push(why);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failed(faults.join("\n\n"))) }
}

/// A backup that meets the fault from its create on.
async fn met_by_a_backup(here: Here, case: Case) -> Result<()> {
    here.arm(&case.fault()).await?;
    let id = here.create("meets a fault").await?;
    comes_to_its_end(&here, id, case).await?;
    here.stop().await;
    Ok(())
}

/// Waits for the end that the case names, and checks all that must hold then.
async fn comes_to_its_end(here: &Here, id: u64, case: Case) -> Result<()> {
    match case.end {
        End::Completed => {
            here.until_status(id, "completed").await?;
        }
        End::Failed(code, word) => {
            struck(here).await?;
            if case.jump > 0 {
                here.advance(case.jump * 60).await?;
                here.tick().await?;
            }
            let rows = here.until_status(id, "failed").await?;
            let backups = rows::backups(&rows);
            let row = backups.get(&(here.demo.deployment_id, id));
            let failure = row.map(|row| row.0["failure"].clone()).unwrap_or_default();
            is_told(&failure, code, word)?;
        }
    }
    let struck = here.struck().await?;
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(here, &rows).await?;
    // What the bus swallowed it had taken: nobody can know.
    if case.on != "bus" {
        announced(here, id, case.end).await?;
    }
    if struck == 0 { tests::fail("the fault never struck") } else { Ok(()) }
}

/// Each change was announced, however often the bus refused it; and each under
/// one id, by which a consumer drops doubles.
async fn announced(here: &Here, id: u64, end: End) -> Result<()> {
    let kinds: &[&str] = match end {
        End::Completed => &["Backup Requested", "Backup Started", "Backup Completed"],
        End::Failed(..) => &["Backup Requested", "Backup Failed"],
    };
    for kind in kinds {
        let told = here.announced(kind).await?;
        let of_it: Vec<&Value> = told.iter().filter(|detail| detail["backup_id"] == id).collect();
        let ids: BTreeSet<String> =
            of_it.iter().map(|detail| detail["announcement_id"].to_string()).collect();
        if ids.len() != 1 {
            return tests::fail(format!("{kind} was announced as {ids:?}"));
        }
        if let (End::Failed(code, word), &"Backup Failed") = (end, kind) {
            is_told(&of_it[0]["failure"], code, word)?;
        }
    }
    Ok(())
}

/// A failure has its code, and a reason that names the cause and what to do.
fn is_told(failure: &Value, code: &str, word: &str) -> Result<()> {
    let reason = failure["reason"].as_str().unwrap_or_default();
    if failure["code"] == code && reason.contains(word) && reason.len() > 40 {
        return Ok(());
    }
    tests::fail(format!("expected {code} and {word:?}, got {failure}"))
}

/// Pushes the clock until a fault has struck.
async fn struck(here: &Here) -> Result<()> {
    for _ in 0..50 {
        if here.struck().await? > 0 {
            return Ok(());
        }
        here.advance(15).await?;
        here.tick().await?;
    }
    tests::fail("the fault never struck")
}

/// The passing faults of a call that the SDK or the worker makes again.
fn passing(on: &'static str, codes: &[&'static str]) -> Vec<Case> {
    let mut cases = Vec::new();
    for times in [1, 2] {
        cases.push(Case::new(on, "throttle", "", times));
        cases.push(Case::new(on, "lose_reply", "", times));
        cases.extend(codes.iter().map(|code| Case::new(on, "error", code, times)));
    }
    cases
}

/// A fault that stays.
const fn stays(on: &'static str, action: &'static str, code: &'static str) -> Case {
    Case::new(on, action, code, MANY)
}
