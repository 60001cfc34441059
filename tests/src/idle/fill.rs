//! A table full of idle deployments: rows that the service itself has written once, on a
//! local cloud, copied under other ids.

use jiff::tz::TimeZone;
use local::Dynamo;
use serde_json::{Value, json};

use crate::http::Call;
use crate::rows::{items, text};
use crate::{Cloud, Failed, Here, Result, Setup, fail};

/// How many deployments are put into the table at once.
const AT_ONCE: u64 = 5_000;

/// The first id of a copied deployment: above 2^53, as the platform's are.
const FIRST: u64 = (1 << 53) + 1;

/// The rows of one deployment of each kind, as the service wrote them. Of ten deployments
/// six have nothing but their registration, one has a schedule that is switched off, one a
/// completed backup that expires in a month, and two have such a backup and a schedule
/// whose next slot is half a year away.
#[derive(Debug)]
pub(super) struct Kinds {
    registered: Vec<Row>,
    switched_off: Vec<Row>,
    backed_up: Vec<Row>,
    scheduled: Vec<Row>,
    /// As [`Kinds::scheduled`], but for a slot every minute.
    due: Vec<Row>,
    /// When the rows were read.
    pub(super) now: jiff::Timestamp,
    pub(super) shards: u64,
}

/// How many rows there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// In the table.
    pub all: u64,
    /// Of these, in the index `due` too.
    pub in_index: u64,
}

/// A row on the wire, with what differs from copy to copy cut out.
#[derive(Debug, Clone)]
struct Row {
    /// Between each two parts stands what the next hole says.
    parts: Vec<String>,
    holes: Vec<Hole>,
    in_index: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Deployment,
    Snapshot,
    Shard,
}

