//! What a tick costs while nothing is due, over ever more deployments in the table.
//!
//! ```text
//!   scheduler ─▶ the SDK ─▶ wire, with a meter ─▶ dynoxide, in memory
//! ```
//!
//! The real scheduler with the real client; the rows are copies of some that the service
//! has written itself. All that is counted stands in the calls and their answers.

mod fill;
mod meter;

use std::fmt;
use std::time::Duration;

use backups_aws::clock::{Clock, ClockControl};
use backups_aws::sdk;
use backups_aws::settings::Settings;
use backups_aws::table::Table;
use backups_core::time::{Seconds, Time};
use indicatif::HumanCount;
use local::{Dynamo, Name, REGION, Template};
use scheduler::Scheduler;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Failed, Result, fail};
use fill::Kinds;
pub use fill::Rows;
pub use meter::Cost;
use meter::Wire;

/// How often a tick with nothing due is repeated: the quickest tells its time, whatever
/// else the machine does.
const TIMES: usize = 50;

/// The ticks over idle deployments: with nothing due, as nearly all of them are; the first
/// of an instance and one an hour, which look whether the stack's own rows are there; and
/// the one a day at which the stack's reconciliation is due.
const TICKS: [&str; 4] =
    ["nothing due", "an instance's first", "once an hour", "the day's round due"];

/// Between two ticks, as in template.yaml.
const MINUTE: Duration = Duration::from_mins(1);

/// After which a tick looks again whether the stack's own rows are there, and a little.
const HOUR: Duration = Duration::from_secs(3_601);

/// How far the day's round of reconciliation is put off, so that it comes when it is
/// counted and not by chance.
const FAR: Seconds = Seconds::hours(12);

/// A tick, over so many deployments.
#[derive(Debug, Clone)]
pub struct Line {
    /// How many deployments there are.
    pub deployments: u64,
    /// Their rows.
    pub rows: Rows,
    /// Which tick.
    pub tick: &'static str,
    /// What it cost; if it was run more than once, the dearest of them.
    pub cost: Cost,
    /// How many rows of deployments all ticks up to then had read, before and after.
    pub read: (u64, u64),
    /// How long the quickest of some took; None: it was run once.
    pub time: Option<Duration>,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// Ticks over idle deployments, by their number.
    pub idle: Vec<Line>,
    /// A tick over the most of them, when one has something due.
    pub due: Line,
}

impl Report {
    /// What must not be, in sentences: a tick over idle deployments that read or wrote a
    /// row of theirs, one whose cost differs from the same over fewer, and a meter that
    /// does not see the one that is due.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for line in &self.idle {
            let what = format!("{} over {} idle deployments", line.tick, line.deployments);
            let cost = &line.cost;
            if cost.rows > 0 || !cost.touched.is_empty() {
                let touched: Vec<_> = cost.touched.iter().take(3).collect();
                faults.push(format!(
                    "{what} read {} rows of theirs and touched {}: {touched:?}",
                    cost.rows,
                    cost.touched.len()
                ));
            }
            let first = self.idle.iter().find(|other| other.tick == line.tick);
            if let Some(first) = first.filter(|first| first.cost != *cost) {
                faults.push(format!(
                    "{what} cost {}, {:.1} and {:.1} units; over {} {}, {:.1} and {:.1}",
                    cost.calls(),
                    cost.read,
                    cost.write,
                    first.deployments,
                    first.cost.calls(),
                    first.cost.read,
                    first.cost.write
                ));
            }
        }
        let (rows, touched) = (self.due.cost.rows, self.due.cost.touched.len());
        if rows == 0 || touched != 1 {
            faults.push(format!(
                "one deployment has something due, and the meter sees {rows} rows of {touched}: \
                 what it says of the others proves nothing"
            ));
        }
        faults
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| Deployments | Their rows | In the index | Tick | Calls | Rows of theirs read: before, after | Deployments touched | Rows of the stack | Read units | Write units | Time |"
        )?;
        writeln!(f, "|---:|---:|---:|---|---|---:|---:|---:|---:|---:|---:|")?;
        let first = self.idle.iter().find_map(|line| line.time);
        // Each tick over ever more of them, then the next one.
        let idle = TICKS.iter().flat_map(|tick| self.idle.iter().filter(|line| line.tick == *tick));
        for line in idle.chain([&self.due]) {
            let cost = &line.cost;
            let time = line.time.zip(first).map_or_else(String::new, |(time, first)| {
                format!("{:.1}", time.as_secs_f64() / first.as_secs_f64())
            });
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {}, {} | {} | {} | {:.1} | {:.1} | {time} |",
                HumanCount(line.deployments),
                HumanCount(line.rows.all),
                HumanCount(line.rows.in_index),
                line.tick,
                cost.calls(),
                line.read.0,
                line.read.1,
                cost.touched.len(),
                cost.stack_rows,
                cost.read,
                cost.write,
            )?;
        }
        Ok(())
    }
}

