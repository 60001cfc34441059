//! `cargo run --release -p tests --bin idle-cost`: what a tick of the scheduler costs
//! over 1,000 to 1,000,000 idle deployments, as a table.
//!
//! It fails if a tick reads a row of theirs, or costs more over many than over few.

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tests::{Failed, Result, idle};

/// The fewest deployments that are measured.
const LEAST: u64 = 1_000;

/// Counts what a tick costs over idle deployments, ten times as many each time.
#[derive(Debug, Parser)]
struct Options {
    /// The most deployments
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(LEAST..=10_000_000))]
    most: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match measured(&Options::parse()).await {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("fault: {fault}");
            }
            ExitCode::FAILURE
        }
        Err(Failed(why)) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

async fn measured(options: &Options) -> Result<Vec<String>> {
    let mut sizes: Vec<u64> = std::iter::successors(Some(LEAST), |size| size.checked_mul(10))
        .take_while(|size| *size < options.most)
        .collect();
    sizes.push(options.most);
    let progress = ProgressBar::new(options.most).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {human_pos} of {human_len} deployments",
    )?);
    let report = Box::pin(idle::measure(&sizes, &|there| progress.set_position(there))).await?;
    progress.finish_and_clear();
    print!("{report}");
    Ok(report.faults())
}
