//! Each rule of the create body, and that no body is too strange.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::Code;

/// The faults of a body, as (path, code).
fn faults(body: impl AsRef<[u8]>) -> Vec<(String, String)> {
    let refusal = create(body.as_ref()).expect_err("refused");
    assert_eq!(refusal.code, Code::InvalidRequest);
    assert!(refusal.issues.iter().all(|issue| !issue.reason.is_empty()));
    refusal.issues.into_iter().map(|issue| (issue.path, issue.code)).collect()
}

/// The one fault of a body.
fn fault(body: impl AsRef<[u8]>) -> (String, String) {
    let mut faults = faults(body);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0)
}

fn pair(path: &str, code: &str) -> (String, String) {
    (path.to_owned(), code.to_owned())
}

/// A good body but for one field.
fn with(field: &str, value: impl Into<serde_json::Value>) -> Vec<u8> {
    let mut body = json!({"name": "n"});
    body[field] = value.into();
    body.to_string().into_bytes()
}

#[test]
fn the_published_bodies_are_accepted() {
    let expected = |name: &str, remarks: &str| NewBackup {
        name: name.into(),
        node_id: None,
        backup_type: BackupType::Manual,
        remarks: Some(remarks.into()),
        expires_in_days: Some(30),
    };
    let reference = include_bytes!("../../../../docs/published/reference-create.json");
    let guide = include_bytes!("../../../../docs/published/guide-create.json");
    let wanted = expected("pre-migration", "Captured before schema migration");
    assert_eq!(create(reference), Ok(wanted));
    let wanted = expected("before-migration", "Snapshot before schema migration");
    assert_eq!(create(guide), Ok(wanted));
}

#[test]
fn what_may_be_left_out_may_be_left_out_and_null_where_the_list_has_null() {
    let bare = create(br#"{"name": "n"}"#);
    let nulls = br#"{"name": "n", "node_id": null, "remarks": null, "expires_in_days": null}"#;
    assert!(bare.is_ok());
    assert_eq!(create(nulls), bare);
    assert_eq!(fault(with("backup_type", ())), pair("backup_type", "type"));
    assert_eq!(fault(with("name", ())), pair("name", "type"));
}

#[test]
fn every_fault_is_found_at_once() {
    let body = r#"{
        "expires_in_day": 3,
        "node_id": 1.5,
        "backup_type": "nightly",
        "remarks": 5,
        "remarks": "tab\t",
        "expires_in_days": 0,
        "Name": "n",
        "Name": "n"
    }"#;
    let expected = [
        ("Name", "unknown"),
        ("Name", "duplicate"),
        ("expires_in_day", "unknown"),
        ("remarks", "duplicate"),
        ("name", "required"),
        ("node_id", "type"),
        ("backup_type", "value"),
        ("remarks", "type"),
        ("remarks", "value"),
        ("expires_in_days", "range"),
    ];
    assert_eq!(faults(body), expected.map(|(path, code)| pair(path, code)));
    let refusal = create(body.as_bytes()).expect_err("refused");
    assert_eq!(refusal.reason, "The request has 10 faults; see `field_issues`.");
}

