//! The oracle: what must never be, seen from outside.
//!
//! It knows the contract, the rows by the names of their attributes (the numbers
//! of calls among them), AWS's truth, and what the API answered.
//! It calls nothing of the service's code, so that a fault there cannot hide
//! itself here.
//!
//! ```text
//!   sent ──────▶ calls: may it be made?          ─┐
//!   carried_out ▶ calls, bus: what did it do?     ├─▶ Violation
//!   changed ───▶ rows, lives, failures, volumes:  │
//!                was it an edge with a cause?     │
//!   answered ──▶ answers: was it true?            │
//!   at_rest ───▶ rest: is all as it should be?   ─┘
//! ```

mod answers;
mod asked;
mod brake;
mod bus;
mod calls;
mod deployments;
mod failures;
mod lives;
mod named;
mod outcomes;
mod pages;
mod patches;
mod rates;
mod reconciliation;
mod refusals;
mod rest;
mod restores;
mod rows;
pub(super) mod schedules;
pub(super) mod slots;
mod troubles;
mod upgrades;
mod versions;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use local::{Name, Template};
use serde_json::Value;

use asked::Request;
pub(crate) use asked::{Asked, What};
pub(super) use deployments::DELETED;
pub(crate) use pages::Page;

use super::life::Life;
use super::plan::{Kind, Profile};
use super::spells::Trouble;
use super::table::RowRef;
use crate::rows::{BackupKey, text};

/// By how much times may differ: clocks that are off, cut to whole seconds.
const SLACK: SignedDuration = SignedDuration::from_secs(10);

/// From the beginning of a look until what it led to is stored: the look's own time
/// and that of its write.
const DECIDED: SignedDuration = SignedDuration::from_secs(45);

/// The longest pause of a delete that AWS refuses (the contract's), with its jitter.
const HELD: SignedDuration = SignedDuration::from_mins(70);

/// For so long after a call of unknown outcome what it made is looked for.
const SWEEP: SignedDuration = SignedDuration::from_mins(10);

/// Looks and their pauses between all that, a minute or a few each.
const TICKS: SignedDuration = SignedDuration::from_mins(30);

/// A few looks with their pauses, when nothing stands in the way.
const LOOKS: SignedDuration = SignedDuration::from_mins(12);

/// The longest pause from one look at a backup in progress to the next, with its jitter
/// (ARCHITECTURE.md, "Deadlines and waits").
fn pause(row: &Value) -> SignedDuration {
    SignedDuration::from_mins(if row["schedule_slot"].is_null() { 11 } else { 31 })
}

/// Within this what has expired goes: two ticks, an index that lags, and slack.
const EXPIRED: SignedDuration = SignedDuration::from_secs(160);

/// How much later it is for each nudge that was lost: the tick's lease, and a tick.
const UNHEARD: SignedDuration = SignedDuration::from_secs(135);

/// How many failed backups a deployment keeps (the contract's).
const KEPT: usize = 20;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The check that found it.
    pub check: &'static str,
    /// What it found.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// What a check comes to.
pub(crate) type Verdict = Result<(), Violation>;

/// Fails with a violation.
fn violated(check: &'static str, what: impl Into<String>) -> Verdict {
    Err(Violation::new(check, what))
}

