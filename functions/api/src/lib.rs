//! The Supervisor API: what a person or a program asks of the backups service.
//!
//! It reads and writes the table and puts events on the bus. It has no right on
//! EC2 and takes no snapshot: a create is a row `pending`, a delete a row
//! `deleting`, and the worker does the rest. An answer 204 means that the row is
//! stored, not that the bus has taken the event; a row that nobody was told of is
//! due, and found by the tick.
//!
//! ```text
//!  payload ──▶ tame         what lambda_http would choke on
//!  request ──▶ frame        request id, span
//!                └▶ cors    which pages may ask
//!                └▶ shaped  panics, deadline, problems as JSON
//!                └▶ route   404, 405
//!                    └▶ handler, in the contract's order of errors:
//!                         auth    401, 403    who calls, and from where
//!                         rate    429         how often
//!                         input   400         ids in the path
//!                         access  404, 403    what the key may see and do
//!                         input   413, 415    the body's size and type
//!                         core    400         body::create
//!                         once    204, 409    a request that came before
//!                         core    400 … 409   create::decide
//!                         table   503         the transaction
//! ```

mod access;
mod auth;
mod backups;
mod cors;
mod document;
mod frame;
mod input;
mod once;
pub mod openapi;
mod pages;
mod payload;
mod problem;
mod published;
mod rate;
mod restores;
mod schedules;
mod shown;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use backups_aws::bus::Bus;
use backups_aws::clock::Clock;
use backups_aws::sdk::SdkConfig;
use backups_aws::settings::Settings;
use backups_aws::table::Table;
use tower::util::option_layer;

pub use payload::tame;

use crate::auth::Keys;
use crate::problem::Problem;
use crate::rate::Rates;

/// What every request needs. One per process: what is kept of keys lives here.
#[derive(Debug)]
pub struct Api {
    settings: Settings,
    table: Table,
    bus: Bus,
    clock: Clock,
    keys: Keys,
    rates: Rates,
}

impl Api {
    /// An API of the stack that `settings` name.
    pub fn new(settings: Settings, sdk: &SdkConfig, clock: Clock) -> Self {
        Self {
            table: Table::new(&settings, sdk),
            bus: Bus::new(&settings, sdk),
            settings,
            clock,
            keys: Keys::default(),
            rates: Rates::default(),
        }
    }
}

/// The routes. template.yaml names the same ones; its `$default` brings every
/// other path and method here too, so that their replies have our shape.
pub fn service(api: Arc<Api>) -> Router {
    Router::new()
        .route(
            "/deployments/{deployment_id}/backups",
            only("GET, POST", get(backups::list).post(backups::create)),
        )
        .route(
            "/deployments/{deployment_id}/backups/schedule",
            only(
                "GET, PUT, DELETE",
                get(schedules::get).put(schedules::put).delete(schedules::delete),
            ),
        )
        .route(
            "/deployments/{deployment_id}/backups/{backup_id}",
            only(
                "GET, PATCH, DELETE",
                get(backups::get).patch(backups::patch).delete(backups::delete),
            ),
        )
        .route(
            "/deployments/{deployment_id}/backups/{backup_id}/restore",
            only("POST", post(restores::create)),
        )
        .route("/deployments/{deployment_id}/restores", only("GET", get(restores::list)))
        .route(
            "/deployments/{deployment_id}/restores/{restore_id}",
            only("GET", get(restores::get)),
        )
        .route("/docs/openapi.json", only("GET", get(document::get)))
        .fallback(async || Problem::no_route())
        .layer(axum::middleware::from_fn(frame::shaped))
        .layer(option_layer(cors::layer(&api.settings.cors_origins)))
        .layer(axum::middleware::from_fn(frame::frame))
        .with_state(api)
}

/// A path that takes the methods `allow` and refuses all others.
///
/// HEAD is refused by name: axum would answer it wherever there is a GET, and
/// through the gateway only `$default` brings it here. The contract has no HEAD,
/// and a list without its body is of no use to anybody. OPTIONS is too, or axum
/// would tell of HEAD in what a browser gets that asks before it asks.
fn only(allow: &'static str, methods: MethodRouter<Arc<Api>>) -> MethodRouter<Arc<Api>> {
    let refuse = async move || Problem::method_not_allowed(allow);
    methods.head(refuse).options(refuse).fallback(refuse)
}

#[cfg(test)]
mod tests;