impl Row {
    fn new(item: &Value, deployment: &str, snapshot: &str) -> Self {
        let mut row = Self {
            parts: vec![item.to_string()],
            holes: Vec::new(),
            in_index: item["due_at"].is_object(),
        };
        row.cut(deployment, Hole::Deployment);
        if !snapshot.is_empty() {
            row.cut(snapshot, Hole::Snapshot);
        }
        // Schedules stand in a shard of their own; all others in that of their deployment.
        if text(&item["due_shard"], "N").parse::<u32>().is_ok() {
            let (before, after) = (r#""due_shard":{"N":""#, r#""}"#);
            let whole = format!("{before}{}{after}", text(&item["due_shard"], "N"));
            row.cut(&whole, Hole::Shard);
        }
        row
    }

    /// Makes a hole of each place where `what` stands.
    fn cut(&mut self, what: &str, hole: Hole) {
        let (mut parts, mut holes) = (Vec::new(), Vec::new());
        for (number, part) in self.parts.iter().enumerate() {
            for (at, piece) in part.split(what).enumerate() {
                if at > 0 {
                    holes.push(hole);
                }
                parts.push(piece.to_owned());
            }
            holes.extend(self.holes.get(number));
        }
        (self.parts, self.holes) = (parts, holes);
    }

    /// The row of another deployment.
    fn of(&self, number: u64, shards: u64) -> String {
        let mut text = self.parts.first().cloned().unwrap_or_default();
        for (hole, part) in self.holes.iter().zip(self.parts.iter().skip(1)) {
            let said = match hole {
                Hole::Deployment => (FIRST + number * 16).to_string(),
                Hole::Snapshot => format!("snap-{number:017x}"),
                // Evenly, as the service's own hash of the id puts them.
                Hole::Shard => format!(r#""due_shard":{{"N":"{}"}}"#, number % shards),
            };
            text.push_str(&said);
            text.push_str(part);
        }
        text
    }
}

impl Kinds {
    /// Lets the service write them.
    pub(super) async fn written(shards: u64) -> Result<Self> {
        let here = Here::start(Setup::default()).await?;
        let registered = of_deployment(&here).await?;
        // Half a year from now, whatever the day: nothing falls due while this is measured.
        let month = (here.now().await?.to_zoned(TimeZone::UTC).month() + 5) % 12 + 1;
        let far = format!("0 3 15 {month} *");
        schedule(&here, &json!({"cron": far, "enabled": false})).await?;
        let switched_off = of_deployment(&here).await?;
        let body = json!({"name": "before the summer", "expires_in_days": 30});
        here.create_on(here.demo.other_deployment_id, &body).await?.backup()?;
        here.rest().await?;
        let all = of_deployment(&here).await?;
        if text(
            &all.iter().find(|row| has(row, "BACKUP#")).cloned().unwrap_or_default()["status"],
            "S",
        ) != "completed"
        {
            return fail(format!("the backup of the rows to copy did not complete: {all:?}"));
        }
        let backed_up: Vec<Value> = all.into_iter().filter(|row| !has(row, "SCHEDULE")).collect();
        schedule(&here, &json!({"cron": far})).await?;
        let scheduled = of_deployment(&here).await?;
        schedule(&here, &json!({"cron": "* * * * *"})).await?;
        let due = of_deployment(&here).await?;
        let now = here.now().await?;
        let deployment = here.demo.other_deployment_id.to_string();
        here.stop().await;
        let snapshot = scheduled
            .iter()
            .find_map(|row| row["pk"]["S"].as_str()?.strip_prefix("SNAPSHOTS#"))
            .ok_or_else(|| Failed("no row says whose the snapshots are".to_owned()))?
            .to_owned();
        let rows = |all: &[Value]| -> Vec<Row> {
            all.iter().map(|item| Row::new(item, &deployment, &snapshot)).collect()
        };
        Ok(Self {
            registered: rows(&registered),
            switched_off: rows(&switched_off),
            backed_up: rows(&backed_up),
            scheduled: rows(&scheduled),
            due: rows(&due),
            now,
            shards,
        })
    }

    fn kind(&self, number: u64) -> &[Row] {
        match number % 10 {
            0..=5 => &self.registered,
            6 => &self.switched_off,
            7 => &self.backed_up,
            _ => &self.scheduled,
        }
    }

    /// Puts deployments `from..to` into the table.
    pub(super) fn fill(
        &self,
        dynamo: &Dynamo,
        table: &str,
        (from, to): (u64, u64),
        say: &dyn Fn(u64),
    ) -> Result<Rows> {
        let mut put = Rows::default();
        let mut begin = from;
        while begin < to {
            let end = to.min(begin + AT_ONCE);
            let mut all = Vec::new();
            for number in begin..end {
                for row in self.kind(number) {
                    all.push(row.of(number, self.shards));
                    put.in_index += u64::from(row.in_index);
                }
            }
            put.all += u64::try_from(all.len())?;
            dynamo.import(table, &all).map_err(Failed)?;
            begin = end;
            say(begin);
        }
        Ok(put)
    }

    /// Puts one deployment into the table whose schedule has a slot every minute.
    pub(super) fn fill_due(&self, dynamo: &Dynamo, table: &str, number: u64) -> Result<Rows> {
        let all: Vec<String> = self.due.iter().map(|row| row.of(number, self.shards)).collect();
        dynamo.import(table, &all).map_err(Failed)?;
        let in_index = self.due.iter().filter(|row| row.in_index).count();
        Ok(Rows { all: u64::try_from(all.len())?, in_index: u64::try_from(in_index)? })
    }
}

/// Sets the schedule of the deployment that is copied.
async fn schedule(cloud: &Cloud, body: &Value) -> Result<()> {
    let deployment = cloud.demo.other_deployment_id;
    let path = format!("{}/schedule", Cloud::backups_of(deployment));
    let call = Call::new("PUT", path).key(cloud.manager_of(deployment)).json(body.to_string());
    let reply = cloud.send(call).await?;
    if reply.status == 204 { Ok(()) } else { fail(format!("PUT {body}: {reply:?}")) }
}

/// The rows of the deployment that is copied, as on the wire: it has one node with one
/// volume.
async fn of_deployment(cloud: &Cloud) -> Result<Vec<Value>> {
    let page = cloud
        .aws("dynamodb", "DynamoDB_20120810.Scan", &json!({"TableName": cloud.demo.table}))
        .await?;
    if !page["LastEvaluatedKey"].is_null() {
        return fail("the rows to copy are more than a page");
    }
    let own = format!("DEPLOYMENT#{}", cloud.demo.other_deployment_id);
    let ours = |row: &&Value| {
        let pk = text(&row["pk"], "S");
        pk == own || pk.starts_with("SNAPSHOTS#")
    };
    Ok(items(&page["Items"]).filter(ours).cloned().collect())
}

/// Whether a row's sort key begins so.
fn has(row: &Value, begin: &str) -> bool {
    text(&row["sk"], "S").starts_with(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_differs_in_its_ids_and_its_shard_alone() {
        let item = json!({
            "pk": {"S": "DEPLOYMENT#4711"}, "sk": {"S": "BACKUP#1"}, "deployment_id": {"N": "4711"},
            "due_at": {"S": "2026-01-01T00:00:00Z"}, "due_shard": {"N": "3"},
            "nodes": {"L": [{"S": "snap-1"}, {"S": "snap-1"}]},
        });
        let row = Row::new(&item, "4711", "snap-1");
        assert!(row.in_index);
        let copy: Value = serde_json::from_str(&row.of(9, 8)).unwrap_or_default();
        let id = (FIRST + 144).to_string();
        let mut expected = item;
        expected["pk"]["S"] = json!(format!("DEPLOYMENT#{id}"));
        expected["deployment_id"]["N"] = json!(id);
        expected["due_shard"]["N"] = json!("1");
        expected["nodes"]["L"] =
            json!([{"S": "snap-00000000000000009"}, {"S": "snap-00000000000000009"}]);
        assert_eq!(copy, expected);
        let schedule = json!({"due_at": {"S": "x"}, "due_shard": {"N": "-1"}});
        let schedule = Row::new(&schedule, "4711", "");
        assert!(schedule.of(9, 8).contains(r#""due_shard":{"N":"-1"}"#));
    }
}
