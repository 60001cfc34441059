//! What came of the requests, as figures.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::{Result, fail};

use super::Kind;

/// Of a hundred requests so many at least are creates that were answered 204.
const CREATED: usize = 20;

/// What came of the requests.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Milliseconds, by kind.
    pub(crate) times: BTreeMap<Kind, Vec<f64>>,
    /// How often each kind was answered with each status.
    pub(crate) statuses: BTreeMap<(Kind, u16), usize>,
    pub(crate) wrong: Vec<String>,
}

impl Seen {
    fn count(&self, wanted: impl Fn(Kind, u16) -> bool) -> usize {
        let some = self.statuses.iter().filter(|((kind, status), _)| wanted(*kind, *status));
        some.map(|(_, count)| count).sum()
    }

    pub(crate) fn show(&self, took: Duration) {
        let asked = |kind| !matches!(kind, Kind::Empty | Kind::NoRoute);
        let all = self.count(|kind, _| asked(kind));
        println!("{all} requests in {:.1} s", took.as_secs_f64());
        let empty = sorted(self.times.get(&Kind::Empty));
        let of = |times: &[f64], share| at(times, share);
        println!(
            "p50 and p99 to those of an empty handler ({:.2} ms, {:.2} ms):",
            of(&empty, 0.5),
            of(&empty, 0.99)
        );
        let mut lines: Vec<(String, Vec<f64>)> = self
            .times
            .iter()
            .map(|(kind, times)| (format!("{kind:?}"), sorted(Some(times))))
            .collect();
        let every: Vec<f64> = self
            .times
            .iter()
            .filter(|(kind, _)| asked(**kind))
            .flat_map(|(_, times)| times.iter().copied())
            .collect();
        lines.push(("all of the API".to_owned(), sorted(Some(&every))));
        for (name, times) in lines {
            let (middle, late) = (of(&times, 0.5), of(&times, 0.99));
            println!(
                "  {name:<15}{:>6} {:>8.1} {:>8.1}   ({middle:.2} ms, {late:.2} ms)",
                times.len(),
                middle / of(&empty, 0.5),
                late / of(&empty, 0.99),
            );
        }
        for ((kind, status), count) in &self.statuses {
            println!("  {kind:?} {status}: {count}");
        }
        for wrong in self.wrong.iter().take(20) {
            println!("WRONG {wrong}");
        }
    }

    pub(crate) fn demand(&self) -> Result<()> {
        if !self.wrong.is_empty() {
            return fail(format!("{} answers were wrong", self.wrong.len()));
        }
        let all = self.count(|kind, _| !matches!(kind, Kind::Empty | Kind::NoRoute));
        let made = self.count(|kind, status| kind == Kind::Create && status == 204);
        if made * 100 < all * CREATED {
            return fail(format!("of {all} requests only {made} were creates answered 204"));
        }
        Ok(())
    }
}

fn sorted(times: Option<&Vec<f64>>) -> Vec<f64> {
    let mut times = times.cloned().unwrap_or_default();
    times.sort_by(f64::total_cmp);
    times
}

/// What so large a share of them is not above.
fn at(times: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place among thousands"
    )]
    let place = (times.len() as f64 * share) as usize;
    times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
