//! One advance of one restore.
//!
//! In the downtime the worker looks on until its time runs low, and then nudges the next
//! one at once: nobody waits for the tick while a deployment is down. Of two that look side
//! by side one stores, and only who stored makes calls.

use std::time::Duration;

use backups_aws::ec2::tags::Restoring;
use backups_aws::sdk::ATTEMPT;
use backups_aws::table::{Stored, TableError};
use backups_aws::telemetry::{self, Metric};
use backups_core::announce::RestoreOrdered;
use backups_core::id::{DeploymentId, Nonce, RestoreId};
use backups_core::limits::{LEASE, Limits};
use backups_core::operation::CallError;
use backups_core::restore::{self, Action, Fate, Look, Restore, Safety, Seen, Status, Step};
use backups_core::time::{Seconds, Time};
use tokio::time::Instant;

use crate::advance::{Advance, Deadline, LOOK, least_look, looked, seconds};
use crate::operation::Operation as _;
use crate::{Error, Worker};

/// A wait of a restore's downtime.
const SOON: Seconds = Seconds(10);

/// One invocation's work on one restore.
struct Advancing<'a> {
    advance: Advance<'a>,
    whose: Restoring,
}

/// Advances a restore.
#[tracing::instrument(skip_all, fields(%deployment_id, restore_id = %id))]
pub(crate) async fn advance(
    worker: &Worker,
    deployment_id: DeploymentId,
    id: RestoreId,
    announced: Option<Nonce>,
    until: Deadline,
) -> Result<(), TableError> {
    let Some(row) = worker.table.restore(deployment_id, id).await? else {
        tracing::warn!("no such restore");
        return Ok(());
    };
    let mut advancing = Advancing::of(worker, &row, announced, until).await?;
    Box::pin(advancing.run(row)).await
}

/// Obeys an operator's order, or stores why not, and goes on from there.
///
/// # Errors
/// An order that is too old, or dated ahead, or of a restore that is not there, changes
/// nothing and goes to the dead-letter queue with its reason.
#[tracing::instrument(skip_all, fields(deployment_id = %ordered.deployment_id, restore_id = %ordered.restore_id))]
pub(crate) async fn obey(
    worker: &Worker,
    ordered: RestoreOrdered,
    at: Time,
    until: Deadline,
) -> Result<(), Error> {
    worker.order_counts(at)?;
    let found = worker.table.restore(ordered.deployment_id, ordered.restore_id).await?;
    let Some(row) = found else {
        return Err(Error::Rejected("there is no such restore".to_owned()));
    };
    let mut advancing = Advancing::of(worker, &row, None, until).await?;
    match Box::pin(advancing.obey(row, &ordered)).await? {
        Some(row) => Ok(Box::pin(advancing.run(row)).await?),
        None => Err(Error::OutOfTime),
    }
}

impl<'a> Advancing<'a> {
    async fn of(
        worker: &'a Worker,
        row: &Restore,
        announced: Option<Nonce>,
        until: Deadline,
    ) -> Result<Self, TableError> {
        let whose = Restoring {
            stack: worker.ec2.stack().to_owned(),
            table: worker.table_id().await?.to_owned(),
            deployment: row.deployment_id,
            restore: row.id,
            token: row.token.clone(),
            managed: worker.managed_tag.clone(),
        };
        Ok(Self { advance: Advance::begin(worker, announced, until).await?, whose })
    }

    /// The limits as they hold up this restore: from its first stop on only what an operator
    /// has said of such, up to the last tag of what it leaves.
    fn limits(&self, row: &Restore) -> Limits {
        self.advance.worker.limits_under(self.advance.brake.hold_of_restore(row.touched_at))
    }

    /// The row with the order obeyed, or with why not. None: the time was over before.
    async fn obey(
        &self,
        mut row: Restore,
        ordered: &RestoreOrdered,
    ) -> Result<Option<Restore>, TableError> {
        let worker = self.advance.worker;
        while self.advance.until.fits(LOOK) {
            if row.answer_to(&ordered.order_id).is_some() {
                return Ok(Some(row));
            }
            let now = worker.clock.now();
            // Nothing is decided while calls are under way, nor on what was before them.
            let shown = restore::shows_at(&row, ordered.order).is_none_or(|at| at <= now);
            if shown && !self.advance.is_others(&row, now) {
                let look = restore::look_for_order(&row, ordered.order);
                match self.looked(&row, &look).await? {
                    Ok(seen) => {
                        let order_id = ordered.order_id.clone();
                        let limits = &self.limits(&row);
                        let next = restore::obey(&row, ordered.order, order_id, &seen, limits, now);
                        let answer = next.answer_to(&ordered.order_id);
                        let refused = answer.and_then(|one| one.refused.as_deref());
                        tracing::info!(order = ?ordered.order, refused, "an operator's order");
                        if let Some(stored) = self.advance.store(&row, next, Some(now)).await? {
                            return Ok(Some(stored));
                        }
                    }
                    Err(error) => tracing::warn!(%error, "EC2 could not be looked at"),
                }
            }
            worker.clock.sleep(Duration::from_secs(1)).await;
            match row.reread(&worker.table).await? {
                Some(newer) => row = newer,
                None => break,
            }
        }
        Ok(None)
    }

