//! Inputs that are near to good ones: bytes put together anyhow seldom get past the grammar of
//! JSON, and test little else.
//!
//! The fuzzer's bytes choose: an input that begins as no text does, or as no JSON, is made here,
//! of a good one and of what the next eight bytes change in it; any other is taken as it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Numbers at whose edges something may break.
const NUMBERS: [u64; 10] = [0, 1, 2, 30, 3650, 3651, 65_536, 1 << 53, (1 << 53) + 1, u64::MAX];

/// Texts that mean something somewhere.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "n",
    "manual",
    "scheduled",
    "pre_upgrade",
    "0 3 * * *",
    "*/5 * * * *",
    "15 0,12 1 jan-mar/2 *",
    "0 0 29 2 *",
    "0 0 * * 7",
    "UTC",
    "Europe/Warsaw",
    "Etc/GMT+12",
    "2026-11-23T00:00:00Z",
    "192.0.2.0/24",
    "::/0",
    "deployment:read",
    "deployment:manage",
    "aws",
    "us-west-1",
    "arn:aws:ec2::us-west-1:snapshot/snap-0a",
    "snap-0a",
    "é🙂\u{202f}",
];

/// What separates the parts of words.
const MARKS: [char; 7] = [' ', ',', '-', '/', '*', ':', '.'];

/// Whether a first byte is a choice: no text begins with it, by UTF-8 or by JSON.
const fn is_choice(first: u8) -> bool {
    matches!(first, 0..=8 | 0x80..=0xBF)
}

/// The input that the bytes choose.
pub fn json(data: &[u8], good: &[&str], fields: &[&str]) -> Vec<u8> {
    // A mark of the byte order is none of JSON's, but somebody sends it.
    let as_json = |first: u8| b"{[\"-0n \t\n\xEF".contains(&first);
    let Some((first, rest)) = data.split_first().filter(|(first, _)| !as_json(**first)) else {
        return data.to_vec();
    };
    let Some(seed) = rest.first_chunk::<8>() else { return data.to_vec() };
    let mut rng = Rng::with_seed(u64::from_le_bytes(*seed));
    // The first byte says how much is changed; which input it is, the seed.
    let mut value = serde_json::from_str(good[rng.usize(..good.len())]).unwrap_or(Value::Null);
    for _ in 0..=first % 3 {
        change(&mut value, &mut rng, fields, 0);
    }
    value.to_string().into_bytes()
}

/// The word that the bytes choose.
pub fn word(data: &[u8]) -> Vec<u8> {
    let Some((first, rest)) = data.split_first() else { return Vec::new() };
    if !is_choice(*first) {
        return data.to_vec();
    }
    let number = rest.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let Some(number) = number else { return data.to_vec() };
    let mut rng = Rng::with_seed(number);
    let text = match first % 9 {
        0 => number.to_string(),
        1 => {
            let field = |rng: &mut Rng, least: u8, most: u8| match rng.u8(..5) {
                0 => "*".to_owned(),
                1 => format!("*/{}", rng.u8(1..most)),
                2 => format!("{}-{}", rng.u8(least..most / 2), rng.u8(most / 2..=most)),
                3 => format!("{},{}", rng.u8(least..=most), rng.u8(least..=most)),
                _ => rng.u8(least..=most).to_string(),
            };
            let fields = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
            fields.map(|(least, most)| field(&mut rng, least, most)).join(" ")
        }
        2 => {
            let length = rng.u32(..=33);
            let whole = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from(rng.u32(..) & whole))
        }
        3 => {
            let length = rng.u32(..=129);
            let whole = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            format!("{}/{length}", Ipv6Addr::from(rng.u128(..) & whole))
        }
        4 => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            rng.u32(1900..=2100),
            rng.u8(..=13),
            rng.u8(..=32),
            rng.u8(..=24),
            rng.u8(..=60),
            rng.u8(..=60)
        ),
        5 => format!("arn:aws:ec2::us-west-1:snapshot/snap-{:017x}", rng.u64(..)),
        6 => NUMBERS[rng.usize(..NUMBERS.len())].to_string(),
        7 => TEXTS[rng.usize(..TEXTS.len())].to_owned(),
        _ => edited(TEXTS[rng.usize(..TEXTS.len())], &mut rng),
    };
    text.into_bytes()
}

/// Changes one thing somewhere in the value.
fn change(value: &mut Value, rng: &mut Rng, fields: &[&str], depth: u8) {
    let deeper = depth < 4 && rng.u8(..4) > 0;
    match value {
        Value::Object(map) if !map.is_empty() && deeper => {
            let place = rng.usize(..map.len());
            if let Some((_, inner)) = map.iter_mut().nth(place) {
                change(inner, rng, fields, depth + 1);
            }
        }
        Value::Object(map) => match rng.u8(..4) {
            0 if !map.is_empty() => {
                let place = rng.usize(..map.len());
                let gone = map.keys().nth(place).cloned().unwrap_or_default();
                map.remove(&gone);
            }
            _ => {
                let field = fields[rng.usize(..fields.len())];
                // What is there keeps its kind mostly: another kind is soon refused.
                let kept = map.get(field).filter(|_| rng.u8(..4) > 0);
                let new = match kept.cloned() {
                    Some(kept) => alike(&kept, rng),
                    None => any(rng),
                };
                map.insert(field.to_owned(), new);
            }
        },
        Value::Array(items) if !items.is_empty() && deeper => {
            let place = rng.usize(..items.len());
            change(&mut items[place], rng, fields, depth + 1);
        }
        Value::Array(items) => {
            let one = items.first().cloned().unwrap_or_else(|| any(rng));
            if rng.bool() { items.push(one) } else { items.truncate(1) }
        }
        other if rng.u8(..4) > 0 => *other = alike(other, rng),
        other => *other = any(rng),
    }
}

/// Another value of the same kind.
fn alike(value: &Value, rng: &mut Rng) -> Value {
    match value {
        Value::Number(_) => NUMBERS[rng.usize(..NUMBERS.len())].into(),
        Value::String(text) if rng.bool() => edited(text, rng).into(),
        Value::String(_) => TEXTS[rng.usize(..TEXTS.len())].into(),
        Value::Bool(flag) => (!flag).into(),
        other => other.clone(),
    }
}

/// Any value, mostly a plain one.
fn any(rng: &mut Rng) -> Value {
    match rng.u8(..10) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2..=3 => NUMBERS[rng.usize(..NUMBERS.len())].into(),
        4 => (f64::from(rng.i32(-4..7400)) / 2.0).into(),
        5 => json!([NUMBERS[rng.usize(..NUMBERS.len())]]),
        6 => Value::Object(Map::new()),
        _ => TEXTS[rng.usize(..TEXTS.len())].into(),
    }
}

/// The text with a character more, less, or another.
fn edited(text: &str, rng: &mut Rng) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let place = rng.usize(..=characters.len());
    let new = match rng.u8(..4) {
        0 => char::from(rng.u8(b'0'..=b'9')),
        1 => char::from(rng.u8(b' '..=b'~')),
        2 => rng.char('\0'..='\u{ffff}'),
        _ => MARKS[rng.usize(..MARKS.len())],
    };
    match rng.u8(..3) {
        0 => characters.insert(place, new),
        1 if place < characters.len() => characters[place] = new,
        _ => characters.truncate(place),
    }
    characters.into_iter().collect()
}
