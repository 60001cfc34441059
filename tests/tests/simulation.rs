//! A share of the simulation: enough to fail for most of what can be broken, in
//! the time that `./check` has. The rest is `cargo run --release -p tests --bin
//! simulate` (docs/simulation.md).

use std::process::Command;

use tests::Result;
use tests::sim::{self, Campaign, Plan, Tally, sweep};

// A third of a run went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of each kind that `plan` makes of a number: rough days, days in peace, weeks,
/// failing, and huge.
const KINDS: [u64; 5] = [5, 3, 7, 11, 19];

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

/// One thread: the other tests wait for things, and want to be in time.
fn ran(runs: u64, plan: &(dyn Fn(u64) -> Plan + Sync)) -> Result<Tally> {
    sim::campaign(Campaign { runs, jobs: 1, first: false }, plan, &|_| {})
}

#[test]
fn a_share_of_the_seeds_is_clean() -> Result<()> {
    let tally = ran(48, &Plan::of)?;
    assert_eq!(tally.violations, []);
    assert_eq!(tally.reach.unlisted(), Vec::<&str>::new());
    Ok(())
}

#[test]
fn a_share_of_the_crash_points_is_repaired_by_ticks_alone() -> Result<()> {
    let points = sweep::points(sweep::record(1)?.calls, 41);
    let plan = |number| {
        let at = usize::try_from(number).expect("a number of a point");
        sweep::plan(1, points[at])
    };
    let tally = ran(points.len() as u64, &plan)?;
    assert_eq!(tally.violations, []);
    Ok(())
}
