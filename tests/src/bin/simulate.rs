//! `cargo run --release -p tests --bin simulate -- --seeds 20000`: the whole
//! service through as many bad days as there are seeds.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tests::sim::{self, Campaign, CrashPoint, Herd, Plan, Tally, sweep};
use tests::{Failed, Result, fail};
use tokio::time::Instant;

// A third of a run went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many runs the search for a shorter failure may take.
const SHRINKS: u32 = 400;

/// The flags of more seeds than one: clap lets `requires` pass beside them.
const MANY_SEEDS: [&str; 3] = ["seeds", "from", "sweep"];

/// Runs the real functions in a simulated AWS, seed by seed.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,

    /// One seed alone
    #[arg(long, conflicts_with_all = MANY_SEEDS)]
    seed: Option<u64>,

    /// Prints all that happened in that seed
    #[arg(long, requires = "seed", conflicts_with_all = MANY_SEEDS)]
    trace: bool,

    /// Leaves these of its happenings out: `1,3-7`
    #[arg(long, requires = "seed", conflicts_with_all = MANY_SEEDS)]
    without: Option<sim::Numbers>,

    /// Crashes its recorded run at this call alone: `17:before`, `17:after`, `17:after-reply`;
    /// twice: `17:after+5`
    #[arg(long, requires = "seed", conflicts_with_all = MANY_SEEDS)]
    crash: Option<CrashPoint>,

    /// Lets these of its faults pass
    #[arg(long, requires = "seed", conflicts_with_all = MANY_SEEDS)]
    unstruck: Option<sim::Numbers>,

    /// Crashes a recorded run of each seed at each of its calls instead
    #[arg(long)]
    sweep: bool,

    /// Crashes at each of them twice: once more soon after it
    #[arg(long, requires = "sweep")]
    pairs: bool,

    /// Counts only those seeds that are about restores
    #[arg(long, conflicts_with_all = ["seed", "sweep"])]
    restores: bool,

    /// Counts only those seeds that are about schedules and upgrades
    #[arg(long, conflicts_with_all = ["restores", "seed", "sweep"])]
    schedules: bool,

    /// So many schedules due in one minute instead, and what people wait for beside them
    #[arg(long, conflicts_with_all = ["seed", "seeds", "sweep", "restores", "schedules"])]
    herd: Option<usize>,

    /// In which second of its minute each tick begins: the slot is at 0
    #[arg(long, default_value_t = 0, requires = "herd", value_parser = clap::value_parser!(i64).range(0..60))]
    tick_second: i64,

    /// How many `CreateSnapshots` a minute others in the account make meanwhile, of 300
    #[arg(long, default_value_t = 0, requires = "herd")]
    foreign: u64,

    /// Ends at the first violation, and does not shorten it
    #[arg(long, conflicts_with = "seed")]
    first: bool,

    /// One line of JSON and nothing else
    #[arg(long, conflicts_with_all = ["seed", "sweep"])]
    json: bool,

    /// The least count of each line of the reach table [default: one in 200 seeds, at most 100]
    #[arg(long, conflicts_with_all = ["seed", "sweep"])]
    least: Option<u64>,

    /// Seeds side by side [default: as many as there are cores]
    #[arg(long, conflicts_with = "seed", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.from.checked_add(options.seeds).is_none() {
        eprintln!("there are not so many seeds: the last one is {}", u64::MAX);
        return ExitCode::from(2);
    }
    let done = match options.seed {
        Some(seed) => one(seed, &options),
        None if let Some(schedules) = options.herd => herded(schedules, &options),
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
        without: options.without.clone().unwrap_or_default().0,
        unstruck: options.unstruck.clone().unwrap_or_default().0,
        crash: options.crash,
        trace: options.trace,
        ..Plan::of(seed)
    };
    let outcome = sim::run(&plan)?;
    if plan.crash.is_some_and(|crash| crash.call >= outcome.calls) {
        return fail(format!("its recorded run has {} calls, from 0", outcome.calls));
    }
    if plan.without.last().is_some_and(|last| *last >= outcome.happenings) {
        return fail(format!("seed {seed} has {} happenings, from 0", outcome.happenings));
    }
    show(&outcome.trace);
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

/// Many schedules at once.
fn herded(schedules: usize, options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let (tick_second, foreign) = (options.tick_second, options.foreign);
    let herd = Herd { schedules, tick_second, foreign };
    let (measured, violation) = sim::herd(herd, options.from)?;
    println!("{measured}");
    eprintln!("in {:.0} s", begun.elapsed().as_secs_f64());
    let faults = measured.faults(measured.bound());
    for fault in &faults {
        println!("{fault}");
    }
    if let Some(violation) = &violation {
        println!("{violation}");
    }
    Ok(faults.is_empty() && violation.is_none())
}

