//! `cargo run -p tests --bin crash-loop`: kills `local` again and again, until
//! each status of a backup was hit often enough, and fails with what was lost,
//! doubled or left over. With `--restores` each phase of a restore, there and back.

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tests::crash::{Plan, Report, Tally, restores, run};
use tests::{Failed, Result};

/// Kills a running `local` at random moments and restarts it on the same data.
#[derive(Debug, Parser)]
struct Options {
    /// The most kills
    #[arg(long, default_value_t = 400)]
    rounds: u32,

    /// Until each status was the state of some backup at this many kills
    #[arg(long, default_value_t = 10)]
    until_each: u32,

    /// Kills restores instead, in each phase there and back
    #[arg(long)]
    restores: bool,

    /// Of every choice but the operating system's [default: this process's id]
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| std::process::id().into());
    let plan = Plan { rounds: options.rounds, until_each: options.until_each, seed };
    match in_a_folder(plan, options.restores).await {
        Ok(report) => {
            println!("seed {seed}: {report}; nothing lost, doubled or left over");
            ExitCode::SUCCESS
        }
        Err(Failed(why)) => {
            eprintln!("seed {seed}: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn in_a_folder(plan: Plan, of_restores: bool) -> Result<String> {
    let folder = tempfile::Builder::new().prefix("crash-loop-").tempdir()?;
    let data = folder.path().join("data");
    let bar = ProgressBar::new(plan.until_each.into());
    bar.set_style(ProgressStyle::with_template("{elapsed} {bar:30} {msg}")?);
    let show = |tally: &Tally, kills: u32| {
        bar.set_position(tally.values().min().copied().unwrap_or(0).into());
        bar.set_message(told(tally, kills));
    };
    let ended = if of_restores {
        let ended = restores::run(&data, plan, &|report| show(&report.tally, report.kills)).await;
        ended.map(|report| {
            let tally = told(&report.tally, report.kills);
            format!("{tally}; {} restores ended {:?}", report.restores, report.ends)
        })
    } else {
        let ended = run(&data, plan, &|report| show(&report.tally, report.kills)).await;
        ended.map(|report| {
            let Report { kills, made, deleted, unanswered, .. } = report;
            let tally = told(&report.tally, kills);
            format!("{tally}; {made} backups made, {deleted} deleted, {unanswered} requests without an answer")
        })
    };
    bar.finish_and_clear();
    ended.map_err(|Failed(why)| {
        // Kept, to be looked at: data, and the log beside it.
        Failed(format!("{why}\nleft in {}", folder.keep().display()))
    })
}

/// The tally, as one line.
fn told(tally: &Tally, kills: u32) -> String {
    let parts: Vec<String> = tally.iter().map(|(at, kills)| format!("{at} {kills}")).collect();
    format!("{kills} kills: {}", parts.join(", "))
}
