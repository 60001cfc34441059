//! A share of the simulation: enough to fail for most of what can be broken, in
//! the time that `./check` has. The rest is `cargo run --release -p tests --bin
//! simulate` (docs/simulation.md).

use std::process::Command;

use jiff::SignedDuration;
use tests::sim::{self, Campaign, Herd, Plan, Reach, Tally, sweep};
use tests::{Failed, Result};

// A third of a run went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of each kind that `plan` makes of a number: schedules, days in peace, weeks, failing,
/// huge, and schedules of weeks and with restores.
const KINDS: [u64; 7] = [5, 3, 7, 11, 19, 21, 31];

fn traced(plan: &Plan) -> Result<String> {
    Ok(sim::run(&Plan { trace: true, ..plan.clone() })?.trace)
}

#[test]
fn a_seed_replays_to_the_byte_here_and_in_a_new_process() -> Result<()> {
    let crash = "100:after".parse().map_err(Failed)?;
    let plans = KINDS.map(Plan::of).into_iter().chain([sweep::plan(1, crash)]);
    for plan in plans {
        let first = traced(&plan)?;
        assert!(first.lines().count() > 100, "{plan:?} has a trace");
        // Another run beside it changes nothing.
        let beside = Plan::of(plan.seed + 1);
        let again = std::thread::scope(|scope| {
            scope.spawn(|| sim::run(&beside));
            traced(&plan)
        })?;
        assert!(first == again, "{plan:?} differs in this process");
        let mut simulate = Command::new(env!("CARGO_BIN_EXE_simulate"));
        simulate.args(["--seed", &plan.seed.to_string(), "--trace"]);
        if let Some(crash) = plan.crash {
            simulate.args(["--crash", &crash.to_string()]);
        }
        let other = simulate.output()?;
        assert!(first.as_bytes() == other.stdout, "{plan:?} differs in a new process");
    }
    Ok(())
}

/// One thread: the other tests wait for things, and want to be in time.
fn ran(runs: u64, plan: &(dyn Fn(u64) -> Plan + Sync)) -> Result<Tally> {
    sim::campaign(Campaign { runs, jobs: 1, first: false }, plan, &|_| {})
}

#[test]
fn a_share_of_the_seeds_is_clean() -> Result<()> {
    let tally = ran(32, &Plan::of)?;
    assert_eq!(tally.violations, []);
    assert_eq!(tally.reach.unlisted(), Vec::<&str>::new());
    // What so few seeds meet for sure.
    let never = tally.reach.below(1);
    let common = ["edge ", "announced ", "invoked ", "turn called", "turn adopted", "api 20"];
    let seldom = [
        "announced Restore Rolled Back",
        "announced Restore Stuck",
        "api 200 restore",
        "api 204 no schedule",
    ];
    let common = |line: &str| common.iter().any(|one| line.starts_with(one));
    let missed: Vec<_> =
        never.iter().filter(|line| common(line) && !seldom.contains(line)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
    Ok(())
}

#[test]
fn a_share_of_the_crash_points_is_repaired_by_ticks_alone() -> Result<()> {
    let mut reach = Reach::default();
    for seed in 1..=sweep::SCRIPTS {
        let recorded = sweep::record(seed)?;
        reach.merge(&recorded.reach);
        let points = sweep::points(recorded.calls, 131, seed == 4);
        let plan = |number| {
            let at = usize::try_from(number).expect("a number of a point");
            sweep::plan(seed, points[at])
        };
        let tally = ran(points.len() as u64, &plan)?;
        assert_eq!(tally.violations, [], "of seed {seed}");
    }
    // What is not in a recorded run is crashed at none of its calls.
    let never = reach.below(1);
    let turns = [
        "edge ",
        "announced ",
        "api 20",
        "held ",
        "registry changed",
        "registry deleted",
        "registry older",
        "registry other tenant",
        "turn expiry",
        "schedule deleted",
        "schedule set",
        "schedule skipped superseded",
        "schedule waits backup",
        "turn one gave way",
        "upgrade new>running",
        "upgrade running",
        "turn failed",
        "turn revoked",
        "turn tombstone",
    ];
    // What leads there lasts longer than a spell of a recorded run, or is the work of a
    // reconciliation, of which none has one; or it has no name there, or is not sent
    // again or twice at once.
    let seldom = [
        "api 204 replayed patch",
        "api 204 replayed restore",
        "api 204 replayed schedule",
        "api 204 twice at once",
        "announced Restore Stuck",
        "announced Restore Rolled Back",
        "announced Orphans Found",
        "edge completed>failed",
    ];
    let turns = |line: &str| turns.iter().any(|one| line.starts_with(one));
    let missed: Vec<_> =
        never.iter().filter(|line| turns(line) && !seldom.contains(line)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
    Ok(())
}

/// A restore with nothing going wrong, at AWS's own pace. No volume is made in the
/// downtime. It is down for little longer than its slowest node's own steps take, in the
/// median; each one but for the slowest start, which may be another node's.
#[test]
fn a_restore_is_down_for_little_longer_than_its_slowest_node() -> Result<()> {
    for nodes in [3, 10] {
        let mut ratios = Vec::new();
        for seed in 1..=16 {
            let Some(one) = sim::downtime(nodes, seed)? else { continue };
            assert_eq!(one.made, 0, "{nodes} nodes, seed {seed}: {one:?}");
            let ratio = |of: SignedDuration| one.shown.as_secs_f64() / of.as_secs_f64();
            assert!(ratio(one.bound) <= 1.2, "{nodes} nodes, seed {seed}: {one:?}");
            ratios.push(ratio(one.slowest));
        }
        ratios.sort_by(f64::total_cmp);
        println!("{nodes} nodes: {ratios:.2?}");
        let half = ratios.len() / 2;
        let median = ratios[(ratios.len() - 1) / 2].midpoint(ratios[half]);
        assert!(half > 5 && median <= 1.2, "{nodes} nodes: {median:.3} of {ratios:?}");
    }
    Ok(())
}

/// More schedules at once than one tick releases. Their calls are accepted at the pace of
/// the releases, less what is made up for at the first of them, and people who create a
/// backup meanwhile need not wait.
#[test]
fn a_herd_is_released_at_its_pace_and_people_go_past_it() -> Result<()> {
    let schedules = 400;
    let (measured, violation) = sim::herd(Herd { schedules, tick_second: 20, foreign: 0 }, 1)?;
    println!("{measured}");
    assert_eq!(violation, None);
    // The tick's own second, 15 s that are made up for, and the last call's own time.
    let pace = 20.0 + (400.0 - 0.25 * 285.0) / 4.75 + 10.0;
    assert_eq!(measured.faults(pace), Vec::<String>::new());
    assert!(measured.last.as_secs_f64() > pace - 20.0, "it keeps the pace");
    assert!(measured.waits.iter().all(|wait| wait.as_secs() < 10), "{:?}", measured.waits);
    for rate in &measured.rates {
        assert_eq!(rate.throttled, 0, "{rate:?}");
    }
    Ok(())
}
