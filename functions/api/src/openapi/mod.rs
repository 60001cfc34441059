//! The API as an `OpenAPI` 3.1 document: docs/openapi.json, which the api serves and a
//! test compares with this.
//!
//! Replies are described by the types that are serialized; the bodies of requests by the
//! bounds that `backups_core::body` holds them to. No function's binary has anything of it:
//! nothing that a `main` reaches calls [`document`].

mod bodies;
mod errors;
mod examples;
mod routes;

use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Info, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr, Schema,
    ServerBuilder,
};

use crate::problem::Shape;
use crate::{restores, schedules, shown};

/// The scheme by which a key is sent, in the document.
const KEY: &str = "api_key";

/// What the whole is, in the words of the published pages.
const ABOUT: &str = "\
Create, restore, and delete point-in-time storage volume backups via the Supervisor API.

**Experimental.** The Backups feature is under active development. Endpoints, request and \
response shapes, and behavior may change without notice.

Backups are point-in-time copies of a deployment's storage volumes that you can restore to \
recover from data loss or roll back after a problematic upgrade. Internally each backup is an \
EBS volume snapshot at the AWS level, taken from the deployment's node disks. The snapshots of \
one node are of one instant; those of several nodes are seconds apart. Backups are not the same \
as diagnostic snapshots: these capture a node's runtime state for troubleshooting, backups the \
data on disk so it can be restored later.

Available for AWS deployments with network storage only. Requires the Pro or Enterprise plan. \
Required permission: `deployment:read` to look, `deployment:manage` to create, change, restore, \
or delete. Only one backup can be in progress per deployment at a time.

Ids are unsigned 64-bit integers. Those of deployments and nodes may exceed 2^53: read them with a \
JSON parser that keeps integers exact. Objects may get further fields; requests with a field \
that is not named here are refused.

Every reply bears the request's id in `ld-request`, and `cache-control: no-store` (this \
document's: five minutes). Whatever was not done is told as \
`application/problem+json`, except what API Gateway refuses by itself: more requests than the \
stack takes (429), a payload above some megabytes (413), or a function that did not answer (500, 503), as \
`{\"message\"}`. A path or a method that is not named here is `route_not_found` (404) or \
`method_not_allowed` (405, with `allow`).";

/// The document.
pub fn document() -> OpenApi {
    OpenApiBuilder::new()
        .info(info())
        .servers(Some([ServerBuilder::new()
            .url("/")
            .description(Some("The stack that serves this document."))
            .build()]))
        .paths(routes::paths())
        .components(Some(components()))
        .security(Some([SecurityRequirement::new(KEY, std::iter::empty::<&str>())]))
        .tags(Some(
            [
                ("Backups", "Copies of a deployment's volumes."),
                ("Schedule", "Backups that are made by themselves."),
                ("Restores", "A deployment's way back to a backup's data."),
                ("Documentation", "This document."),
            ]
            .map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build()),
        ))
        .build()
}

fn info() -> Info {
    InfoBuilder::new()
        .title("Supervisor API: Backups")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache License 2.0")
                .identifier(Some(env!("CARGO_PKG_LICENSE")))
                .build(),
        ))
        .build()
}

fn components() -> Components {
    let mut replies = Vec::new();
    collect::<shown::Item<'_>>(&mut replies);
    collect::<shown::Whole<'_>>(&mut replies);
    collect::<restores::Item<'_>>(&mut replies);
    collect::<schedules::Shown<'_>>(&mut replies);
    collect::<Shape<'_>>(&mut replies);
    let mut all = ComponentsBuilder::new();
    for (name, schema) in replies {
        all = all.schema(name, schema);
    }
    for (name, schema) in bodies::all() {
        all = all.schema(name, schema);
    }
    for (name, header) in routes::headers() {
        all = all.header(name, header);
    }
    let request = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{32}$"));
    all = all.header(
        "LdRequest",
        HeaderBuilder::new()
            .schema(Some(request))
            .description(Some("The request's id: what to name when asking for help."))
            .build(),
    );
    for (name, response) in errors::shared() {
        all = all.response(name, response);
    }
    for (name, example) in errors::examples() {
        all = all.example(name, example);
    }
    let key = ApiKey::Header(ApiKeyValue::with_description(
        "ld-api-key",
        "`ld_` and 43 characters. It is bound to one tenant, perhaps to some of its deployments \
         and to some addresses, and ends by itself.",
    ));
    let mut all = all.security_scheme(KEY, SecurityScheme::ApiKey(key)).build();
    for schema in all.schemas.values_mut() {
        name_what_is_always_there(schema);
    }
    let problem = Shape::name();
    if let Some(RefOr::T(Schema::Object(problem))) = all.schemas.get_mut(problem.as_ref()) {
        errors::complete(problem);
    }
    all
}

/// A type's schema, and those of all that it is made of.
fn collect<T: ToSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
    all.push((T::name().into_owned(), T::schema()));
    T::schemas(all);
}

/// A reply has each of its fields, with null where there is nothing, but utoipa takes what may
/// be null for what may be missing.
fn name_what_is_always_there(schema: &mut RefOr<Schema>) {
    match schema {
        // What takes no other fields is a request's body, and says itself what it needs.
        RefOr::T(Schema::Object(object)) if object.additional_properties.is_none() => {
            object.required = object.properties.keys().cloned().collect();
        }
        RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().for_each(name_what_is_always_there),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
