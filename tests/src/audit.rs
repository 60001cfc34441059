//! What must hold: at any moment, and when everything is at rest.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::{self, BackupKey, Row};
use crate::{Cloud, Result, fail};

/// What does not hold in the table at any moment, not even just after a crash.
pub fn always(rows: &[Row]) -> Vec<String> {
    let mut faults = Vec::new();
    let backups = rows::backups(rows);
    for row in rows.iter().filter(|row| row.text("sk") == "META") {
        let Some(deployment) = row.deployment() else { continue };
        let of_it = || backups.iter().filter(|((of, _), _)| *of == deployment);
        let active: Vec<u64> = of_it()
            .filter(|(_, backup)| matches!(backup.text("status"), "pending" | "in_progress"))
            .map(|((_, id), _)| *id)
            .collect();
        if active.len() > 1 {
            faults.push(format!("deployment {deployment}: {active:?} are active at once"));
        }
        if row.0["active_backup"].as_u64() != active.first().copied() {
            let slot = &row.0["active_backup"];
            faults.push(format!(
                "deployment {deployment}: the slot is {slot}, active are {active:?}"
            ));
        }
        let counted = of_it().filter(|(_, backup)| counts(backup)).count() as u64;
        let count = row.0["backup_count"].as_u64().unwrap_or(0);
        if count != counted {
            faults.push(format!("deployment {deployment}: backup_count is {count}, not {counted}"));
        }
        let next = row.0["next_backup_id"].as_u64().unwrap_or(1);
        if let Some(((_, id), _)) = of_it().find(|((_, id), _)| *id >= next) {
            faults.push(format!("deployment {deployment}: id {id} is there, the next is {next}"));
        }
    }
    restores(rows, &backups, &mut faults);
    for (key, row) in &backups {
        let moving = !matches!(row.text("status"), "completed" | "failed");
        if moving && row.text("due_at").is_empty() {
            faults.push(format!("{key:?} is {} and not due", row.text("status")));
        }
    }
    faults
}

/// The slot of restores, and the pin, are those of the restore that is not over.
fn restores(rows: &[Row], backups: &BTreeMap<BackupKey, &Row>, faults: &mut Vec<String>) {
    let over = |row: &Row| matches!(row.text("status"), "completed" | "rolled_back" | "failed");
    let active = || rows.iter().filter_map(|row| Some((row.restore()?, row)));
    let active = || active().filter(|(_, row)| !over(row));
    for row in rows.iter().filter(|row| row.text("sk") == "META") {
        let Some(deployment) = row.deployment() else { continue };
        let of_it = active().filter(|((of, _), _)| *of == deployment).map(|((_, id), _)| id);
        let of_it: Vec<u64> = of_it.collect();
        if of_it.len() > 1 || row.0["active_restore"].as_u64() != of_it.first().copied() {
            let slot = &row.0["active_restore"];
            faults.push(format!(
                "deployment {deployment}: the slot is {slot}, restores {of_it:?} are active"
            ));
        }
    }
    for (key, backup) in backups {
        let of = active()
            .find(|((of, _), row)| (*of, row.0["backup_id"].as_u64()) == (key.0, Some(key.1)));
        let of = of.map(|((_, id), _)| id);
        if backup.0["pinned_by"].as_u64() != of {
            faults.push(format!("{key:?} is pinned by {}, not {of:?}", backup.0["pinned_by"]));
        }
    }
    for (key, row) in active().filter(|(_, row)| row.text("due_at").is_empty()) {
        faults.push(format!("restore {key:?} is {} and not due", row.text("status")));
    }
}

/// What does not hold although everything is at rest.
///
/// # Errors
/// The cloud did not answer.
pub async fn at_rest(cloud: &Cloud, rows: &[Row]) -> Result<Vec<String>> {
    let mut faults = always(rows);
    let backups = rows::backups(rows);
    for (key, row) in &backups {
        if row.moving() {
            faults.push(format!("{key:?} still moves: {}", row.text("status")));
        }
        if row.0["outbox"].as_array().is_some_and(|outbox| !outbox.is_empty()) {
            faults.push(format!("{key:?} has something to announce"));
        }
    }
    snapshots(cloud, &backups, &mut faults).await?;
    beside(rows, &backups, &mut faults);
    Ok(faults)
}

/// Fails with every fault that [`at_rest`] finds.
///
/// # Errors
/// There is one.
pub async fn demand(cloud: &Cloud, rows: &[Row]) -> Result<()> {
    let faults = at_rest(cloud, rows).await?;
    if faults.is_empty() { Ok(()) } else { fail(faults.join("\n")) }
}

/// EC2 has exactly what the completed backups name.
async fn snapshots(
    cloud: &Cloud,
    backups: &BTreeMap<BackupKey, &Row>,
    faults: &mut Vec<String>,
) -> Result<()> {
    let there = cloud.snapshots().await?;
    let mut named = BTreeMap::new();
    for (key, row) in backups {
        let taken = row.snapshots();
        if row.text("status") != "completed" && !taken.is_empty() {
            faults.push(format!("{key:?} is {} and names {taken:?}", row.text("status")));
        }
        let volumes: BTreeSet<_> = taken.iter().map(|(_, volume)| volume).collect();
        if volumes.len() != taken.len() || (row.text("status") == "completed" && taken.is_empty()) {
            faults.push(format!("{key:?} has not one snapshot of each volume: {taken:?}"));
        }
        for (snapshot, _) in taken {
            if let Some(other) = named.insert(snapshot.clone(), key) {
                faults.push(format!("{snapshot} is {other:?}'s and {key:?}'s"));
            }
            match there.get(&snapshot) {
                Some(one) if one["state"] == "completed" => {}
                Some(one) => faults.push(format!("{key:?}: {snapshot} is {}", one["state"])),
                None => faults.push(format!("{key:?}: {snapshot} is not in EC2")),
            }
        }
    }
    for (snapshot, one) in &there {
        if !named.contains_key(snapshot) {
            faults.push(format!("no backup names {snapshot}: {one}"));
        }
    }
    Ok(())
}

