//! The simulation: the real functions and the real SDK clients in a simulated
//! AWS, on a clock that jumps from one event to the next, with every choice drawn
//! from a seed.
//!
//! ```text
//!   people, accidents ─▶ drive ─▶ functions: api, worker, scheduler (real)
//!      ▲  the seed        │ ▲         │ SDK (real)
//!      └── plan           │ │         ▼
//!                         │ │       wire ── dice, spells: what goes wrong
//!                         │ │         ▼
//!                         │ └───── world: cloud (EC2, EBS, EventBridge), table (dynoxide)
//!                         ▼           │ each call, each row, each answer
//!                      at rest ───▶ oracle ─▶ Violation
//! ```
//!
//! A run has one thread, a paused runtime, and one generator; what it does is a
//! function of its [`Plan`]. docs/simulation.md says how to read a failure.

mod accidents;
mod brake;
mod call;
mod campaign;
mod clocks;
mod crash_point;
mod crowd;
mod deliver;
mod dice;
mod doing;
mod downtime;
mod drive;
mod functions;
mod happenings;
mod herd;
mod life;
mod listing;
mod logs;
mod oracle;
mod patching;
mod people;
mod plan;
mod reach;
mod registry;
mod reply;
mod restoring;
mod rushing;
mod scene;
mod scheduling;
mod sending;
mod shrink;
mod spells;
mod strangers;
mod strays;
pub mod sweep;
mod table;
mod templates;
mod trace;
mod wire;
mod world;

use jiff::SignedDuration;

pub use campaign::{Campaign, Tally, campaign};
pub use crash_point::{CrashPoint, Side};
pub use downtime::{Downtime, downtime};
pub use herd::{Herd, Measured, herd};
pub use oracle::Violation;
pub use plan::{Plan, restoring, scheduling};
pub use reach::Reach;
pub use shrink::{Numbers, ranges, shrink};

use crate::Result;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first thing that should never be.
    pub violation: Option<Violation>,
    /// How long the last restore that completed was down, if that was watched.
    pub downtime: Option<Downtime>,
    /// What came of the herd, if there was one.
    pub herd: Option<Measured>,
    /// Calls of AWS that the functions made.
    pub calls: u64,
    /// Backups that completed.
    pub completed: u64,
    /// What people did, accidents and spells: their numbers go up to here.
    pub happenings: u32,
    /// Faults that were drawn: their numbers go up to here.
    pub faults: u32,
    /// What was met.
    pub reach: Reach,
    /// What happened, if the plan wanted to know.
    pub trace: String,
    /// How much time passed in there.
    pub simulated: SignedDuration,
}

/// Runs a plan to its end on this thread, which must not be in a runtime.
///
/// # Errors
/// The simulation itself cannot go on; what the service does wrong is in the
/// outcome.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let logs = logs::Logs::default();
    let searched = logs.search(plan);
    let mut outcome = runtime.block_on(drive::run(plan))?;
    drop(searched);
    let (lines, secret) = logs.found();
    (0..lines).for_each(|_| outcome.reach.hit("turn log line searched"));
    if let (None, Some(line)) = (&outcome.violation, secret) {
        outcome.violation = Some(Violation::new("secret", format!("it is logged: {line}")));
    }
    Ok(outcome)
}
