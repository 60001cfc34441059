//! The API's description. It goes with the code that it describes: a stack serves the document
//! of what it runs.

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};

/// Written by `cargo run -p tests --bin openapi`.
const TEXT: &str = include_str!("../../../docs/openapi.json");

/// `GET /docs/openapi.json`: anybody may read it.
pub(crate) async fn get() -> ([(HeaderName, HeaderValue); 2], &'static str) {
    let json = HeaderValue::from_static("application/json");
    let for_a_while = HeaderValue::from_static("public, max-age=300");
    ([(CONTENT_TYPE, json), (CACHE_CONTROL, for_a_while)], TEXT)
}