#[test]
fn a_duplicate_key_is_a_fault_even_with_equal_values_and_escaped_spelling() {
    assert_eq!(fault(r#"{"name": "n", "name": "n"}"#), pair("name", "duplicate"));
    assert_eq!(fault(r#"{"name": "n", "n\u0061me": "n"}"#), pair("name", "duplicate"));
}

#[test]
fn a_body_that_is_no_object_has_one_fault_of_the_whole() {
    for (body, code) in [
        (b"".as_slice(), "syntax"),
        (b"{", "syntax"),
        (b"{} {}", "syntax"),
        (b"[]", "type"),
        (b"null", "type"),
        (b"\"name\"", "type"),
        (b"\xEF\xBB\xBF{\"name\": \"n\"}", "encoding"),
        (b"{\"name\": \"\xC3\x28\"}", "encoding"),
    ] {
        assert_eq!(fault(body), pair("", code), "{body:?}");
    }
}

#[test]
fn a_name_is_trimmed_and_counted_in_scalar_values() {
    let name = |text: &str| create(&with("name", text)).map(|request| request.name);
    assert_eq!(name(" \u{2003}n m "), Ok("n m".into()));
    assert_eq!(name(&"🦀".repeat(100)), Ok("🦀".repeat(100)));
    assert!(name(&format!(" {} ", "é".repeat(100))).is_ok());
    for bad in [String::new(), "  ".into(), "🦀".repeat(101)] {
        assert_eq!(fault(with("name", bad)), pair("name", "length"));
    }
    for bad in ["a\nb", "n\n", "\u{0}", "\u{7f}", "\u{85}", "a\tb"] {
        assert_eq!(fault(with("name", bad)), pair("name", "value"), "{bad:?}");
    }
    for bad in [json!(1), json!(true), json!(["n"]), json!({"n": 1})] {
        assert_eq!(fault(with("name", bad)), pair("name", "type"));
    }
}

#[test]
fn remarks_are_kept_as_sent_and_blank_ones_are_none() {
    let remarks = |text: &str| create(&with("remarks", text)).map(|request| request.remarks);
    assert_eq!(remarks(" r "), Ok(Some(" r ".into())));
    assert_eq!(remarks(""), Ok(None));
    assert_eq!(remarks(" \u{2003}"), Ok(None));
    assert!(remarks(&"ß".repeat(500)).is_ok());
    assert_eq!(fault(with("remarks", "r".repeat(501))), pair("remarks", "length"));
    assert_eq!(fault(with("remarks", "a\r\nb")), pair("remarks", "value"));
}

#[test]
fn a_node_id_is_an_exact_integer_from_one() {
    let node = |id: u64| create(&with("node_id", id)).map(|request| request.node_id);
    for id in [1, 9_007_199_254_740_993, u64::MAX] {
        assert_eq!(node(id), Ok(Some(NodeId(id))));
    }
    for (value, id) in [("1.0", 1), ("1e0", 1), ("9007199254740991.0", 9_007_199_254_740_991)] {
        let body = format!(r#"{{"name": "n", "node_id": {value}}}"#);
        let read = create(body.as_bytes()).map(|request| request.node_id);
        assert_eq!(read, Ok(Some(NodeId(id))), "{value}");
    }
    for (value, code) in [
        ("0", "range"),
        ("-1", "range"),
        ("18446744073709551616", "range"),
        ("0.0", "range"),
        ("-1.0", "range"),
        ("1.5", "type"),
        // The same float as 9007199254740993.0.
        ("9007199254740992.0", "type"),
        ("1e300", "range"),
        ("\"1\"", "type"),
        ("true", "type"),
        ("[1]", "type"),
    ] {
        let body = format!(r#"{{"name": "n", "node_id": {value}}}"#);
        assert_eq!(fault(body), pair("node_id", code), "{value}");
    }
}

#[test]
fn days_are_from_1_to_3650() {
    let days =
        |days: u64| create(&with("expires_in_days", days)).map(|request| request.expires_in_days);
    assert_eq!(days(1), Ok(Some(1)));
    assert_eq!(days(3650), Ok(Some(3650)));
    for bad in [0, 3651, 65_536, 65_537, u64::MAX] {
        assert_eq!(fault(with("expires_in_days", bad)), pair("expires_in_days", "range"));
    }
    let whole = create(&with("expires_in_days", 30.0)).map(|request| request.expires_in_days);
    assert_eq!(whole, Ok(Some(30)));
    assert_eq!(fault(with("expires_in_days", 30.5)), pair("expires_in_days", "type"));
    assert_eq!(fault(with("expires_in_days", 3651.0)), pair("expires_in_days", "range"));
    assert_eq!(fault(with("expires_in_days", "30")), pair("expires_in_days", "type"));
}

#[test]
fn the_types_words_are_the_seeds() {
    for (word, backup_type) in [
        ("manual", BackupType::Manual),
        ("scheduled", BackupType::Scheduled),
        ("pre_upgrade", BackupType::PreUpgrade),
    ] {
        let request = create(&with("backup_type", word)).expect("accepted");
        assert_eq!(request.backup_type, backup_type);
    }
    for bad in ["", "Manual", "manual ", "pre-upgrade"] {
        assert_eq!(fault(with("backup_type", bad)), pair("backup_type", "value"));
    }
    assert_eq!(fault(with("backup_type", json!({"manual": null}))), pair("backup_type", "type"));
}

#[test]
fn no_reason_repeats_what_was_sent() {
    let body = r#"{"name": 1, "remarks": "SECRET\n", "backup_type": "SECRET", "SECRET": "SECRET"}"#;
    let refusal = create(body.as_bytes()).expect_err("refused");
    assert!(refusal.issues.iter().all(|issue| !issue.reason.contains("SECRET")));
    assert!(!refusal.to_string().contains("SECRET"));
}

fn any_request() -> impl Strategy<Value = NewBackup> {
    let types = [BackupType::Manual, BackupType::Scheduled, BackupType::PreUpgrade];
    let text = |most: usize| {
        prop::collection::vec(any::<char>().prop_filter("printable", |c| !c.is_control()), 1..=most)
            .prop_map(String::from_iter)
            .prop_filter("not blank", |text: &String| !text.trim().is_empty())
    };
    (
        text(100).prop_map(|name| name.trim().to_owned()),
        prop::option::of((1..=u64::MAX).prop_map(NodeId)),
        prop::sample::select(types.to_vec()),
        prop::option::of(text(500)),
        prop::option::of(1..=3650_u16),
    )
        .prop_map(|(name, node_id, backup_type, remarks, expires_in_days)| NewBackup {
            name,
            node_id,
            backup_type,
            remarks,
            expires_in_days,
        })
}

proptest! {
    #[test]
    fn every_good_request_is_read_as_it_was_meant(request in any_request()) {
        let body = json!({
            "name": request.name,
            "node_id": request.node_id,
            "backup_type": request.backup_type,
            "remarks": request.remarks,
            "expires_in_days": request.expires_in_days,
        });
        prop_assert_eq!(create(body.to_string().as_bytes()), Ok(request));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Err(refusal) = create(&bytes) {
            prop_assert!(!refusal.issues.is_empty());
        }
    }

    #[test]
    fn no_object_is_too_strange(
        entries in prop::collection::vec(
            (
                "name|node_id|backup_type|remarks|expires_in_days|[a-z]{0,3}",
                "null|true|-?[0-9]{1,21}|[0-9]\\.[0-9]|\"[ -!#-\\[\\]-~]{0,3}\"|\\[\\]|\\{\\}",
            ),
            0..8,
        ),
    ) {
        let entries: Vec<String> =
            entries.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        match create(format!("{{{}}}", entries.join(",")).as_bytes()) {
            Ok(request) => prop_assert!((1..=100).contains(&request.name.chars().count())),
            Err(refusal) => prop_assert!(!refusal.issues.is_empty()),
        }
    }
}

#[test]
fn a_patch_has_at_least_one_field_and_null_takes_away() {
    let days = |days| Change { expires_in_days: Some(days), ..Change::default() };
    assert_eq!(patch(br#"{"expires_in_days": null}"#), Ok(days(None)));
    assert_eq!(patch(br#"{"expires_in_days": 7}"#), Ok(days(Some(7))));
    let all = Change { name: Some("n".into()), remarks: Some(None), expires_in_days: None };
    assert_eq!(patch(br#"{"name": " n ", "remarks": null}"#), Ok(all.clone()));
    assert_eq!(patch(br#"{"name": "n", "remarks": "  "}"#), Ok(all));
    let faults = |body: &[u8]| {
        let issues = patch(body).expect_err("refused").issues.into_iter();
        issues.map(|issue| (issue.path, issue.code)).collect::<Vec<_>>()
    };
    assert_eq!(faults(b"{}"), [pair("", "required")]);
    assert_eq!(faults(br#"{"name": null}"#), [pair("name", "type")]);
    assert_eq!(faults(br#"{"status": "failed"}"#), [pair("status", "unknown")]);
    assert_eq!(faults(br#"{"expires_in_days": 0}"#), [pair("expires_in_days", "range")]);
    assert_eq!(faults(b"[]"), [pair("", "type")]);
}