/// No row is left of what is gone.
fn beside(rows: &[Row], backups: &BTreeMap<BackupKey, &Row>, faults: &mut Vec<String>) {
    let mut owned: BTreeSet<String> = BTreeSet::new();
    for row in backups.values() {
        let owners = row.0["owners"].as_array().into_iter().flatten();
        owned.extend(owners.filter_map(|id| id.as_str().map(|id| format!("SNAPSHOTS#{id}"))));
    }
    let owners: BTreeSet<String> = rows
        .iter()
        .filter(|row| row.text("sk") == "OWNER")
        .map(|row| row.text("pk").to_owned())
        .collect();
    for pk in owners.difference(&owned) {
        faults.push(format!("{pk} has an owner row, and no backup has it"));
    }
    // The other way round is none: an owner row comes after the backup's, and a
    // crash in between costs its events, which the tick makes up for.
    for row in rows {
        let Some(rest) = row.text("sk").strip_prefix("VOLUMES#BACKUP#") else { continue };
        let id = rest.split('#').next().and_then(|id| id.parse().ok());
        let key = row.deployment().zip(id);
        if !key.is_some_and(|key| backups.contains_key(&key)) {
            faults.push(format!("{} is left of a backup that is gone", row.text("sk")));
        }
    }
}

fn counts(backup: &Row) -> bool {
    !matches!(backup.text("status"), "failed" | "deleting")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rows(count: u64, slot: &Value, backups: &[(u64, &str)]) -> Vec<Row> {
        let mut meta =
            json!({"pk": "DEPLOYMENT#1", "sk": "META", "backup_count": count, "next_backup_id": 9});
        meta["active_backup"] = slot.clone();
        let backups = backups.iter().map(|(id, status)| {
            Row(json!({
                "pk": "DEPLOYMENT#1", "sk": format!("BACKUP#{id:020}"),
                "status": status, "due_at": "2025-01-15T10:30:00Z",
            }))
        });
        std::iter::once(Row(meta)).chain(backups).collect()
    }

    #[test]
    fn each_rule_of_always_can_be_broken() {
        let good = rows(2, &json!(2), &[(1, "completed"), (2, "pending"), (3, "failed")]);
        assert_eq!(always(&good), Vec::<String>::new());
        let two = rows(2, &json!(1), &[(1, "pending"), (2, "in_progress")]);
        assert!(always(&two)[0].contains("at once"));
        assert!(always(&rows(1, &Value::Null, &[(1, "pending")]))[0].contains("the slot"));
        assert!(always(&rows(2, &Value::Null, &[(1, "completed")]))[0].contains("backup_count"));
        assert!(always(&rows(1, &Value::Null, &[(9, "completed")]))[0].contains("the next"));
        let mut lost = rows(0, &Value::Null, &[(1, "deleting")]);
        lost[1].0["due_at"] = Value::Null;
        assert!(always(&lost)[0].contains("not due"));
    }

    #[test]
    fn each_rule_of_restores_can_be_broken() {
        let restore = |id: u64, status: &str| {
            Row(json!({
                "pk": "DEPLOYMENT#1", "sk": format!("RESTORE#{id:020}"), "status": status,
                "backup_id": 1, "due_at": "2025-01-15T10:30:00Z",
            }))
        };
        let mut good = rows(1, &Value::Null, &[(1, "completed")]);
        good.extend([restore(1, "rolled_back"), restore(2, "rolling_back")]);
        good[0].0["active_restore"] = json!(2);
        good[1].0["pinned_by"] = json!(2);
        assert_eq!(always(&good), Vec::<String>::new());
        let broken = |row: usize, name: &str, to: Value| {
            let mut rows = good.clone();
            rows[row].0[name] = to;
            always(&rows).join("; ")
        };
        assert!(broken(0, "active_restore", Value::Null).contains("the slot is null"));
        assert!(broken(2, "status", json!("stuck")).contains("restores [1, 2] are active"));
        assert!(broken(1, "pinned_by", json!(1)).contains("is pinned by 1"));
        assert!(broken(3, "due_at", Value::Null).contains("not due"));
    }

    #[test]
    fn what_is_left_of_a_backup_is_found() {
        let mut rows = rows(1, &Value::Null, &[(1, "completed")]);
        rows[1].0["owners"] = json!(["snap-1"]);
        rows.push(Row(json!({"pk": "SNAPSHOTS#snap-2", "sk": "OWNER"})));
        rows.push(Row(
            json!({"pk": "DEPLOYMENT#1", "sk": format!("VOLUMES#BACKUP#{:020}#{:020}", 2, 7)}),
        ));
        let mut faults = Vec::new();
        beside(&rows, &rows::backups(&rows), &mut faults);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
