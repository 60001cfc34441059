//! From a failing seed to the least of it that still fails: fewer happenings,
//! fewer faults, the same check.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{Outcome, Plan, run};
use crate::Result;

/// What can be left out of a plan.
#[derive(Debug, Clone, Copy)]
enum Part {
    Happenings,
    Faults,
}

/// The smallest plan that it can find within so many runs, with its outcome.
///
/// # Errors
/// The simulation itself cannot go on.
pub fn shrink(plan: &Plan, most: u32) -> Result<(Plan, Outcome)> {
    let outcome = run(plan)?;
    let Some(violation) = outcome.violation.clone() else { return Ok((plan.clone(), outcome)) };
    let mut best = (plan.clone(), outcome);
    let mut left = most;
    for part in [Part::Happenings, Part::Faults, Part::Happenings] {
        let count = match part {
            Part::Happenings => best.1.happenings,
            Part::Faults => best.1.faults,
        };
        let mut size = count.div_ceil(2).max(1);
        loop {
            let mut begin = 0;
            while begin < count && left > 0 {
                let mut plan = best.0.clone();
                let end = count.min(begin + size);
                let set = match part {
                    Part::Happenings => &mut plan.without,
                    Part::Faults => &mut plan.unstruck,
                };
                let before = set.len();
                set.extend(begin..end);
                begin = end;
                if set.len() == before {
                    continue;
                }
                left -= 1;
                let outcome = run(&plan)?;
                if outcome.violation.as_ref().is_some_and(|one| one.check == violation.check) {
                    best = (plan, outcome);
                }
            }
            if size == 1 || left == 0 {
                break;
            }
            size = size.div_ceil(4).min(size - 1);
        }
    }
    Ok(best)
}

/// Numbers as the command line takes them: `1,3-7`.
pub fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let part = |(first, last): (u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

/// Numbers of happenings or faults, as [`ranges`] writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(pub BTreeSet<u32>);

/// No seed has so many of anything.
const MOST: u32 = 100_000;

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut numbers = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u32>(), last.parse::<u32>()) {
                (Ok(first), Ok(last)) if first <= last && last < MOST => {
                    numbers.extend(first..=last);
                }
                _ => return Err(format!("`{part}` is no number, and no range like 3-7")),
            }
        }
        Ok(Self(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_and_read_alike() {
        let numbers: BTreeSet<u32> = [1, 3, 4, 5, 9].into();
        assert_eq!(ranges(&numbers), "1,3-5,9");
        assert_eq!("1,3-5,9".parse(), Ok(Numbers(numbers)));
        assert_eq!("".parse(), Ok(Numbers::default()));
        for wrong in ["a", "3-", "7-3", "0-4294967295"] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong}");
        }
    }
}
