//! The schedule of a deployment: read, set, delete.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use backups_aws::table::keys::Permission;
use backups_aws::table::requests::Answer;
use backups_core::body;
use backups_core::id::{BackupId, NodeId};
use backups_core::refusals::no_schedule;
use backups_core::schedule::{Cron, Last, Outcome, Schedule, Setting, Zone, may_have};
use backups_core::time::Time;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::backups::living;
use crate::once::{Sent, Tries, once, record};
use crate::problem::Problem;
use crate::{Api, auth, input, shown};

// The comments of this and of the following type are the API document's words.
/// The schedule of a deployment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct Shown<'a> {
    #[schema(value_type = String)]
    cron: &'a Cron,
    /// An IANA name.
    #[schema(value_type = String)]
    timezone: &'a Zone,
    /// Days until each of its backups expires. Null: never.
    expires_in_days: Option<u16>,
    /// The node that is backed up. Null: every node.
    node_id: Option<NodeId>,
    enabled: bool,
    /// Null: it is not enabled.
    next_run_at: Option<Time>,
    /// The latest slot that made a backup.
    last_run_at: Option<Time>,
    last_outcome: Option<ShownLast<'a>>,
}

/// What became of the latest slot.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SlotOutcome)]
struct ShownLast<'a> {
    slot: Time,
    result: Outcome,
    /// Why it failed or was skipped: a failure's code, or a refusal's.
    code: Option<&'a str>,
    reason: Option<&'a str>,
    /// Its backup, also when that is gone by now.
    backup_id: Option<BackupId>,
}

impl<'a> Shown<'a> {
    fn new(setting: &'a Setting, schedule: &'a Schedule, now: Time) -> Self {
        Self {
            cron: &setting.plan.cron,
            timezone: &setting.plan.zone,
            expires_in_days: setting.expires_in_days,
            node_id: setting.node_id,
            enabled: setting.enabled,
            next_run_at: schedule.next_run(now),
            last_run_at: schedule.last_run_at,
            last_outcome: schedule.last.as_ref().map(ShownLast::from),
        }
    }
}

impl<'a> From<&'a Last> for ShownLast<'a> {
    fn from(last: &'a Last) -> Self {
        Self {
            slot: last.slot,
            result: last.result,
            code: last.why.as_ref().map(|why| why.code.as_str()),
            reason: last.why.as_ref().map(|why| why.reason.as_str()),
            backup_id: last.backup_id,
        }
    }
}

/// `GET /deployments/{deployment_id}/backups/schedule`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    let deployment = living(&api, &key, id, Permission::Read).await?;
    let schedule = api.table.schedule(id).await?.ok_or_else(no_schedule)?.on(&deployment);
    let setting = schedule.setting.as_ref().ok_or_else(no_schedule)?;
    shown::json(&Shown::new(setting, &schedule, api.clock.now()))
}

/// `PUT /deployments/{deployment_id}/backups/schedule`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    let deployment = living(&api, &key, id, Permission::Manage).await?;
    let body = input::json(&parts.headers, body).await?;
    let limits = &api.settings.limits;
    let sent = Sent::new(&key, &parts, &body, body::schedule(&body, limits.schedule_apart))?;
    let (wanted, named) = (&sent.wanted, sent.once.as_ref());
    once(
        &api,
        named,
        Box::pin(async {
            may_have(&deployment, wanted, limits)?;
            let mut tries = Tries::new(&api, named);
            loop {
                let before = api.table.schedule(id).await?;
                let now = api.clock.now();
                let after = Schedule::set(before.clone(), &deployment, wanted.clone(), now);
                // With a name it is stored also if nothing changes, for the record of it.
                if named.is_none() && before.as_ref() == Some(&after) {
                    break;
                }
                let (due, record) = (after.due(now), record(&api, named, Answer::default(), now)?);
                let stored = api.table.set_schedule(before.as_ref(), after, due, record);
                if tries.stored(stored.await?).await? {
                    break;
                }
            }
            let (plan, enabled) = (&wanted.plan, wanted.enabled);
            tracing::info!(cron = %plan.cron, zone = %plan.zone, enabled, "the schedule is set");
            Ok(Answer::default())
        }),
    )
    .await
}

/// `DELETE /deployments/{deployment_id}/backups/schedule`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    let deployment = living(&api, &key, id, Permission::Manage).await?;
    let mut tries = Tries::new(&api, None);
    loop {
        let before = api.table.schedule(id).await?.ok_or_else(no_schedule)?;
        let there = Some(before.clone().on(&deployment)).filter(|there| there.setting.is_some());
        let now = api.clock.now();
        let after = there.ok_or_else(no_schedule)?.unset(now);
        let due = after.due(now);
        if tries.stored(api.table.write_schedule(Some(&before), after, due).await?).await? {
            break;
        }
    }
    tracing::info!("the schedule is deleted");
    Ok(StatusCode::NO_CONTENT)
}
