//! The brake: pauses deletions, schedules, or every EC2 write of the stack.
//!
//! It is written to the table by this command itself, and not by the worker: it must hold
//! when the worker runs wild, or not at all.

use backups_aws::clock::Clock;
use backups_aws::sdk::SdkConfig;
use backups_aws::table::{Stored, Table};
use backups_core::brake::{Brake, Switch};
use serde_json::{Value, json};

use crate::Stack;

/// How often a row that somebody else wrote is read and written anew.
const TRIES: u32 = 5;

/// What to pause.
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// deletions, schedules, or writes: every call that changes anything in EC2
    switch: Switch,
    /// Of writes: also restores that have stopped nodes. Their deployments stay down until
    /// it is resumed, whatever is paused again without this
    #[arg(long)]
    even_restores: bool,
    /// Why, for whoever finds it on: a line of up to 200 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: Option<String>,
    /// What is on after it, as JSON
    #[arg(long)]
    json: bool,
}

/// What to resume.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// deletions, schedules, writes. Several may be given
    #[arg(required = true)]
    switches: Vec<Switch>,
    /// What is on after it, as JSON
    #[arg(long)]
    json: bool,
}

/// Shows what is paused.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A reason that can be shown on one line.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err("1 to 200 characters on one line".to_owned());
    }
    Ok(text.to_owned())
}

/// Pauses.
pub(crate) async fn pause(
    wanted: &Pause,
    stack: &Stack,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Result<(), String> {
    if wanted.even_restores && wanted.switch != Switch::Writes {
        return Err("--even-restores goes with `pause writes` alone".to_owned());
    }
    let brake = change(stack, sdk, clock, |brake| {
        brake.pause(wanted.switch, wanted.even_restores, wanted.why.clone(), clock.now());
    })
    .await?;
    print(&brake, wanted.json);
    // Of what was begun before: the longest invocation.
    eprintln!("An invocation that has begun goes on as it was, for up to 45 s (scheduler: 70 s).");
    Ok(())
}

/// Resumes.
pub(crate) async fn resume(
    wanted: &Resume,
    stack: &Stack,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Result<(), String> {
    let brake = change(stack, sdk, clock, |brake| {
        for switch in &wanted.switches {
            brake.resume(*switch, clock.now());
        }
    })
    .await?;
    print(&brake, wanted.json);
    Ok(())
}

/// Shows.
pub(crate) async fn show(show: &Show, stack: &Stack, sdk: &SdkConfig) -> Result<(), String> {
    let table = Table::reading(&stack.table, sdk);
    let brake = table.brake().await.map_err(|error| error.to_string())?;
    print(&brake, show.json);
    Ok(())
}

/// Changes the row as it is.
async fn change(
    stack: &Stack,
    sdk: &SdkConfig,
    clock: &Clock,
    put: impl Fn(&mut Brake),
) -> Result<Brake, String> {
    let table = Table::reading(&stack.table, sdk);
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        let before = table.brake().await.map_err(|error| error.to_string())?;
        let mut after = before.clone();
        put(&mut after);
        if after == before {
            return Ok(before);
        }
        let stored = table.write_brake(&before, after).await;
        if let Stored::Yes(stored) = stored.map_err(|error| error.to_string())? {
            return Ok(*stored);
        }
    }
    Err("others write the brake all the time: look at it, and try again".to_owned())
}

fn print(brake: &Brake, json: bool) {
    if json {
        let on = Switch::ALL.into_iter().map(|switch| {
            let on = brake.on(switch).map(
                |on| json!({"since": on.since, "even_restores": on.even_restores_since.is_some(), "why": on.why}),
            );
            (switch.as_str().to_owned(), on.unwrap_or(Value::Null))
        });
        println!("{}", Value::Object(on.collect()));
        return;
    }
    for switch in Switch::ALL {
        match brake.on(switch) {
            None => println!("{switch}  go on"),
            Some(on) => {
                let even = if on.even_restores_since.is_some() { ", even restores" } else { "" };
                let why = on.why.as_deref().map_or(String::new(), |why| format!(": {why}"));
                println!("{switch}  paused since {}{even}{why}", on.since);
            }
        }
    }
}