/// What the control plane said of a key.
#[derive(Debug, Default)]
struct SaidKey {
    /// What of it is of the latest version.
    last: Value,
    /// Whether any of it ends it, also what is refused for anything else.
    over: bool,
    /// All of it.
    said: Vec<Value>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Oracle {
    bus: String,
    stack: String,
    limits: Limits,
    deployments: BTreeMap<u64, Deployment>,
    backups: BTreeMap<BackupKey, Backup>,
    /// Snapshots that our calls have made.
    snapshots: BTreeMap<String, Snapshot>,
    /// Their ids, by backup.
    sets: BTreeMap<BackupKey, BTreeSet<String>>,
    /// Those that somebody has deleted by hand.
    by_hand: BTreeSet<String>,
    /// Calls that change EC2 and have no answer yet.
    in_flight: Vec<InFlight>,
    /// When the first attempt of an operation was sent, of the instances that work.
    operations: BTreeMap<(u32, String), Timestamp>,
    /// Creates that somebody may ask for, by the name: each has its own.
    requests: BTreeMap<String, Request>,
    patches: patches::Patches,
    rates: rates::Rates,
    names: named::Names,
    /// When a nudge was lost on the bus: of which deployment, and of which upgrade.
    nudges_lost: Vec<(Timestamp, u64, String)>,
    /// Backups whose delete somebody asked for who has the right to, and how many
    /// such requests were not refused.
    deletes: BTreeMap<BackupKey, u32>,
    restores: restores::Restores,
    schedules: schedules::Schedules,
    upgrades: upgrades::Upgrades,
    pauses: brake::Pauses,
    stack_row: reconciliation::Reconciling,
    /// The one that gives way in the write that is being looked at.
    gives_way: Option<BackupKey>,
    /// Backups with something left to be done.
    moving: BTreeSet<BackupKey>,
    /// When a trouble last met a call.
    troubles: Vec<(Trouble, Timestamp)>,
    /// When an instance was last changed by hand.
    touched: BTreeMap<String, Timestamp>,
    /// Instances that have got a volume which others may attach too.
    shared: BTreeSet<String>,
    stalled_until: Timestamp,
    /// The random words by which a backup knows its own, of all that ever were.
    tokens: BTreeSet<String>,
    /// What the control plane said of keys, by their ids.
    keys: BTreeMap<String, SaidKey>,
    /// What the control plane said that must be refused.
    refused: Vec<Value>,
    /// What whoever may not know is told, by its code: always the same.
    told: BTreeMap<String, Value>,
    /// Nothing goes wrong at all.
    quiet: bool,
    /// No call meets a fault of its own.
    undisturbed: bool,
    /// No tick is skipped.
    ticking: bool,
    /// For how long slots of the same minute are released, one after the other.
    paced: SignedDuration,
}

#[derive(Debug)]
struct Limits {
    pro: u64,
    enterprise: u64,
    pending: SignedDuration,
    pending_total: SignedDuration,
    in_progress: SignedDuration,
    /// The longest that a snapshot takes which does not stall.
    snapshot: SignedDuration,
    /// The longest that a restore takes, with its way back, an operator's word, and its
    /// old volumes.
    restore: SignedDuration,
}

impl Limits {
    /// How many backups a deployment like this may have. None: its plan has none.
    fn of(&self, row: &Value) -> Option<u64> {
        match text(row, "plan") {
            plan @ ("pro" | "enterprise") => row["backup_limit"]
                .as_u64()
                .or(Some(if plan == "pro" { self.pro } else { self.enterprise })),
            _ => None,
        }
    }
}

/// A deployment, as its row has been.
#[derive(Debug, Default)]
struct Deployment {
    rows: Vec<(Timestamp, RowRef)>,
    highest: u64,
    /// What the control plane said, by version.
    said: BTreeMap<u64, (String, Value)>,
}

/// A backup, as its row has been.
#[derive(Debug, Default)]
struct Backup {
    /// None: gone.
    rows: Vec<(Timestamp, Option<RowRef>)>,
    statuses: BTreeSet<String>,
    /// Its delete began because it had expired.
    expired: bool,
    /// By kind: the id under which the bus took it.
    announced: BTreeMap<String, String>,
    /// The life that sent the last call, by node.
    callers: BTreeMap<u64, u32>,
    /// How many calls were about to be sent, by node.
    tried: BTreeMap<u64, u32>,
    /// The codes with which AWS refused its `CreateSnapshots`.
    refused: BTreeSet<String>,
    /// The codes with which AWS refused to delete its snapshots.
    held_by: BTreeSet<String>,
    /// When AWS throttled them.
    throttled: Vec<Timestamp>,
    /// Calls of a node's attempt that AWS has carried out.
    calls: BTreeMap<(u64, u64), u32>,
}

impl Backup {
    /// The row as it is.
    fn row(&self) -> Option<&RowRef> {
        self.rows.last().and_then(|(_, row)| row.as_ref())
    }
}

/// A snapshot of ours.
#[derive(Debug, Clone)]
struct Snapshot {
    backup: BackupKey,
    node: u64,
    attempt: u64,
    instance: String,
    /// When AWS carried the call out.
    at: Timestamp,
    /// While its caller waited for it.
    quick: bool,
    /// All of its set.
    set: Vec<String>,
    doomed: bool,
    by_hand: Option<Timestamp>,
    /// When one that was deleted by hand ended, as EC2 last had it.
    ended: Option<Timestamp>,
}

#[derive(Debug)]
struct InFlight {
    life: u32,
    /// It is a `CreateSnapshots`.
    create: bool,
    of: Of,
    number: u64,
    at: Timestamp,
    /// Nobody waits for it after this.
    given_up: Timestamp,
}

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Backup(BackupKey),
    Restore(restores::RestoreKey),
    /// The reconciliation's.
    Stack,
}