fn many(options: &Options) -> Result<bool> {
    let plan = |number: u64| {
        let number = options.from + number;
        Plan::of(match () {
            () if options.restores => sim::restoring(number),
            () if options.schedules => sim::scheduling(number),
            () => number,
        })
    };
    let begun = Instant::now();
    let tally = told_of(options, options.seeds, &plan)?;
    if options.json {
        let violation = tally.violations.first();
        let violation = violation.map(|(number, one)| {
            json!({"seed": plan(*number).seed, "check": one.check, "what": one.what})
        });
        println!("{}", json!({"seeds": tally.runs, "violation": violation}));
        return Ok(tally.violations.is_empty());
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", tally.reach);
    told(&tally, seconds);
    let least = options.least.unwrap_or((tally.runs / 200).min(100));
    // Of one kind of seeds not all is to be met.
    let partial = options.restores || options.schedules;
    let missed = if partial { Vec::new() } else { tally.reach.below(least) };
    if !missed.is_empty() {
        println!("met fewer than {least} times: {}", missed.join(", "));
    }
    let unlisted = tally.reach.unlisted();
    if !unlisted.is_empty() {
        println!("in no line of the reach table: {}", unlisted.join(", "));
    }
    let few = !partial && tally.runs >= MANY && tally.median_completed() < COMPLETED;
    if few {
        println!("the median seed completed fewer than {COMPLETED} backups");
    }
    let violated = report(options, &tally, &plan)?;
    Ok(!violated && !few && missed.is_empty() && unlisted.is_empty())
}

/// Of so many seeds the median is asked for.
const MANY: u64 = 200;

/// So many backups the median seed completes at the least.
const COMPLETED: u64 = 10;

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn told(tally: &Tally, seconds: f64) {
    println!(
        "{} seeds in {seconds:.1} s: {:.1} seeds/s, {:.0} calls/s; {} calls, {} simulated days; \
         the median seed completed {} backups",
        tally.runs,
        tally.runs as f64 / seconds,
        tally.calls as f64 / seconds,
        tally.calls,
        tally.hours / 24,
        tally.median_completed(),
    );
}

/// The shortest trace that can be found, and the line that replays it.
fn shortened(plan: &Plan) -> Result<()> {
    eprintln!("shortening seed {} ...", plan.seed);
    let (mut plan, _) = sim::shrink(plan, SHRINKS)?;
    plan.trace = true;
    let outcome = sim::run(&plan)?;
    show(&outcome.trace);
    println!("replay: {} --trace", replay(&plan));
    Ok(())
}

/// Prints a trace. Whoever reads it may have read enough.
fn show(trace: &str) {
    let _ = std::io::stdout().write_all(trace.as_bytes());
}

/// The command that runs a plan again.
fn replay(plan: &Plan) -> String {
    let part = |name: &str, text: String| {
        if text.is_empty() { text } else { format!(" --{name} {text}") }
    };
    format!("cargo run --release -p tests --bin simulate -- --seed {}", plan.seed)
        + &part("crash", plan.crash.as_ref().map_or(String::new(), ToString::to_string))
        + &part("without", sim::ranges(&plan.without))
        + &part("unstruck", sim::ranges(&plan.unstruck))
}

/// Crashes at each call of the recorded runs.
fn swept(options: &Options) -> Result<bool> {
    for seed in options.from..options.from + options.seeds {
        let recorded = sweep::record(seed)?;
        let points = sweep::points(recorded.calls, 1, options.pairs);
        let plan = |number: u64| {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            sweep::plan(seed, points[at])
        };
        let tally = told_of(options, points.len() as u64, &plan)?;
        println!(
            "seed {seed}: {} crashes at {} calls, {} violations",
            tally.runs,
            recorded.calls,
            tally.violations.len()
        );
        if report(options, &tally, &plan)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs the plans, with a progress bar.
fn told_of(options: &Options, runs: u64, plan: &(dyn Fn(u64) -> Plan + Sync)) -> Result<Tally> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = options.jobs.map_or(cores, usize::from);
    let bar = bar(options, runs)?;
    let tally = sim::campaign(Campaign { runs, jobs, first: options.first }, plan, &|tally| {
        bar.set_position(tally.runs);
        bar.set_message(format!("{} violations", tally.violations.len()));
    })?;
    bar.finish_and_clear();
    Ok(tally)
}

/// Tells the violations, and the first one in full. Whether there are any.
fn report(options: &Options, tally: &Tally, plan: &dyn Fn(u64) -> Plan) -> Result<bool> {
    for (number, violation) in &tally.violations {
        println!("{}: {violation}", replay(&plan(*number)));
    }
    if let Some((number, _)) = tally.violations.first().filter(|_| !options.first) {
        shortened(&plan(*number))?;
    }
    Ok(!tally.violations.is_empty())
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