/// The table, and who looks at it.
struct Bench {
    dynamo: Dynamo,
    table: String,
    settings: Settings,
    kinds: Kinds,
    rows: Rows,
    /// Rows of deployments that ticks have read so far.
    read: u64,
}

/// One warm instance of the scheduler, and its meter.
struct Instance {
    scheduler: Scheduler,
    wire: Wire,
    control: ClockControl,
}

/// Runs ticks over ever more idle deployments, and at the end one over one that is due.
/// `sizes` grow; `say` hears how many deployments are in the table.
///
/// # Errors
/// The rows cannot be made, or a tick fails.
pub async fn measure(sizes: &[u64], say: &dyn Fn(u64)) -> Result<Report> {
    let template = Template::load(&[]).map_err(Failed)?;
    let environment = &template.function(Name::Scheduler).map_err(Failed)?.environment;
    let settings = Settings::from_lookup(&|name| environment.get(name).cloned())?;
    let dynamo = Dynamo::memory().map_err(Failed)?;
    dynamo.create_table(&template.create_table, None).map_err(Failed)?;
    let kinds = Kinds::written(settings.due_shards.into()).await?;
    let mut bench = Bench {
        dynamo,
        table: template.table.clone(),
        settings,
        kinds,
        rows: Rows::default(),
        read: 0,
    };
    // The stack's own rows, which the first tick ever makes.
    bench.instance().tick().await?;
    let mut idle = Vec::new();
    let mut last = 0;
    for &size in sizes {
        if size <= last {
            return fail("the numbers of deployments must grow");
        }
        let added = bench.kinds.fill(&bench.dynamo, &bench.table, (last, size), say)?;
        bench.add(added)?;
        last = size;
        Box::pin(bench.idle(size, &mut idle)).await?;
    }
    let due = Box::pin(bench.due(last)).await?;
    Ok(Report { idle, due })
}

impl Bench {
    /// Counts rows that were put, and demands that the table has them.
    fn add(&mut self, added: Rows) -> Result<()> {
        self.rows.all += added.all;
        self.rows.in_index += added.in_index;
        let asked = json!({"TableName": self.table}).to_string();
        let answer = self.dynamo.call("DescribeTable", asked.as_bytes());
        let table = serde_json::from_str::<Value>(&answer.body)?["Table"].take();
        let index = &table["GlobalSecondaryIndexes"][0]["ItemCount"];
        let there = Rows {
            all: table["ItemCount"].as_u64().unwrap_or_default(),
            in_index: index.as_u64().unwrap_or_default(),
        };
        // The stack's own: more than deployments have put themselves.
        let own = there
            .all
            .checked_sub(self.rows.all)
            .zip(there.in_index.checked_sub(self.rows.in_index));
        if own.is_some_and(|(all, in_index)| all <= 3 && in_index <= 1) {
            return Ok(());
        }
        fail(format!("{:?} were put into the table, and it has {there:?}", self.rows))
    }

    /// A new instance, at the time at which the rows were written.
    fn instance(&self) -> Instance {
        let (clock, control) = Clock::counted(self.kinds.now, Instant::now());
        let wire = Wire::new(self.dynamo.clone());
        let sdk = sdk::simulated(&clock, wire.client(), REGION);
        Instance { scheduler: Scheduler::new(&self.settings, &sdk, clock), wire, control }
    }

