//! `cargo run -p tests --bin crash-loop`: kills `local` again and again, until
//! each status of a backup was hit often enough, and fails with what was lost,
//! doubled or left over.

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tests::crash::{Plan, Report, run};
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

    /// Of every choice but the operating system's [default: this process's id]
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| std::process::id().into());
    let plan = Plan { rounds: options.rounds, until_each: options.until_each, seed };
    match in_a_folder(plan).await {
        Ok(report) => {
            println!("{}", told(&report));
            println!(
                "seed {seed}: {} kills; {} backups made, {} deleted, {} requests without an answer; \
                 nothing lost, doubled or left over",
                report.kills, report.made, report.deleted, report.unanswered
            );
            ExitCode::SUCCESS
        }
        Err(Failed(why)) => {
            eprintln!("seed {seed}: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn in_a_folder(plan: Plan) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("crash-loop-").tempdir()?;
    let bar = ProgressBar::new(plan.until_each.into());
    bar.set_style(ProgressStyle::with_template("{elapsed} {bar:30} {msg}")?);
    let ended = run(&folder.path().join("data"), plan, &|report| {
        let least = report.tally.values().min().copied().unwrap_or(0);
        bar.set_position(least.into());
        bar.set_message(told(report));
    })
    .await;
    bar.finish_and_clear();
    ended.map_err(|Failed(why)| {
        // Kept, to be looked at: data, and the log beside it.
        Failed(format!("{why}\nleft in {}", folder.keep().display()))
    })
}

/// The tally, as one line.
fn told(report: &Report) -> String {
    let parts: Vec<String> = tests::crash::STATUSES
        .iter()
        .map(|status| format!("{status} {}", report.tally.get(status).copied().unwrap_or(0)))
        .collect();
    format!("kills {}: {}", report.kills, parts.join(", "))
}
