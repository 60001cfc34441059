//! How long a restore keeps a deployment down, against what its nodes' own steps take in
//! the simulated EC2, and what is made in that time.

use std::collections::BTreeMap;

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};

use super::plan::Plan;
use super::run;
use crate::{Result, fail};

/// A restore's downtime.
#[derive(Debug, Clone, Default)]
pub struct Downtime {
    /// From the first stop to the last start, as the API shows it.
    pub shown: SignedDuration,
    /// The slowest node's own stop, detachments, attachments, and start, one after the
    /// other: what nobody can be faster than who waits for nothing else.
    pub slowest: SignedDuration,
    /// The slowest node's stop, detachments, and attachments, and then the slowest start of
    /// any: what nobody can be faster than who starts no node before all have their volumes.
    pub bound: SignedDuration,
    /// Volumes that were made in it.
    pub made: usize,
}

/// Restores a deployment of so many nodes with two volumes each, with nothing going wrong.
///
/// # Errors
/// The simulation cannot go on, or finds a violation.
pub fn downtime(nodes: usize, seed: u64) -> Result<Option<Downtime>> {
    let outcome = run(&Plan { nodes: Some(nodes), ..Plan::of(seed) })?;
    match outcome.violation {
        Some(violation) => fail(format!("{nodes} nodes, seed {seed}: {violation}")),
        None => Ok(outcome.downtime),
    }
}

/// What instances and attachments were, and since when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    /// By instance, and by instance and volume: each state that it came to.
    states: BTreeMap<(String, String), Vec<(Timestamp, &'static str)>>,
    /// When each volume was made.
    made: BTreeMap<String, Timestamp>,
}

impl Watch {
    /// Notes what has changed.
    pub(crate) fn look(&mut self, now: Timestamp, cloud: &Cloud) {
        let mut seen = BTreeMap::new();
        for one in cloud.instances() {
            seen.insert((one.instance_id.to_owned(), String::new()), one.state);
        }
        for one in cloud.volumes() {
            self.made.insert(one.volume_id.to_owned(), one.created_at);
            if let Some((instance, state)) = one.attachment {
                seen.insert((instance.to_owned(), one.volume_id.to_owned()), state);
            }
        }
        for key in self.states.keys() {
            seen.entry(key.clone()).or_insert("");
        }
        for (key, state) in seen {
            let states = self.states.entry(key).or_default();
            if states.last().is_none_or(|(_, last)| *last != state) {
                states.push((now, state));
            }
        }
    }

    /// What the restore that was down then took.
    pub(crate) fn downtime(&self, stopped: Timestamp, started: Timestamp) -> Downtime {
        let steps = ["stopping", "detaching", "attaching", "pending"];
        let mut nodes: BTreeMap<&str, [SignedDuration; 4]> = BTreeMap::new();
        for ((instance, _), states) in &self.states {
            let own = nodes.entry(instance).or_default();
            for pair in states.windows(2) {
                let [(from, state), (until, _)] = pair else { continue };
                let within = *from >= stopped && *until <= started + SignedDuration::from_secs(1);
                let Some(step) = steps.iter().position(|one| one == state) else { continue };
                if within {
                    own[step] = own[step].max(until.duration_since(*from));
                }
            }
        }
        let longest = |steps: &[usize]| {
            let each = nodes.values().map(|own| steps.iter().map(|step| own[*step]).sum());
            each.max().unwrap_or_default()
        };
        Downtime {
            shown: started.duration_since(stopped),
            slowest: longest(&[0, 1, 2, 3]),
            bound: longest(&[0, 1, 2]) + longest(&[3]),
            made: self.made.values().filter(|at| (stopped..=started).contains(at)).count(),
        }
    }
}