    /// The ticks of one instance while nothing of any deployment is due.
    async fn idle(&mut self, deployments: u64, lines: &mut Vec<Line>) -> Result<()> {
        let begin = Time::from_unix(self.kinds.now.as_second());
        self.put_off_the_round(begin + FAR).await?;
        let instance = self.instance();
        instance.tick().await?;
        lines.push(self.line(deployments, TICKS[1], &instance));

        instance.control.set_offset(MINUTE);
        let before = self.read;
        let (mut times, mut dearest) = (Vec::new(), Cost::default());
        for _ in 0..TIMES {
            let at = Instant::now();
            instance.tick().await?;
            times.push(at.elapsed());
            let cost = instance.wire.take();
            self.read += cost.rows;
            if cost.weight() > dearest.weight() {
                dearest = cost;
            }
        }
        lines.push(Line {
            deployments,
            rows: self.rows,
            tick: TICKS[0],
            cost: dearest,
            read: (before, self.read),
            time: times.into_iter().min(),
        });

        instance.control.set_offset(MINUTE + HOUR);
        instance.tick().await?;
        lines.push(self.line(deployments, TICKS[2], &instance));

        instance.control.set_offset(MINUTE + HOUR + MINUTE);
        self.put_off_the_round(begin).await?;
        instance.tick().await?;
        lines.push(self.line(deployments, TICKS[3], &instance));
        Ok(())
    }

    /// A tick when the schedule of one deployment is due.
    async fn due(&mut self, deployments: u64) -> Result<Line> {
        let begin = Time::from_unix(self.kinds.now.as_second());
        self.put_off_the_round(begin + FAR).await?;
        let instance = self.instance();
        instance.tick().await?;
        instance.wire.take();
        let added = self.kinds.fill_due(&self.dynamo, &self.table, deployments)?;
        self.add(added)?;
        instance.control.set_offset(2 * MINUTE);
        instance.tick().await?;
        Ok(self.line(deployments + 1, "one schedule due", &instance))
    }

    fn line(&mut self, deployments: u64, tick: &'static str, instance: &Instance) -> Line {
        let (cost, before) = (instance.wire.take(), self.read);
        self.read += cost.rows;
        let read = (before, self.read);
        Line { deployments, rows: self.rows, tick, cost, read, time: None }
    }

    /// Moves the stack's reconciliation in the index, as a tick does.
    async fn put_off_the_round(&self, to: Time) -> Result<()> {
        let (clock, _) = Clock::counted(self.kinds.now, Instant::now());
        let sdk = sdk::simulated(&clock, Wire::new(self.dynamo.clone()).client(), REGION);
        let table = Table::new(&self.settings, &sdk);
        let Some(row) = table.reconciliation().await? else {
            return fail("no tick has made the row of the stack's reconciliation");
        };
        if table.move_reconciliation(&row, to).await? { Ok(()) } else { fail("the row was moved") }
    }
}

impl Instance {
    async fn tick(&self) -> Result<()> {
        Ok(Box::pin(scheduler::handle(&self.scheduler, json!({}), scheduler::TIMEOUT)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(deployments: u64, cost: Cost) -> Line {
        let rows = Rows::default();
        Line { deployments, rows, tick: "nothing due", cost, read: (0, 0), time: None }
    }

    fn queries(count: u64) -> Cost {
        Cost { calls: [("Query".to_owned(), count)].into(), ..Cost::default() }
    }

    #[test]
    fn what_grows_or_reads_is_a_fault_and_so_is_a_meter_that_sees_nothing() {
        let seen = Cost { rows: 1, touched: ["DEPLOYMENT#1".to_owned()].into(), ..queries(9) };
        let report = |idle: [Cost; 2], due: &Cost| {
            let [few, many] = idle;
            let idle = vec![line(1_000, few), line(3_000, many)];
            Report { idle, due: line(3_001, due.clone()) }.faults().join("; ")
        };
        assert_eq!(report([queries(9), queries(9)], &seen), "");
        assert!(report([queries(9), queries(10)], &seen).contains("10 Query"));
        let dearer = Cost { read: 0.5, ..queries(9) };
        assert!(report([queries(9), dearer], &seen).contains("0.5"));
        assert!(report([seen.clone(), seen.clone()], &seen).contains("read 1 rows of theirs"));
        assert!(report([queries(9), queries(9)], &queries(9)).contains("proves nothing"));
    }
}
