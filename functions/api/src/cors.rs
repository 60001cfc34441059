//! Which pages may read the replies: those of the stack itself, and of the origins that its
//! operator names.
//!
//! A browser asks first, by an OPTIONS request that bears no key: it is answered here. Without
//! a named origin nothing is, and OPTIONS is a method like any other that is not there.

use std::time::Duration;

use http::header::{CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::CorsLayer;

use crate::auth::LD_API_KEY;
use crate::frame::LD_REQUEST;
use crate::once::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, LD_BACKUP, LD_RESTORE};

/// How long a browser may keep what it was told: Chromium's longest (MDN,
/// Access-Control-Max-Age).
const KEPT: Duration = Duration::from_hours(2);

/// The layer for these origins, if there are any.
pub(crate) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    // The settings take none that is no header's value.
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let origins: Vec<HeaderValue> = origins.collect();
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([CONTENT_TYPE, IDEMPOTENCY_KEY, HeaderName::from_static(LD_API_KEY)])
        .expose_headers([LD_BACKUP, LD_REQUEST, LD_RESTORE, IDEMPOTENT_REPLAYED, LINK, RETRY_AFTER])
        .max_age(KEPT);
    Some(layer)
}
