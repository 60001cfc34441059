//! What the simulated cloud is told at its start.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Value;

use crate::bus::CompiledRule;
use crate::pattern::Pattern;

/// The bus on which AWS's own services put their events.
pub(crate) const DEFAULT_BUS: &str = "default";

/// What `EventBridge` allows a target at most (EB).
const MOST_RETRIES: u32 = 185;
const OLDEST: u64 = 86_400;
/// What SQS allows a queue at most (SQS API reference, `SetQueueAttributes`).
const LONGEST_HIDDEN: u64 = 43_200;
const MOST_RECEIVES: u32 = 1_000;
/// The longest span of [`Pace`], a year: a moment from now is then still a
/// date, also at the slowest speed.
const LONGEST_MS: u64 = 366 * 86_400_000;

/// One account in one Region, and how its buses are wired.
#[derive(Debug, Clone)]
pub struct Config {
    /// The account, twelve digits.
    pub account: String,
    /// The Region.
    pub region: String,
    /// The Region's zones, full names (`us-west-1a`).
    pub zones: Vec<String>,
    /// Simulated AWS work goes this many times as fast: durations, lags,
    /// retries and the refill of token buckets.
    pub speed: f64,
    /// The stack's event bus.
    pub stack_bus: String,
    /// The rules on the default bus and on the stack's.
    pub rules: Vec<Rule>,
    /// How long AWS takes for what it does by itself.
    pub pace: Pace,
}

/// How long AWS takes, in milliseconds of its own time: from the least to the
/// most, drawn each time anew. [`Config::speed`] then applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// A snapshot's copying. By default two to eight minutes (docs/local.md).
    pub snapshot_ms: RangeInclusive<u64>,
    /// How far describes lag behind a new or deleted snapshot. By default up
    /// to five seconds (docs/local.md, after (C)).
    pub describe_lag_ms: RangeInclusive<u64>,
    /// How long an event of EC2's or EBS's own is under way. By default up to
    /// ten seconds (docs/local.md).
    pub event_delay_ms: RangeInclusive<u64>,
    /// From a volume's `creating` to `available`. By default ten to sixty
    /// seconds (docs/local.md).
    pub volume_ms: RangeInclusive<u64>,
    /// A volume's attaching and detaching. By default two to eight seconds
    /// (docs/local.md).
    pub attach_ms: RangeInclusive<u64>,
    /// From an instance's `stopping` to `stopped`. By default twenty to sixty
    /// seconds (docs/local.md).
    pub stop_ms: RangeInclusive<u64>,
    /// From an instance's `pending` to `running`. By default fifteen to
    /// forty-five seconds (docs/local.md).
    pub start_ms: RangeInclusive<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            snapshot_ms: 120_000..=480_000,
            describe_lag_ms: 0..=5_000,
            event_delay_ms: 0..=10_000,
            volume_ms: 10_000..=60_000,
            attach_ms: 2_000..=8_000,
            stop_ms: 20_000..=60_000,
            start_ms: 15_000..=45_000,
        }
    }
}

impl Pace {
    fn check(&self) -> Result<(), String> {
        for (name, range) in [
            ("snapshot_ms", &self.snapshot_ms),
            ("describe_lag_ms", &self.describe_lag_ms),
            ("event_delay_ms", &self.event_delay_ms),
            ("volume_ms", &self.volume_ms),
            ("attach_ms", &self.attach_ms),
            ("stop_ms", &self.stop_ms),
            ("start_ms", &self.start_ms),
        ] {
            if range.is_empty() {
                return Err(format!("pace: {name} {range:?} is empty"));
            }
            if *range.end() > LONGEST_MS {
                return Err(format!("pace: {name} {range:?} goes over {LONGEST_MS}"));
            }
        }
        Ok(())
    }
}

/// An `EventBridge` rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, for logs.
    pub name: String,
    /// `default`, or the stack's bus.
    pub bus: String,
    /// The event pattern.
    pub pattern: Value,
    /// Who gets what matches.
    pub targets: Vec<Target>,
}

/// What a rule hands an event to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A function, which is invoked asynchronously.
    Function {
        /// As the driver knows it.
        function: String,
        /// Tries after the first: one AWS minute later, then two.
        retries: u32,
        /// How old, in AWS's seconds, an event may be when it is tried again.
        max_age: u64,
    },
    /// A queue; a function is invoked with each of its messages (SQS).
    Queue {
        /// The queue's ARN.
        arn: String,
        /// The function, as the driver knows it.
        function: String,
        /// AWS's seconds from a try that failed to the next one: the queue's visibility timeout.
        hidden: u64,
        /// How often it is tried, before it is a dead letter (`maxReceiveCount`).
        receives: u32,
    },
    /// The dead-letter queue, which gets the event's detail: its `reason` and its `event`.
    DeadLetters,
}

impl Target {
    fn check(&self) -> Result<(), String> {
        match self {
            Target::Function { retries, max_age, .. }
                if *retries > MOST_RETRIES || *max_age > OLDEST =>
            {
                Err(format!("a target has at most {MOST_RETRIES} retries and {OLDEST} seconds"))
            }
            Target::Queue { hidden, receives, .. }
                if *hidden > LONGEST_HIDDEN || !(1..=MOST_RECEIVES).contains(receives) =>
            {
                Err(format!(
                    "a queue hides a message for at most {LONGEST_HIDDEN} s, and gives it out 1 to {MOST_RECEIVES} times"
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Config {
    /// Whether a cloud can be made of it; if not, what is wrong: an event
    /// pattern with an operator that is not simulated, a rule on no bus of
    /// ours, a speed that is none, a [`Pace`] with an empty range or one over
    /// a year.
    pub fn check(&self) -> Result<(), String> {
        self.compile().map(|_| ())
    }

    pub(crate) fn compile(&self) -> Result<Vec<CompiledRule>, String> {
        if !(self.speed.is_finite() && (0.001..=1_000_000.0).contains(&self.speed)) {
            return Err(format!("speed {} is not between 0.001 and 1000000", self.speed));
        }
        self.pace.check()?;
        if let Some(zone) = self.zones.iter().find(|zone| !zone.starts_with(&self.region)) {
            return Err(format!("zone {zone} is not in Region {}", self.region));
        }
        let mut names = BTreeSet::new();
        let mut compiled = Vec::new();
        for rule in &self.rules {
            if rule.bus != DEFAULT_BUS && rule.bus != self.stack_bus {
                return Err(format!("rule {}: there is no bus {}", rule.name, rule.bus));
            }
            if !names.insert((&rule.bus, &rule.name)) {
                return Err(format!("rule {} stands twice on bus {}", rule.name, rule.bus));
            }
            let pattern = Pattern::compile(&rule.pattern)
                .map_err(|why| format!("rule {}: event pattern: {why}", rule.name))?;
            for target in &rule.targets {
                target.check().map_err(|why| format!("rule {}: {why}", rule.name))?;
            }
            compiled.push(CompiledRule {
                name: rule.name.clone(),
                bus: rule.bus.clone(),
                pattern,
                targets: rule.targets.clone(),
            });
        }
        Ok(compiled)
    }
}
