//! The `/_local` calls: looking at the simulated world, and doing to it what a
//! person, a database or bad luck would do.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloud::FaultSpec;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::driver::App;
use crate::world::{LAST, Lost};

/// The furthest that the clock jumps at once: ten years.
const FURTHEST: u64 = 10 * 365 * 86_400;

/// What waits for a time further ahead than this is not in flight: a minute, and
/// what looks are spread by, after a nudge too (the scheduler's 75 s and up to 10
/// more), or what is looked at every minute would drop out of sight right after each look.
const SOON: i64 = 90;

/// How often `settle` looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The calls.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/_local/state", get(state))
        .route("/_local/calls", get(calls))
        .route("/_local/dead_letters", get(dead_letters))
        .route("/_local/write", post(write))
        .route("/_local/clock", get(time).post(clock))
        .route("/_local/tick", post(tick))
        .route("/_local/settle", post(settle))
        .route("/_local/faults", get(faults).post(arm).delete(clear))
        .route("/_local/terminate", post(terminate))
        .route("/_local/delete", post(delete))
        .fallback(unknown)
        .with_state(app)
}

/// Why a call was not carried out.
enum Refused {
    /// The caller's mistake.
    Bad(String),
    /// It is not possible as things are.
    Conflict(String),
    /// The functions or the state failed.
    Broken(String),
    /// Still in flight after the time given.
    Late(Vec<String>),
}

type Done = Result<Json<Value>, Refused>;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Bad(error) => (StatusCode::BAD_REQUEST, json!({"error": error})),
            Self::Conflict(error) => (StatusCode::CONFLICT, json!({"error": error})),
            Self::Broken(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({"error": error})),
            Self::Late(what) => (StatusCode::GATEWAY_TIMEOUT, json!({"in_flight": what})),
        };
        (status, Json(body)).into_response()
    }
}

impl From<Lost> for Refused {
    fn from(lost: Lost) -> Self {
        Self::Broken(lost.to_string())
    }
}

/// Reads a body whatever its content type says: these calls are made with curl.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    let body = if body.is_empty() { b"{}".as_slice() } else { body };
    serde_json::from_slice(body).map_err(|error| Refused::Bad(error.to_string()))
}

async fn unknown() -> Response {
    let known = "there are state, calls, dead_letters, write, clock, tick, settle, faults, terminate and delete";
    (StatusCode::NOT_FOUND, Json(json!({"error": known}))).into_response()
}

async fn state(State(app): State<Arc<App>>) -> Done {
    Ok(Json(app.world.with(|cloud, now| {
        cloud.advance(now);
        cloud.state(now)
    })?))
}

async fn calls(State(app): State<Arc<App>>) -> Done {
    Ok(Json(app.world.with(|cloud, _| cloud.calls())?))
}