impl Oracle {
    pub(crate) fn new(template: &Template, profile: &Profile) -> Self {
        let number = |name: &str| {
            template.parameters.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let span = |count: u64, seconds: i64| {
            SignedDuration::from_secs(i64::try_from(count).unwrap_or(0) * seconds)
        };
        Self {
            bus: template.bus.clone(),
            stack: template
                .function(Name::Worker)
                .ok()
                .and_then(|worker| worker.environment.get("STACK_NAME").cloned())
                .unwrap_or_default(),
            limits: Limits {
                pro: number("ProBackupLimit"),
                enterprise: number("EnterpriseBackupLimit"),
                pending: span(number("PendingDeadlineMinutes"), 60),
                pending_total: span(number("PendingTotalHours"), 3600),
                in_progress: span(number("InProgressDeadlineHours"), 3600),
                restore: match profile.kind {
                    Kind::Restores | Kind::ScheduledRestores | Kind::Sweep(_) => {
                        span(number("PreparingDeadlineMinutes"), 120)
                            + span(number("StoppingDeadlineMinutes"), 180)
                            + span(number("SwappingDeadlineMinutes"), 180)
                            + span(number("StartingDeadlineMinutes"), 240)
                            + span(number("OldVolumeHours") + 4, 3600)
                    }
                    _ => SignedDuration::ZERO,
                },
                snapshot: SignedDuration::from_millis(
                    i64::try_from(*profile.pace.snapshot_ms.end()).unwrap_or(0),
                ),
            },
            deployments: BTreeMap::new(),
            backups: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            sets: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            in_flight: Vec::new(),
            operations: BTreeMap::new(),
            requests: BTreeMap::new(),
            patches: patches::Patches::default(),
            rates: rates::Rates::new(number("RequestsPerMinute"), profile.skew),
            names: named::Names::new(),
            nudges_lost: Vec::new(),
            deletes: BTreeMap::new(),
            restores: restores::Restores::default(),
            schedules: schedules::Schedules::new(profile),
            upgrades: upgrades::Upgrades::default(),
            pauses: brake::Pauses::default(),
            stack_row: reconciliation::Reconciling::default(),
            gives_way: None,
            moving: BTreeSet::new(),
            troubles: Vec::new(),
            touched: BTreeMap::new(),
            shared: BTreeSet::new(),
            stalled_until: Timestamp::MIN,
            tokens: BTreeSet::new(),
            keys: BTreeMap::new(),
            refused: Vec::new(),
            told: BTreeMap::new(),
            quiet: profile.kind == Kind::Quiet,
            // In a sweep one call does.
            ticking: !matches!(profile.kind, Kind::Sweep(_)) && profile.ticks_skipped == 0,
            undisturbed: profile.calls + profile.changes + profile.tells + profile.transactions
                == 0,
            paced: match profile.kind {
                Kind::Herd(herd) => herd.busy(),
                _ => SignedDuration::ZERO,
            },
        }
    }

    /// How long after the last fault all must be at rest: a backup may still use
    /// up its deadlines and run, then what it leaves is removed, after the pause
    /// of a delete that was held and the time in which strays show up.
    pub(crate) fn rest(&self) -> SignedDuration {
        let Limits { pending_total, in_progress, snapshot, restore, .. } = self.limits;
        pending_total + in_progress + snapshot + restore + HELD + SWEEP + TICKS
    }

    /// The stack's bus.
    pub(crate) fn bus(&self) -> &str {
        &self.bus
    }

    /// The backups that a deployment has, as its rows say.
    pub(crate) fn backups_of(&self, deployment: u64) -> impl Iterator<Item = (u64, &RowRef)> {
        let all = self.backups.range((deployment, 0)..=(deployment, u64::MAX));
        all.filter_map(|((_, id), backup)| Some((*id, backup.row()?)))
    }

    /// Which word of the control plane a deployment's row has.
    pub(crate) fn knows(&self, deployment: u64) -> u64 {
        let rows = self.deployments.get(&deployment).and_then(|one| one.rows.last());
        rows.and_then(|(_, row)| row["registry_version"].as_u64()).unwrap_or(0)
    }

    /// Whether a snapshot was made by a call of ours.
    pub(crate) fn is_ours(&self, snapshot: &str) -> bool {
        self.snapshots.contains_key(snapshot)
    }

    /// Whether something is left to be done.
    pub(crate) fn moving(&mut self, now: Timestamp) -> bool {
        !self.moving.is_empty() || self.restoring() || self.reconciling() || self.scheduling(now)
    }

    /// The bus loses a nudge.
    pub(crate) fn nudge_lost(&mut self, now: Timestamp, detail: &Value) {
        if let (Some(of), Some(id)) =
            (detail["deployment_id"].as_u64(), detail["upgrade_id"].as_str())
        {
            self.nudges_lost.push((now, of, id.to_owned()));
        }
    }

    /// The control plane says how a deployment is.
    pub(crate) fn control_plane_says(&mut self, detail_type: &str, detail: &Value) {
        if detail_type == "Deployment Upgrade Requested" {
            self.upgrade_asked(detail);
        }
        if detail_type == "API Key Changed" {
            let key = self.keys.entry(text(detail, "key_id").to_owned()).or_default();
            key.over |= !detail["revoked_at"].is_null();
            if !detail["colour"].is_null() {
                self.refused.push(detail.clone());
            } else if detail["version"].as_u64() > key.last["version"].as_u64() {
                key.last = detail.clone();
            }
            key.said.push(detail.clone());
        }
        let (Some(id), Some(version)) =
            (detail["deployment_id"].as_u64(), detail["version"].as_u64())
        else {
            return;
        };
        // What must be refused was never said.
        let seen = self.deployments.entry(id).or_default();
        let owner = seen.said.values().find_map(|(_, said)| said["tenant_id"].as_str());
        let other = owner.is_some_and(|owner| {
            detail["tenant_id"].as_str().is_some_and(|tenant| tenant != owner)
        });
        let elsewhere = detail["cloud"] == "aws" && detail["region"] != local::REGION;
        if other || elsewhere || detail["nodes"].is_string() {
            self.refused.push(detail.clone());
            return;
        }
        let said = (detail_type.to_owned(), detail.clone());
        seen.said.entry(version).or_insert(said);
    }

    /// The snapshots that a backup's calls have made.
    fn taken_of(&self, key: BackupKey) -> impl Iterator<Item = (&String, &Snapshot)> {
        let ids = self.sets.get(&key).into_iter().flatten();
        ids.filter_map(|id| self.snapshots.get_key_value(id))
    }

    /// An invocation is over. `itself`: it ended, and was not ended.
    pub(crate) fn ended(&mut self, now: Timestamp, life: &Life, itself: bool) -> Verdict {
        let mut all = self.in_flight.iter();
        let cut = all.find(|one| one.life == life.id && one.create && now < one.given_up);
        let cut = cut.filter(|_| itself).map(|one| one.number);
        self.in_flight.retain(|one| one.life != life.id);
        self.operations.retain(|(of, _), _| *of != life.id);
        self.lets_go(life);
        match cut {
            Some(number) => violated(
                "cut-off",
                format!("{life} ended while its CreateSnapshots #{number} was on its way"),
            ),
            None => Ok(()),
        }
    }

    /// An invocation ended itself before it was done.
    pub(crate) fn out_of_time(&self, life: &Life) -> Verdict {
        if self.quiet {
            return violated("out-of-time", format!("{life}, and nothing stood in its way"));
        }
        Ok(())
    }
}

/// A time in a row.
fn time(row: &Value, name: &str) -> Option<Timestamp> {
    row[name].as_str()?.parse().ok()
}