    async fn run(&mut self, mut row: Restore) -> Result<(), TableError> {
        loop {
            let now = self.advance.worker.clock.now();
            if self.advance.is_others(&row, now) {
                tracing::debug!("another worker has it");
                return Ok(());
            }
            self.advance.publish(&row).await;
            // A restore that goes on by itself is brought on by looking.
            self.advance.got_on |= row.is_urgent();
            if !self.advance.until.fits(least_look(&row)) {
                return self.advance.hand_over(row, now).await;
            }
            let step = self.next_step(&self.advance.without_published(&row)).await?;
            let next = match step {
                Step::Act { .. } if !self.advance.until.fits(ATTEMPT) => {
                    return self.advance.hand_over(row, now).await;
                }
                Step::Record(next) => {
                    let stored = self.advance.store(&row, next, Some(now + LEASE)).await?;
                    self.advance.got_on |= stored.is_some();
                    stored
                }
                Step::Plan { mut next, settings } => {
                    // Under the lease: of two workers that planned, one writes.
                    match self.advance.intend(&row, row.clone()).await? {
                        None => None,
                        Some(leased) => {
                            self.advance.worker.table.keep_settings(&leased, &settings).await?;
                            next.lease = None;
                            self.advance.got_on = true;
                            self.advance.store(&leased, next, Some(now + LEASE)).await?
                        }
                    }
                }
                Step::Freeze { next, registry } => {
                    let next = self.advance.without_published(&next);
                    let table = &self.advance.worker.table;
                    let due = Some(now + LEASE);
                    match table.write_restore(&row, next, due, Some(&registry)).await? {
                        Stored::Yes(stored) => Some(*stored),
                        Stored::Conflict => None,
                    }
                }
                Step::Act { intent, actions } => self.act(&row, intent, actions).await?,
                // While a deployment is down the next worker is nudged, and not waited for
                // until the tick.
                Step::Wait { until, note }
                    if row.is_urgent()
                        && until - now <= SOON
                        && !self.advance.until.fits(seconds(until - now) + least_look(&row)) =>
                {
                    let row = match note {
                        None => Some(row),
                        Some(next) => self.advance.store(&row, next, Some(until)).await?,
                    };
                    return match row {
                        Some(row) => self.advance.hand_over(row, now).await,
                        None => Ok(()),
                    };
                }
                Step::Wait { until, note } => match self.advance.wait(&row, until, note).await? {
                    Some(next) => Some(next),
                    None => return Ok(()),
                },
                Step::Rest => return self.rest(row).await,
            };
            if let Some(next) = next {
                row = next;
                continue;
            }
            match self.advance.give_way(&row).await? {
                Some(other) => row = other,
                None => return Ok(()),
            }
        }
    }

    /// Looks, and decides.
    async fn next_step(&self, row: &Restore) -> Result<Step, TableError> {
        let worker = self.advance.worker;
        let now = worker.clock.now();
        let look = restore::look(row, now);
        let (most, began) = (self.advance.until.look(), Instant::now());
        let seen = self.looked(row, &look).await?;
        if let Err(error) = &seen {
            if most < LOOK && began.elapsed() >= most {
                // This invocation's time was over; AWS need not be late.
                return Ok(Step::Wait { until: now, note: None });
            }
            tracing::warn!(%error, "EC2 could not be looked at");
        }
        let limits = self.limits(row);
        if limits.hold.writes && row.is_urgent() {
            // A deployment is down and stays so: the alarm rings until it is let go.
            tracing::warn!("an operator has paused it in its downtime");
            telemetry::count(Metric::RestoresHindered, 1);
        }
        Ok(restore::step(row, seen.as_ref(), &limits, now))
    }

