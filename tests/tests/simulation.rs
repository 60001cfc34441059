//! A share of the simulation: enough to fail for most of what can be broken, in
//! the time that `./check` has. The rest is `cargo run --release -p tests --bin
//! simulate` (docs/simulation.md).

use std::process::Command;

use tests::Result;
use tests::sim::{self, Campaign, Plan, sweep};

// A third of a run went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rough days, days in peace, and weeks, by what `plan` makes of a number.
const KINDS: [u64; 3] = [5, 3, 7];

fn traced(seed: u64) -> Result<String> {
    let plan = Plan { trace: true, ..Plan::of(seed) };
    Ok(sim::run(&plan)?.trace)
}

#[test]
fn a_seed_replays_to_the_byte_here_and_in_a_new_process() -> Result<()> {
    for seed in KINDS {
        let first = traced(seed)?;
        assert!(first.lines().count() > 100, "seed {seed} has a trace");
        assert!(first == traced(seed)?, "seed {seed} differs in this process");
        let simulate = env!("CARGO_BIN_EXE_simulate");
        let seed_text = seed.to_string();
        let other = Command::new(simulate).args(["--seed", &seed_text, "--trace"]).output()?;
        assert!(first.as_bytes() == other.stdout, "seed {seed} differs in a new process");
    }
    Ok(())
}

#[test]
fn a_share_of_the_seeds_is_clean() -> Result<()> {
    // One thread: the other tests wait for things, and want to be in time.
    let what = Campaign { from: 0, seeds: 16, jobs: 1, first: false };
    let tally = sim::campaign(what, &|_| {})?;
    assert_eq!(tally.violations, []);
    assert_eq!(tally.reach.unlisted(), Vec::<&str>::new());
    Ok(())
}

#[test]
fn a_share_of_the_crash_points_is_repaired_by_ticks_alone() -> Result<()> {
    let calls = sweep::record(1)?.calls;
    for point in sweep::points(calls, 97) {
        let outcome = sim::run(&sweep::plan(1, point))?;
        assert_eq!(outcome.violation, None, "{point:?}");
    }
    Ok(())
}