async fn dead_letters(State(app): State<Arc<App>>) -> Done {
    Ok(Json(app.world.with(|cloud, _| cloud.dead_letters())?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    volume_id: String,
    content: String,
}

async fn write(State(app): State<Arc<App>>, body: Bytes) -> Done {
    let Write { volume_id, content } = read(&body)?;
    app.world
        .with(|cloud, now| cloud.write(now, &volume_id, &content))?
        .map_err(Refused::Conflict)?;
    Ok(Json(json!({})))
}

async fn time(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"now": app.world.clock.now()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: u64,
}

async fn clock(State(app): State<Arc<App>>, body: Bytes) -> Done {
    let Advance { advance_seconds } = read(&body)?;
    if advance_seconds > FURTHEST {
        return Err(Refused::Bad(format!("advance_seconds: at most {FURTHEST}")));
    }
    let span = backups_core::time::Seconds(i64::try_from(advance_seconds).unwrap_or(i64::MAX));
    if app.world.clock.now() + span > LAST {
        return Err(Refused::Bad(format!("the clock ends at {LAST}: push it less far")));
    }
    let closed = app.functions.pause(|| app.world.cut_waits()).await;
    let now = app.world.advance_clock(Duration::from_secs(advance_seconds))?;
    drop(closed);
    let now = backups_core::time::Time::from_unix(now.as_second());
    tracing::info!(%now, advance_seconds, "the clock was pushed forward");
    Ok(Json(json!({"now": now})))
}

async fn tick(State(app): State<Arc<App>>) -> Done {
    let ended = app.functions.tick().await;
    // What it put on the bus is running from here on, at the latest.
    app.dispatch()?;
    app.functions.running.drained().await;
    match ended {
        Ok(()) => Ok(Json(json!({"now": app.world.clock.now()}))),
        Err(failed) => Err(Refused::Broken(failed.to_string())),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    #[serde(default = "a_minute")]
    timeout_seconds: u64,
}

fn a_minute() -> u64 {
    60
}

async fn settle(State(app): State<Arc<App>>, body: Bytes) -> Done {
    let Settle { timeout_seconds } = read(&body)?;
    let end = Instant::now() + Duration::from_secs(timeout_seconds.min(86_400));
    loop {
        let in_flight = in_flight(&app).await?;
        if in_flight.is_empty() {
            return Ok(Json(json!({"now": app.world.clock.now()})));
        }
        if Instant::now() >= end {
            return Err(Refused::Late(in_flight));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is in flight, in words. Invocations and events are looked at on both
/// sides of the table: what passes from one to the other is seen in one of them.
async fn in_flight(app: &Arc<App>) -> Result<Vec<String>, Refused> {
    let moving = || -> Result<Vec<String>, Lost> {
        let look = |cloud: &mut cloud::Cloud, now| {
            cloud.advance(now);
            let mut moving = cloud.undelivered();
            // A backup that runs is looked at ever more seldom: its events tell.
            let pending = cloud.snapshots().filter(|one| one.exists && one.state == "pending");
            moving.extend(pending.map(|one| format!("{} is being copied", one.snapshot_id)));
            moving
        };
        let undelivered = app.world.quietly(look, &[])?;
        Ok(app.functions.running.current().into_iter().chain(undelivered).collect())
    };
    let begun = app.functions.running.begun();
    let first = moving()?;
    if !first.is_empty() {
        return Ok(first);
    }
    let soon = app.world.clock.now() + backups_core::time::Seconds(SOON);
    let (dynamo, table) = (app.dynamo.clone(), app.template.table.clone());
    let due =
        tokio::task::spawn_blocking(move || dynamo.due(&table, "due", &soon.to_string())).await;
    let mut due =
        due.map_err(|error| Refused::Broken(error.to_string()))?.map_err(Refused::Broken)?;
    // The day's round is nobody's operation: while it is worked it is seen running.
    due.retain(|row| !row.starts_with("STACK RECONCILIATION "));
    if !due.is_empty() {
        return Ok(due);
    }
    if app.functions.running.begun() != begun {
        return Ok(vec!["an invocation began in between".to_owned()]);
    }
    Ok(moving()?)
}

async fn faults(State(app): State<Arc<App>>) -> Done {
    Ok(Json(app.world.with(|cloud, _| cloud.faults())?))
}

async fn arm(State(app): State<Arc<App>>, body: Bytes) -> Done {
    let fault: FaultSpec = read(&body)?;
    tracing::info!(on = fault.on, action = ?fault.action, times = fault.times, "a fault was armed");
    let all = app.world.with(|cloud, _| cloud.arm(fault).map(|()| cloud.faults()))?;
    all.map(Json).map_err(Refused::Bad)
}

async fn clear(State(app): State<Arc<App>>) -> Done {
    app.world.with(|cloud, _| cloud.clear_faults())?;
    tracing::info!("all faults were cleared");
    Ok(Json(json!([])))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terminate {
    instance_id: String,
}

async fn terminate(State(app): State<Arc<App>>, body: Bytes) -> Done {
    let Terminate { instance_id } = read(&body)?;
    app.world.with(|cloud, now| cloud.terminate(now, &instance_id))?.map_err(Refused::Conflict)?;
    tracing::info!(instance_id, "terminated by hand");
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    snapshot_id: Option<String>,
    volume_id: Option<String>,
}

async fn delete(State(app): State<Arc<App>>, body: Bytes) -> Done {
    let (Delete { snapshot_id: Some(id), volume_id: None }
    | Delete { snapshot_id: None, volume_id: Some(id) }) = read(&body)?
    else {
        return Err(Refused::Bad("expected snapshot_id or volume_id".to_owned()));
    };
    app.world.with(|cloud, now| cloud.delete(now, &id))?.map_err(Refused::Conflict)?;
    tracing::info!(id, "deleted by hand");
    Ok(Json(json!({})))
}
