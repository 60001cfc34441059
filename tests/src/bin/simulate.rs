//! `cargo run --release -p tests --bin simulate -- --seeds 20000`: the whole
//! service through as many bad days as there are seeds.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tests::sim::{self, Campaign, Plan, Tally, sweep};
use tests::{Failed, Result};
use tokio::time::Instant;

// A third of a run went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many runs the search for a shorter failure may take.
const SHRINKS: u32 = 400;

/// Runs the real functions in a simulated AWS, seed by seed.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,

    /// One seed alone
    #[arg(long, conflicts_with_all = ["seeds", "from", "sweep"])]
    seed: Option<u64>,

    /// Prints all that happened in that seed
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Leaves these of its happenings out: `1,3-7`
    #[arg(long, requires = "seed", default_value = "")]
    without: String,

    /// Lets these of its faults pass
    #[arg(long, requires = "seed", default_value = "")]
    unstruck: String,

    /// Crashes a recorded run of each seed at each of its calls instead
    #[arg(long)]
    sweep: bool,

    /// Ends at the first violation, and does not shorten it
    #[arg(long)]
    first: bool,

    /// One line of JSON and nothing else
    #[arg(long)]
    json: bool,

    /// The least count of each line of the reach table
    #[arg(long, default_value_t = 0)]
    least: u64,

    /// Seeds side by side [default: as many as there are cores]
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.seed {
        Some(seed) => one(seed, &options),
        None if options.sweep => swept(&options),
        None => many(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failed(why)) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// One seed, told in full.
fn one(seed: u64, options: &Options) -> Result<bool> {
    let plan = Plan {
        without: sim::parse_ranges(&options.without)?,
        unstruck: sim::parse_ranges(&options.unstruck)?,
        trace: options.trace,
        ..Plan::of(seed)
    };
    let outcome = sim::run(&plan)?;
    print!("{}", outcome.trace);
    eprintln!(
        "seed {seed}: {} calls, {} backups completed, {} h",
        outcome.calls,
        outcome.completed,
        outcome.simulated.as_hours()
    );
    if let Some(violation) = &outcome.violation {
        eprintln!("{violation}");
    }
    Ok(outcome.violation.is_none())
}

fn many(options: &Options) -> Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let what = Campaign {
        from: options.from,
        seeds: options.seeds,
        jobs: options.jobs.unwrap_or(cores),
        first: options.first,
    };
    let bar = bar(options, what.seeds)?;
    let begun = Instant::now();
    let tally = sim::campaign(what, &|tally| {
        bar.set_position(tally.seeds);
        bar.set_message(format!("{} violations", tally.violations.len()));
    })?;
    bar.finish_and_clear();
    if options.json {
        let violation = tally.violations.first();
        let violation = violation
            .map(|(seed, one)| json!({"seed": seed, "check": one.check, "what": one.what}));
        println!("{}", json!({"seeds": tally.seeds, "violation": violation}));
        return Ok(tally.violations.is_empty());
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", tally.reach);
    told(&tally, seconds);
    for (seed, violation) in &tally.violations {
        println!("seed {seed}: {violation}");
    }
    let missed = tally.reach.below(options.least);
    if !missed.is_empty() {
        println!("met fewer than {} times: {}", options.least, missed.join(", "));
    }
    let unlisted = tally.reach.unlisted();
    if !unlisted.is_empty() {
        println!("in no line of the reach table: {}", unlisted.join(", "));
    }
    if let Some((seed, _)) = tally.violations.first().filter(|_| !options.first) {
        shortened(&Plan::of(*seed))?;
    }
    Ok(tally.violations.is_empty() && missed.is_empty() && unlisted.is_empty())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn told(tally: &Tally, seconds: f64) {
    println!(
        "{} seeds in {seconds:.1} s: {:.1} seeds/s, {:.0} calls/s; {} calls, {} simulated days; \
         the median seed completed {} backups",
        tally.seeds,
        tally.seeds as f64 / seconds,
        tally.calls as f64 / seconds,
        tally.calls,
        tally.hours / 24,
        tally.median_completed(),
    );
}

/// The shortest trace that can be found, and the line that replays it.
fn shortened(plan: &Plan) -> Result<()> {
    eprintln!("shortening seed {} ...", plan.seed);
    let (mut plan, _) = sim::shrink(plan, SHRINKS, &|_| {})?;
    plan.trace = true;
    let outcome = sim::run(&plan)?;
    print!("{}", outcome.trace);
    println!("replay: simulate -- --seed {} --trace{}", plan.seed, cuts(&plan));
    Ok(())
}

fn cuts(plan: &Plan) -> String {
    let part = |name: &str, numbers| {
        let text = sim::ranges(numbers);
        if text.is_empty() { text } else { format!(" --{name} {text}") }
    };
    part("without", &plan.without) + &part("unstruck", &plan.unstruck)
}

/// Crashes at each call of the recorded runs.
fn swept(options: &Options) -> Result<bool> {
    let mut clean = true;
    for seed in options.from..options.from + options.seeds {
        let recorded = sweep::record(seed)?;
        let points = sweep::points(recorded.calls, 1);
        let bar = bar(options, points.len() as u64)?;
        let next = AtomicU64::new(0);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let work = || -> Result<Vec<String>> {
            let mut found = Vec::new();
            loop {
                let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed))?;
                let Some(point) = points.get(at) else { return Ok(found) };
                let outcome = sim::run(&sweep::plan(seed, *point))?;
                bar.inc(1);
                if let Some(violation) = outcome.violation {
                    found.push(format!("seed {seed}, {point:?}: {violation}"));
                }
            }
        };
        let found = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err(Failed("it panicked".to_owned()))))
                .collect::<Result<Vec<_>>>()
        })?;
        bar.finish_and_clear();
        let found: Vec<String> = found.into_iter().flatten().collect();
        println!(
            "seed {seed}: {} crashes at {} calls, {} violations",
            points.len(),
            recorded.calls,
            found.len()
        );
        for one in &found {
            println!("{one}");
        }
        clean &= found.is_empty();
    }
    Ok(clean)
}

fn bar(options: &Options, length: u64) -> Result<ProgressBar> {
    if options.json {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(length);
    let style = "{elapsed_precise} {bar:40} {pos}/{len} {per_sec} {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    Ok(bar)
}
