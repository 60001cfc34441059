//! A JSON value that keeps what `serde_json::Value` loses: keys that stand
//! twice, integers apart from floats, the order of an object's keys.
//!
//! Rules about a body can only be as strict as what is left of it after
//! parsing: of `{"expires_in_days": 30, "expires_in_days": null}` a map keeps
//! one, and which one is nobody's decision. The text itself is read by
//! `serde_json`; nothing here knows of requests or of their fields.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::FieldIssue;

/// How deep lists and objects may be nested. No body of ours needs more than
/// three levels, and a reader that recurses must end somewhere.
pub const MAX_DEPTH: usize = 32;

/// A JSON value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer from 0 to 2^64 - 1, exact.
    Unsigned(u64),
    /// An integer from -2^63 to -1, exact.
    Negative(i64),
    /// A number with a fraction or an exponent, and an integer beyond the two above.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object: every entry as it stands, doubles too, in the text's order.
    Object(Vec<(String, Value)>),
}

/// Reads one JSON text: UTF-8, no byte order mark, nothing after the value.
///
/// # Errors
/// One issue of the whole body (an empty path): `encoding` or `syntax`. It
/// names line and column, and repeats nothing of the text.
pub fn parse(bytes: &[u8]) -> Result<Value, FieldIssue> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(whole("encoding", "The body starts with a byte order mark; leave it out."));
    }
    let text = std::str::from_utf8(bytes).map_err(|fault| {
        let at = fault.valid_up_to();
        whole("encoding", format!("The body is not UTF-8: byte {at} (counted from 0) is wrong."))
    })?;
    if text.trim_ascii().is_empty() {
        return Err(whole("syntax", "The body is empty; send a JSON object."));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    Nested(0).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)).map_err(
        |fault| whole("syntax", format!("The body is not JSON that can be read: {fault}.")),
    )
}

/// A fault of the whole body.
fn whole(code: &str, reason: impl Into<String>) -> FieldIssue {
    FieldIssue::new("", code, reason)
}

/// Reads a value that stands in this many lists and objects.
#[derive(Clone, Copy)]
struct Nested(usize);

impl Nested {
    /// One level deeper.
    fn within<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.0 < MAX_DEPTH {
            Ok(Self(self.0 + 1))
        } else {
            Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let deeper = self.within()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(deeper)? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let deeper = self.within()?;
        let mut entries = Vec::new();
        while let Some(key) = access.next_key()? {
            entries.push((key, access.next_value_seed(deeper)?));
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Result<Value, FieldIssue> {
        parse(text.as_bytes())
    }

    #[test]
    fn keys_that_stand_twice_are_kept_in_order() {
        let object = text(r#"{"b": 1, "a": 2, "b": null}"#).expect("an object");
        let expected = [("b", Value::Unsigned(1)), ("a", Value::Unsigned(2)), ("b", Value::Null)];
        assert_eq!(
            object,
            Value::Object(expected.map(|(key, value)| (key.to_owned(), value)).into())
        );
    }

    #[test]
    fn integers_are_exact_and_apart_from_floats() {
        for (written, value) in [
            ("0", Value::Unsigned(0)),
            ("9007199254740993", Value::Unsigned(9_007_199_254_740_993)),
            ("18446744073709551615", Value::Unsigned(u64::MAX)),
            ("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0)),
            ("-1", Value::Negative(-1)),
            ("-9223372036854775808", Value::Negative(i64::MIN)),
            ("30.0", Value::Float(30.0)),
            ("3e1", Value::Float(30.0)),
        ] {
            assert_eq!(text(written), Ok(value), "{written}");
        }
    }

    #[test]
    fn what_is_not_one_json_text_in_utf8_is_refused_with_its_kind() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "syntax"),
            (b" \n", "syntax"),
            (b"{", "syntax"),
            (b"{}{}", "syntax"),
            (b"{} x", "syntax"),
            (b"{'a': 1}", "syntax"),
            (b"{\"a\": 1,}", "syntax"),
            (b"{\"a\": 01}", "syntax"),
            (b"{\"a\": NaN}", "syntax"),
            (b"{\"a\": 1e999}", "syntax"),
            (b"{\"a\": \"\n\"}", "syntax"),
            (b"{\"a\": \"\\ud800\"}", "syntax"),
            (b"{/**/}", "syntax"),
            (b"\xEF\xBB\xBF{}", "encoding"),
            (b"{\"a\": \"\xFF\"}", "encoding"),
            (b"{\"a\": \"\xED\xA0\x80\"}", "encoding"),
            (b"{\0}\0", "syntax"),
        ];
        for (bytes, code) in cases {
            let issue = parse(bytes).expect_err("refused");
            assert_eq!((issue.path.as_str(), issue.code.as_str()), ("", *code), "{bytes:?}");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(text(&nested(MAX_DEPTH)).is_ok());
        assert!(text(&nested(MAX_DEPTH + 1)).expect_err("refused").reason.contains("deeper"));
        assert!(text(&"[".repeat(60_000)).is_err());
        assert!(text(&"{\"a\":".repeat(10_000)).is_err());
    }

    /// As `serde_json` would have read it.
    fn plain(value: Value) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => value.into(),
            Value::Unsigned(value) => value.into(),
            Value::Negative(value) => value.into(),
            Value::Float(value) => value.into(),
            Value::Text(value) => value.into(),
            Value::List(list) => list.into_iter().map(plain).collect(),
            Value::Object(entries) => {
                entries.into_iter().map(|(key, value)| (key, plain(value))).collect()
            }
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            // Quarters: serde_json rounds longer fractions, and no body of ours has one.
            any::<i32>().prop_map(|n| (f64::from(n) / 4.0).into()),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..8)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_json()) {
            let read = parse(value.to_string().as_bytes()).map(plain);
            prop_assert_eq!(read, Ok(value));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_text_made_of_json_is_too_strange(text in "[\\[\\]{}\",:0-9eE.+\\-ntfa\\\\u ]{0,64}") {
            let ours = parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        }
    }
}
