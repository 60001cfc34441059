//! The schedule of a deployment: read, set, delete.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use backups_aws::table::Stored;
use backups_aws::table::keys::Permission;
use backups_core::body;
use backups_core::error::{Code, Refusal};
use backups_core::id::{BackupId, DeploymentId, NodeId};
use backups_core::schedule::{Cron, Last, Outcome, Schedule, Setting, Zone, may_have};
use backups_core::time::Time;
use http::StatusCode;
use serde::Serialize;

use crate::backups::{TRIES, contended, living, pause};
use crate::problem::Problem;
use crate::{Api, access, auth, input, shown};

/// A schedule as the API shows it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    cron: &'a Cron,
    timezone: &'a Zone,
    expires_in_days: Option<u16>,
    node_id: Option<NodeId>,
    enabled: bool,
    next_run_at: Option<Time>,
    last_run_at: Option<Time>,
    last_outcome: Option<ShownLast<'a>>,
}

/// What became of the latest slot.
#[derive(Debug, Serialize)]
struct ShownLast<'a> {
    slot: Time,
    result: Outcome,
    code: Option<&'a str>,
    reason: Option<&'a str>,
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
    living(&api, &key, id).await?;
    access::permitted(&key, Permission::Read)?;
    let schedule = api.table.schedule(id).await?.ok_or_else(no_schedule)?;
    let setting = schedule.setting.as_ref().ok_or_else(no_schedule)?;
    shown::json(&Shown::new(setting, &schedule, api.clock.now()))
}

/// `PUT /deployments/{deployment_id}/backups/schedule`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    let deployment = living(&api, &key, id).await?;
    access::permitted(&key, Permission::Manage)?;
    let body = input::json(&parts.headers, body).await?;
    let limits = &api.settings.limits;
    let setting = body::schedule(&body, limits.schedule_apart)?;
    may_have(&deployment, &setting, limits)?;
    change(&api, id, |before, now| Ok(Schedule::set(before, &deployment, setting.clone(), now)))
        .await?;
    tracing::info!(cron = %setting.plan.cron, zone = %setting.plan.zone, enabled = setting.enabled, "the schedule is set");
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /deployments/{deployment_id}/backups/schedule`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    living(&api, &key, id).await?;
    access::permitted(&key, Permission::Manage)?;
    change(&api, id, |before, now| match before {
        Some(before) if before.setting.is_some() => Ok(before.unset(now)),
        _ => Err(no_schedule()),
    })
    .await?;
    tracing::info!("the schedule is deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the schedule, changes it, and stores it; as often as others write it in between.
async fn change(
    api: &Api,
    id: DeploymentId,
    changed: impl Fn(Option<Schedule>, Time) -> Result<Schedule, Refusal>,
) -> Result<(), Problem> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            pause(api, attempt).await;
        }
        let before = api.table.schedule(id).await?;
        let now = api.clock.now();
        let after = changed(before.clone(), now)?;
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        let due = after.due(now);
        match api.table.write_schedule(before.as_ref(), after, due).await? {
            Stored::Yes(_) => return Ok(()),
            Stored::Conflict => {}
        }
    }
    Err(contended())
}

fn no_schedule() -> Refusal {
    Refusal::new(Code::ScheduleNotFound, "The deployment has no schedule.")
}
