//! What no row vouches for: the list, which looks at EC2 and the table itself, and the
//! order to remove some of it.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use backups_aws::bus::Bus;
use backups_aws::clock::Clock;
use backups_aws::ec2::Ec2;
use backups_aws::random;
use backups_aws::sdk::SdkConfig;
use backups_aws::table::{OrphanAnswer, Table, TableError};
use backups_core::announce::{ORPHANS_AN_ORDER, OrphanRemovalOrdered};
use backups_core::id::Nonce;
use backups_core::limits::GRACE;
use backups_core::reconcile::{Tags, Thing, Verdict, judge_snapshot, judge_volume};
use backups_core::time::Time;
use serde_json::{Value, json};

use crate::Stack;

/// How often it is looked whether the worker has answered.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the daily run deletes something.
const DOOMED: &str = "the table says that nobody needs it: the daily run deletes it";

/// What is done about orphans.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Orphans {
    /// Shows the snapshots and volumes of the stack that no row vouches for
    List {
        /// The stack's name, which its snapshots and volumes are tagged with. Its bus has the
        /// same
        #[arg(long, env = "STACK_NAME", value_name = "NAME")]
        stack: Option<String>,
        /// Also what the daily run deletes by itself, because the table says that nobody needs it
        #[arg(long)]
        all: bool,
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Orders the worker to delete some of them, for good: no copy stays
    Remove {
        /// Ids as the list shows them: snap-…, vol-…
        #[arg(required = true)]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// How long to wait for the worker's answer
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        wait: u64,
        /// The answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(crate) async fn run(
    orphans: &Orphans,
    stack: &Stack,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Result<(), String> {
    match orphans {
        Orphans::List { stack: name, all, json } => {
            let name = name.as_deref().map_or_else(|| stack.bus(), Ok)?;
            let Listed { found, unjudged, seen } = list(name, *all, stack, sdk, clock).await?;
            if *json {
                println!("{}", Value::Array(found));
            } else if found.is_empty() && unjudged.is_empty() {
                println!("none, of {seen} snapshots and volumes of the stack `{name}`");
            } else {
                print(&found);
            }
            if unjudged.is_empty() { Ok(()) } else { Err(unjudged.join("\n")) }
        }
        Orphans::Remove { ids, yes, wait, json } => {
            if ids.len() > ORPHANS_AN_ORDER {
                return Err(format!("{ORPHANS_AN_ORDER} at a time at most"));
            }
            // The worker refuses the whole of an order with one of these, and nobody answers.
            if let Some(id) = ids.iter().find(|id| Thing::parse(id).is_none()) {
                return Err(format!("`{id}` is no id of a snapshot (snap-…) or a volume (vol-…)"));
            }
            if !yes && !confirmed(ids)? {
                return Err("nothing was ordered".to_owned());
            }
            let answer = order(ids, *wait, stack, sdk).await?;
            told(&answer, *json)
        }
    }
}

/// What a look at EC2 and the table has come to.
struct Listed {
    /// The orphans.
    found: Vec<Value>,
    /// Why some could not be judged: it keeps nobody from the others.
    unjudged: Vec<String>,
    /// How many have the stack's tags: of a mistyped name none.
    seen: usize,
}

/// Every orphan, judged as reconciliation will judge it in a day: one that is young is told
/// here at once. `all`: what the run deletes by itself, too.
async fn list(
    name: &str,
    all: bool,
    stack: &Stack,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Result<Listed, String> {
    let table = Table::reading(&stack.table, sdk);
    let ec2 = Ec2::of(name, sdk);
    let table_id = table.known_id().await.map_err(|error| error.to_string())?;
    let table_id = table_id.ok_or("the table has no id: no function has run yet")?;
    // What is newer than this machine's clock is shown too: clocks differ, and the local
    // mode's is pushed.
    let now = |made: Option<Time>| clock.now().max(made.unwrap_or(clock.now())) + GRACE;
    let (mut found, mut unjudged, mut seen) = (Vec::new(), Vec::new(), 0);
    let mut token = None;
    loop {
        let page = ec2.tagged_snapshots(token).await.map_err(|error| error.to_string())?;
        seen += page.found.len();
        for one in &page.found {
            let vouching = table.vouching(&one.tags).await;
            let Some(vouching) = readable(&one.id, vouching, &mut unjudged)? else { continue };
            let verdict = judge_snapshot(one, &table_id, &vouching, now(one.started_at));
            let (id, gib) = (one.id.as_str(), one.size_gib);
            found.extend(shown("snapshot", id, gib, one.started_at, &one.tags, verdict, all));
        }
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    loop {
        let page = ec2.tagged_volumes(token).await.map_err(|error| error.to_string())?;
        seen += page.found.len();
        for one in &page.found {
            let row = table.vouching_restore(&one.tags).await;
            let Some(row) = readable(&one.id, row, &mut unjudged)? else { continue };
            let verdict = judge_volume(one, &table_id, &row, now(one.created_at));
            let (id, gib) = (one.id.as_str(), one.size_gib);
            let shown = shown("volume", id, gib, one.created_at, &one.tags, verdict, all);
            found.extend(shown.map(|mut shown| {
                shown["attached"] = json!(one.attached);
                shown
            }));
        }
        token = page.next;
        if token.is_none() {
            return Ok(Listed { found, unjudged, seen });
        }
    }
}

/// What was read. None: the row cannot be, which is noted.
fn readable<T>(
    id: &impl std::fmt::Display,
    read: Result<T, TableError>,
    unjudged: &mut Vec<String>,
) -> Result<Option<T>, String> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ TableError::Row { .. }) => {
            unjudged.push(format!("{id} is not judged: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// An orphan as the list shows it, or with `all` what the run deletes by itself. None: it is
/// neither.
fn shown(
    kind: &str,
    id: &str,
    size_gib: u64,
    created_at: Option<Time>,
    tags: &Tags,
    verdict: Verdict,
    all: bool,
) -> Option<Value> {
    let (by, because) = match verdict {
        Verdict::Orphan(because) => ("order", because.sentence()),
        Verdict::Delete if all => ("run", DOOMED),
        _ => return None,
    };
    Some(json!({
        "id": id,
        "kind": kind,
        "size_gib": size_gib,
        "created_at": created_at,
        "removable_at": created_at.map(|at| at + GRACE),
        "table": tags.table,
        "deployment_id": tags.deployment,
        "backup_id": tags.backup,
        "restore_id": tags.restore,
        "attached": false,
        "removed_by": by,
        "because": because,
    }))
}

fn print(found: &[Value]) {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    for one in found {
        let of = match (&one["backup_id"], &one["restore_id"]) {
            (Value::Null, Value::Null) => "-".to_owned(),
            (Value::Null, restore) => format!("restore {restore}"),
            (backup, _) => format!("backup {backup}"),
        };
        let attached = if one["attached"] == true { ", attached" } else { "" };
        println!(
            "{}  {}  {} GiB  {}  deployment {}  {of}  {}{attached}",
            text(&one["id"]),
            text(&one["kind"]),
            one["size_gib"],
            text(&one["created_at"]),
            text(&one["deployment_id"]),
            text(&one["because"]),
        );
    }
}

/// Asks whether it is meant.
fn confirmed(ids: &[String]) -> Result<bool, String> {
    let mut out = std::io::stdout();
    let ask = format!(
        "{} will be deleted for good. They may be somebody's only copy. Type `delete`: ",
        ids.join(", ")
    );
    let fail = |error: std::io::Error| error.to_string();
    out.write_all(ask.as_bytes()).and_then(|()| out.flush()).map_err(fail)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(fail)?;
    Ok(answer.trim() == "delete")
}

/// Hands the order to the worker, and waits for its answer.
async fn order(
    ids: &[String],
    wait: u64,
    stack: &Stack,
    sdk: &SdkConfig,
) -> Result<OrphanAnswer, String> {
    let table = Table::reading(&stack.table, sdk);
    let order_id: Nonce = random::nonce();
    let ordered =
        OrphanRemovalOrdered { version: 1, order_id: order_id.clone(), ids: ids.to_vec() };
    let bus = Bus::named(stack.bus()?, sdk);
    bus.order_removal(&ordered).await.map_err(|error| error.to_string())?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    loop {
        let answer = table.orphan_answer(&order_id).await.map_err(|error| error.to_string())?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(format!(
                "the worker has not answered within {wait} s; it may yet: list again, and look at the dead-letter queue"
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Shows the answer. An error if anything stays.
fn told(answer: &OrphanAnswer, json: bool) -> Result<(), String> {
    if json {
        let things = answer.things.iter();
        let things: Vec<_> =
            things.map(|one| json!({"id": one.id, "refused": one.refused})).collect();
        println!("{}", Value::Array(things));
    }
    let mut refused = 0;
    for one in &answer.things {
        match &one.refused {
            None if !json => println!("{}  gone", one.id),
            None => {}
            Some(why) => {
                refused += 1;
                if !json {
                    println!("{}  not deleted: {why}", one.id);
                }
            }
        }
    }
    if refused == 0 { Ok(()) } else { Err(format!("{refused} not deleted")) }
}
