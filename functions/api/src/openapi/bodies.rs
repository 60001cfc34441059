//! The bodies of requests, by the bounds that `backups_core::body` holds them to.

use backups_core::backup::BackupType;
use backups_core::body::{EXPIRY_DAYS, MAX_REMARKS_CHARACTERS, NAME_CHARACTERS};
use backups_core::id::NodeId;
use backups_core::schedule::Cron;
use serde_json::{Value, json};
use utoipa::ToSchema as _;
use utoipa::openapi::schema::{
    AdditionalProperties, Object, ObjectBuilder, RefBuilder, SchemaType, Type,
};
use utoipa::openapi::{OneOfBuilder, Ref, RefOr, Schema};

/// Text without control characters, in the regular expressions of JSON Schema.
const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// The same with a character that is not blank.
const NOT_BLANK: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f]*",
    r"[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]",
    r"[^\u0000-\u001f\u007f-\u009f]*$"
);

/// Each body's name and schema.
pub(super) fn all() -> [(&'static str, Object); 4] {
    [
        ("NewBackup", create()),
        ("BackupChange", patch()),
        ("NewRestore", restore()),
        ("NewSchedule", schedule()),
    ]
}

fn create() -> Object {
    strict("A backup that is to be made.")
        .property(
            "name",
            name().description(Some(
                "Human-readable backup name. Blanks around it are taken off, and not counted.",
            )),
        )
        .required("name")
        .property("node_id", node("Specific node to back up. Omit to back up every node."))
        .property("backup_type", backup_type())
        .property(
            "remarks",
            remarks().description(Some("Optional free-form description. Blank is none.")),
        )
        .property(
            "expires_in_days",
            days().description(Some("Auto-delete after this many days. Null: never.")),
        )
        .build()
}

fn patch() -> Object {
    strict("What is to be changed: at least one of the fields.")
        .min_properties(Some(1))
        .property("name", name())
        .property("remarks", remarks().description(Some("Null takes them away.")))
        .property(
            "expires_in_days",
            days().description(Some("Counted from now. Null: the backup never expires.")),
        )
        .build()
}

fn restore() -> Object {
    strict("How to restore. Without a body each is false.")
        .property(
            "allow_partial",
            flag("Leave the volumes of nodes alone that joined after the backup.", false),
        )
        .property(
            "safety_backup",
            flag(
                "First take a backup of the present state, named `before restore <id>`. If that \
                 fails, nothing is touched.",
                false,
            ),
        )
        .build()
}

fn schedule() -> Object {
    let about = "Minute, hour, day of the month, month, day of the week: lists, ranges, steps, \
                 names; 7 is Sunday too. Two slots must be as far apart as the stack demands \
                 (60 minutes, unless its operator changed it).";
    let cron = text(Type::String.into(), "^ *[0-9A-Za-z*,/-]+( +[0-9A-Za-z*,/-]+){4} *$")
        .max_length(Some(Cron::MAX_CHARACTERS))
        .examples([json!("0 3 * * *")])
        .description(Some(about));
    let zone = text(Type::String.into(), "^[A-Za-z0-9_+/-]+$");
    strict("The schedule as it is to be: all of it.")
        .property("cron", cron)
        .required("cron")
        .property(
            "timezone",
            zone.default(Some(json!("UTC")))
                .examples([json!("Europe/Warsaw")])
                .description(Some("An IANA time zone.")),
        )
        .property(
            "expires_in_days",
            days().description(Some("Days until each of its backups expires. Null: never.")),
        )
        .property("node_id", node("Specific node to back up. Omit to back up every node."))
        .property("enabled", flag("Whether it runs at all.", true))
        .build()
}

/// An object that takes no other fields than those that follow.
fn strict(about: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(about))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn text(kind: SchemaType, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).pattern(Some(pattern))
}

fn name() -> ObjectBuilder {
    text(Type::String.into(), NOT_BLANK)
        .min_length(Some(*NAME_CHARACTERS.start()))
        .max_length(Some(*NAME_CHARACTERS.end()))
}

fn remarks() -> ObjectBuilder {
    text(or_null(Type::String), NO_CONTROLS).max_length(Some(MAX_REMARKS_CHARACTERS))
}

fn days() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(or_null(Type::Integer))
        .minimum(Some(*EXPIRY_DAYS.start()))
        .maximum(Some(*EXPIRY_DAYS.end()))
}

fn flag(about: &str, default: bool) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .default(Some(Value::Bool(default)))
        .description(Some(about))
}

fn or_null(kind: Type) -> SchemaType {
    SchemaType::Array(vec![kind, Type::Null])
}

/// The id of a node, or null.
fn node(about: &str) -> Schema {
    let id = Ref::from_schema_name(NodeId::name());
    let null = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(id).item(null).description(Some(about)).into()
}

fn backup_type() -> RefOr<Schema> {
    RefBuilder::new()
        .ref_location_from_schema_name(BackupType::name())
        .description(Some("What asks for it."))
        .default(serde_json::to_value(BackupType::default()).ok())
        .build()
        .into()
}
