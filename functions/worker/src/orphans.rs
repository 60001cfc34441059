//! An operator's order to remove what no row vouches for. It is looked at again, and
//! judged by the same rules that found it; each thing gets its answer.

use backups_aws::ec2::Deleted;
use backups_aws::sdk::ATTEMPT;
use backups_aws::table::{OrphanAnswer, Removal, TableError};
use backups_core::announce::OrphanRemovalOrdered;
use backups_core::operation::CallError;
use backups_core::reconcile::{Thing, judge_snapshot, judge_volume, removable};
use backups_core::time::Time;

use crate::advance::{Deadline, LOOK, looked};
use crate::{Error, Worker};

/// Why nothing was done about a thing for want of time.
const LATE: &str = "the time was over: order again";

/// Why nothing was done while an operator's brake is on.
const PAUSED: &str =
    "deletions or writes are paused: resume them first (`admin brake` shows which)";

/// Removes what was ordered, or stores why not.
///
/// # Errors
/// An order that is too old, or dated ahead, changes nothing and goes to the dead-letter
/// queue with its reason.
#[tracing::instrument(skip_all, fields(order_id = %ordered.order_id))]
pub(crate) async fn remove(
    worker: &Worker,
    ordered: OrphanRemovalOrdered,
    at: Time,
    until: Deadline,
) -> Result<(), Error> {
    worker.order_counts(at)?;
    // An event may come twice. What is deleted twice is deleted; the answer is the first.
    if worker.table.orphan_answer(&ordered.order_id).await?.is_some() {
        return Ok(());
    }
    let table_id = worker.table.table_id().await?;
    let paused = worker.table.brake().await?.hold().deletions;
    let mut things = Vec::with_capacity(ordered.ids.len());
    for id in ordered.ids {
        let refused = if paused {
            Some(PAUSED.to_owned())
        } else if until.fits(LOOK + ATTEMPT) {
            match one(worker, &id, &table_id, until).await {
                // It keeps nobody from the others.
                Err(error @ TableError::Row { .. }) => Some(format!("it is not judged: {error}")),
                done => done?.err(),
            }
        } else {
            Some(LATE.to_owned())
        };
        tracing::info!(id, ?refused, "an operator's order");
        things.push(Removal { id, refused });
    }
    let answer = OrphanAnswer { order_id: ordered.order_id, things };
    Ok(worker.table.answer_orphans(&answer, worker.clock.now()).await?)
}

/// One thing. The inner error is why it stays.
async fn one(
    worker: &Worker,
    id: &str,
    table_id: &str,
    until: Deadline,
) -> Result<Result<(), String>, TableError> {
    let ec2 = &worker.ec2;
    let Some(thing) = Thing::parse(id) else { return Ok(Err("it is no id".to_owned())) };
    let foreign = || format!("it does not bear the tag of the stack {}", ec2.stack());
    // The row after the look: what it does not name now, it did not name then.
    let judged = match &thing {
        Thing::Snapshot(_) => match looked(ec2.tagged_snapshot(id), until.look(), Err).await {
            Ok(Some(seen)) => {
                let vouching = worker.table.vouching(&seen.tags).await?;
                let verdict = judge_snapshot(&seen, table_id, &vouching, worker.clock.now());
                removable(verdict, false)
            }
            Ok(None) => return Ok(Err(foreign())),
            Err(error) => return Ok(gone(&error)),
        },
        Thing::Volume(_) => match looked(ec2.tagged_volume(id), until.look(), Err).await {
            Ok(Some(seen)) => {
                let row = worker.table.vouching_restore(&seen.tags).await?;
                let verdict = judge_volume(&seen, table_id, &row, worker.clock.now());
                removable(verdict, seen.attached)
            }
            Ok(None) => return Ok(Err(foreign())),
            Err(error) => return Ok(gone(&error)),
        },
    };
    if let Err(why) = judged {
        return Ok(Err(why.to_owned()));
    }
    match ec2.delete(vec![thing], || until.fits(ATTEMPT)).await.pop() {
        Some((_, Deleted::Taken)) => Ok(Ok(())),
        Some((_, Deleted::Refused(error))) => Ok(Err(error.to_string())),
        Some((_, Deleted::NotBegun)) | None => Ok(Err(LATE.to_owned())),
    }
}

/// What is not there is removed.
fn gone(error: &CallError) -> Result<(), String> {
    match error {
        CallError::Rejected { code, .. }
            if code == "InvalidSnapshot.NotFound" || code == "InvalidVolume.NotFound" =>
        {
            Ok(())
        }
        error => Err(format!("EC2 could not be looked at: {error}")),
    }
}