    /// Sees all that is asked for, in the time that there is.
    async fn looked(
        &self,
        row: &Restore,
        look: &Look,
    ) -> Result<Result<Seen, CallError>, TableError> {
        let most = self.advance.until.look();
        looked(self.see(row, look), most, |late| Ok(Err(late))).await
    }

    /// Sees all that is asked for, in EC2 and in the table.
    async fn see(&self, row: &Restore, look: &Look) -> Result<Result<Seen, CallError>, TableError> {
        if look.is_empty() {
            return Ok(Ok(Seen::default()));
        }
        let worker = self.advance.worker;
        let mut seen = match worker.ec2.look_for_restore(look, &self.whose).await {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error)),
        };
        if look.kept {
            seen.kept =
                worker.table.kept(row.deployment_id, row.backup_id).await?.unwrap_or_default();
            let ids: Vec<_> = seen.kept.iter().map(|one| one.snapshot_id.clone()).collect();
            match worker.ec2.snapshots_for_restore(&ids).await {
                Ok(snapshots) => seen.snapshots = snapshots,
                Err(error) => return Ok(Err(error)),
            }
        }
        if look.settings {
            seen.settings = worker.table.settings(row).await?;
        }
        if look.registry {
            let deployment = worker.table.deployment(row.deployment_id).await?;
            seen.registry = deployment
                .filter(|one| !one.registry.deleted)
                .map(|one| one.registry.nodes)
                .or(Some(Vec::new()));
        }
        if let Some(id) = look.safety {
            let backup = worker.table.backup(row.deployment_id, id).await?;
            seen.safety = Some(backup.map_or(Safety::Gone, |one| {
                Safety::There(one.status, one.failure.map(|failure| failure.reason))
            }));
        }
        Ok(Ok(seen))
    }

    /// Stores the intent under a lease, makes the calls, and stores what they came to.
    /// None: somebody else was faster, and no call was made.
    async fn act(
        &mut self,
        row: &Restore,
        intent: Restore,
        actions: Vec<Action>,
    ) -> Result<Option<Restore>, TableError> {
        let Some(row) = self.advance.intend(row, intent).await? else {
            return Ok(None);
        };
        let until = self.advance.until;
        let may_begin = move || until.fits(ATTEMPT);
        let worker = self.advance.worker;
        let outcomes = worker.ec2.act_for_restore(actions, &self.whose, may_begin).await;
        let got_on = outcomes.iter().any(|(_, one)| one.is_success());
        let limits = self.limits(&row);
        let put = |row: &mut Restore, now| restore::apply(row, &outcomes, &limits, now);
        // If every round is lost: each call is safe to repeat.
        self.advance.merge(row, got_on, put).await
    }

    /// Nothing more to do: the row leaves the index.
    async fn rest(&self, row: Restore) -> Result<(), TableError> {
        let kept = !self.advance.without_published(&row).outbox.is_empty();
        let at_rest = !kept && !self.advance.taken_out(&row) && row.lease.is_none();
        if at_rest && row.due_at.is_none() {
            return Ok(());
        }
        let mut next = row.clone();
        next.lease = None;
        let due_at = kept.then(|| self.advance.worker.clock.now() + Seconds(60));
        if self.advance.store(&row, next, due_at).await?.is_none() {
            tracing::debug!("changed while it came to rest");
        }
        Ok(())
    }
}

/// What follows from a write of a restore.
pub(crate) fn stored(before: &Restore, after: &Restore) {
    let refused = |row: &Restore| row.nodes.iter().map(|node| node.start.refusals).sum::<u32>();
    if refused(after) > refused(before) {
        telemetry::count(Metric::RestoreStartRetries, 1);
    }
    if after.is_urgent() && after.troubles > before.troubles {
        telemetry::count(Metric::RestoresHindered, 1);
    }
    if after.status == Status::Stuck {
        // With each look, so that the alarm rings until somebody has come.
        telemetry::count(Metric::RestoresStuck, 1);
    }
    if after.phase != before.phase {
        let phase = after.phase.map(restore::Phase::as_str);
        tracing::info!(phase, "phase");
    }
    if after.status == before.status {
        return;
    }
    let failure = after.failure.as_ref().map(|failure| failure.reason.as_str());
    tracing::info!(from = before.status.as_str(), to = after.status.as_str(), failure, "status");
    let kept = after.leftovers.iter().filter(|left| left.fate == Fate::Kept).count();
    if !after.status.active() && kept > 0 {
        telemetry::count(Metric::VolumesKept, i64::try_from(kept).unwrap_or(i64::MAX));
    }
}
