//! Many runs, side by side: each thread takes the next one.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Outcome, Plan, Reach, Violation, run};
use crate::{Failed, Result};

/// How many runs, and how.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// How many: their numbers count from 0.
    pub runs: u64,
    /// How many run side by side.
    pub jobs: usize,
    /// Ends at the first violation.
    pub first: bool,
}

/// What the runs came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many there were.
    pub runs: u64,
    /// Calls of AWS in all of them.
    pub calls: u64,
    /// What was met.
    pub reach: Reach,
    /// Completed backups of each run.
    pub completed: Vec<u64>,
    /// Hours that passed in there.
    pub hours: i64,
    /// Violations, by the run's number.
    pub violations: Vec<(u64, Violation)>,
}

impl Tally {
    fn add(&mut self, number: u64, outcome: Outcome) {
        self.runs += 1;
        self.calls += outcome.calls;
        self.hours += outcome.simulated.as_hours();
        self.completed.push(outcome.completed);
        self.reach.merge(&outcome.reach);
        if let Some(violation) = outcome.violation {
            self.violations.push((number, violation));
            self.violations.sort_by_key(|(number, _)| *number);
        }
    }

    /// The median of the completed backups of a run.
    pub fn median_completed(&self) -> u64 {
        let mut all = self.completed.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    }
}

/// Runs the plan of each number. `told` hears of each one that is over.
///
/// # Errors
/// The simulation itself cannot go on.
pub fn campaign(
    what: Campaign,
    plan: &(dyn Fn(u64) -> Plan + Sync),
    told: &(dyn Fn(&Tally) + Sync),
) -> Result<Tally> {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let tally = Mutex::new(Tally::default());
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= what.runs {
                return Ok(());
            }
            let outcome =
                run(&plan(number)).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            if what.first && outcome.violation.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add(number, outcome);
            told(&tally);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..what.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Failed("a run panicked".to_owned())))
        })
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}
