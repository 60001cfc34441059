//! How many requests a key may make in a minute.
//!
//! The count of a key's minute is one row, which every instance of the function adds to. An
//! instance takes more than one at a time from it, so that a request costs a fraction of a
//! write. It takes one at first, for a burst may wake a hundred instances; then two, or a
//! quarter of what it has used in that minute: what others cannot have because this one took
//! it and does not use it is one request, or a quarter of its own. What is given of what was
//! counted is never above the limit; what passes while the row cannot be had is not counted.
//!
//! A minute is one of the clock: who is refused may come again when the next one begins.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backups_aws::table::keys::Key;
use backups_core::time::{Seconds, Time};

use crate::Api;
use crate::problem::Problem;

/// Seconds of a minute.
const MINUTE: i64 = 60;

/// How long the count is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many requests pass until the count is asked for again that could not be had.
const UNCOUNTED: u64 = 10;

/// How many keys are counted in this instance.
const MOST_KEPT: usize = 1000;

/// What this instance knows of the minutes of its keys.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// By the key's hash.
    kept: Mutex<BTreeMap<String, Window>>,
}

/// A key's minute, as this instance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    minute: Time,
    /// What was taken from the row and is not used.
    left: u64,
    /// The requests of this instance.
    used: u64,
    /// What the row had left at the last look.
    free: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Pass,
    Refuse,
    /// Ask the row for so many.
    Ask(u64),
}

impl Window {
    fn new(minute: Time, limit: u64) -> Self {
        Self { minute, left: 0, used: 0, free: limit }
    }

    fn step(&mut self) -> Step {
        if self.left > 0 {
            self.left -= 1;
            self.used += 1;
            Step::Pass
        } else if self.free == 0 {
            Step::Refuse
        } else {
            let more = if self.used == 0 { 1 } else { (self.used / 4).max(2) };
            Step::Ask(more.min((self.free / 4).max(1)))
        }
    }

    /// The row does not answer.
    fn uncounted(&mut self) -> Step {
        self.left += UNCOUNTED;
        Step::Pass
    }

    /// The row's answer: `counted` in all, with the `asked` ones.
    fn taken(&mut self, asked: u64, counted: u64, limit: u64) -> Step {
        self.free = limit.saturating_sub(counted);
        self.left += asked.min((limit + asked).saturating_sub(counted));
        match self.step() {
            Step::Pass => Step::Pass,
            Step::Refuse | Step::Ask(_) => Step::Refuse,
        }
    }
}

/// Counts a request of the key, or refuses it.
///
/// If the count cannot be had the request passes: whether the table answers shows at once,
/// and nobody is to be kept from their backups by a count.
pub(crate) async fn counted(api: &Api, key: &Key) -> Result<(), Problem> {
    let (now, limit) = (api.clock.now(), api.settings.requests_per_minute);
    let minute = Time::from_unix(now.unix() - now.unix().rem_euclid(MINUTE));
    let first = api.rates.with(&key.hash, minute, limit, Window::step);
    let asked = match first {
        Step::Pass => return Ok(()),
        Step::Refuse => return Err(refused(minute, now)),
        Step::Ask(asked) => asked,
    };
    let count = api.table.count_requests(key, minute, asked);
    let counted = match tokio::time::timeout(PATIENCE, count).await {
        Ok(counted) => counted.map_err(|error| error.to_string()),
        Err(late) => Err(late.to_string()),
    };
    let counted = match counted {
        Ok(counted) => counted,
        Err(error) => {
            tracing::warn!(error, "requests are not counted");
            api.rates.with(&key.hash, minute, limit, Window::uncounted);
            return Ok(());
        }
    };
    let then =
        api.rates.with(&key.hash, minute, limit, |window| window.taken(asked, counted, limit));
    if then == Step::Pass { Ok(()) } else { Err(refused(minute, now)) }
}

/// The refusal, until the minute is over.
fn refused(minute: Time, now: Time) -> Problem {
    let left = (minute + Seconds(MINUTE)) - now;
    Problem::rate_limited(left.0.clamp(1, MINUTE).unsigned_abs())
}

impl Rates {
    /// Asks or changes what is known of a key's minute.
    fn with(
        &self,
        hash: &str,
        minute: Time,
        limit: u64,
        change: impl FnOnce(&mut Window) -> Step,
    ) -> Step {
        let mut kept = self.lock();
        if kept.len() >= MOST_KEPT && !kept.contains_key(hash) {
            kept.retain(|_, window| window.minute >= minute);
        }
        if kept.len() >= MOST_KEPT && !kept.contains_key(hash) {
            // What it has taken is lost to its key.
            let least = kept.iter().min_by_key(|(_, window)| window.left);
            if let Some(hash) = least.map(|(hash, _)| hash.clone()) {
                kept.remove(&hash);
            }
        }
        let window = kept.entry(hash.to_owned()).or_insert_with(|| Window::new(minute, limit));
        // An answer may come when its minute is over: it must not cost the new one what was
        // taken for that.
        if window.minute > minute {
            return change(&mut Window::new(minute, limit));
        }
        if window.minute < minute {
            *window = Window::new(minute, limit);
        }
        change(window)
    }

    /// The map is whole after any panic: each change of it is one call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Window>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 600;

    /// A minute of several instances: each request goes to one of them, in this order.
    /// Gives how many passed and how many writes that took.
    fn minute(requests: impl Iterator<Item = usize>) -> (u64, u64) {
        let mut instances = [Window::new(Time::from_unix(0), LIMIT); 20];
        let (mut row, mut passed, mut writes) = (0, 0, 0);
        for instance in requests {
            let window = &mut instances[instance];
            let step = match window.step() {
                Step::Ask(asked) => {
                    row += asked;
                    writes += 1;
                    window.taken(asked, row, LIMIT)
                }
                step => step,
            };
            passed += u64::from(step == Step::Pass);
        }
        assert!(passed <= LIMIT, "{passed}");
        (passed, writes)
    }

    #[test]
    fn one_instance_gives_the_limit_to_the_request_for_a_fraction_of_a_write() {
        let (passed, writes) = minute(std::iter::repeat_n(0, 2000));
        assert_eq!(passed, LIMIT);
        assert!(writes <= 42, "{writes}");
        // Once it is over, nothing more is asked.
        assert_eq!(minute(std::iter::repeat_n(0, 3000)).1, writes);
        assert_eq!(minute(std::iter::repeat_n(0, 1)), (1, 1));
    }

    #[test]
    fn of_many_instances_no_more_pass_and_few_less() {
        let turns = (0..2000).map(|request| request % 20);
        let (passed, writes) = minute(turns);
        assert!(passed >= LIMIT * 9 / 10, "{passed}");
        assert!(writes <= LIMIT / 2, "{writes}");
        // Nineteen that came once hold back nothing from the one that goes on.
        let turns = (0..20).chain(std::iter::repeat_n(0, 2000));
        assert_eq!(minute(turns).0, LIMIT);
        // Two bursts over all, and then one alone: each of the others holds one back at most.
        let turns = (0..40).map(|request| request % 20).chain(std::iter::repeat_n(0, 2000));
        assert!(minute(turns).0 >= LIMIT - 19);
    }

    #[test]
    fn what_two_asked_for_at_once_both_get() {
        let mut window = Window::new(Time::from_unix(0), LIMIT);
        assert_eq!((window.step(), window.step()), (Step::Ask(1), Step::Ask(1)));
        assert_eq!(window.taken(1, 600, LIMIT), Step::Pass);
        assert_eq!(window.taken(1, 601, LIMIT), Step::Refuse);
        assert_eq!(window.step(), Step::Refuse);
        // Half of a block.
        let mut window = Window { used: 40, ..Window::new(Time::from_unix(0), LIMIT) };
        assert_eq!(window.taken(11, 605, LIMIT), Step::Pass);
        assert_eq!(window.left, 5);
    }

    #[test]
    fn memory_is_bounded_and_another_minute_begins_anew() {
        let rates = Rates::default();
        let at = |second| Time::from_unix(second);
        for number in 0..=MOST_KEPT {
            rates.with(&number.to_string(), at(0), LIMIT, Window::step);
        }
        assert_eq!(rates.lock().len(), MOST_KEPT);
        rates.with("late", at(60), LIMIT, |window| window.taken(1, LIMIT, LIMIT));
        assert_eq!(rates.lock().len(), 1, "what is over goes first");
        assert_eq!(rates.with("late", at(60), LIMIT, Window::step), Step::Refuse);
        assert_eq!(rates.with("late", at(120), LIMIT, Window::step), Step::Ask(1));
    }

    #[test]
    fn a_late_answer_for_a_key_that_is_forgotten_empties_nobody_else_s_minute() {
        let (rates, now) = (Rates::default(), Time::from_unix(60));
        for number in 0..MOST_KEPT {
            rates.with(&number.to_string(), now, LIMIT, |window| window.taken(10, 10, LIMIT));
        }
        rates.with("late", Time::from_unix(0), LIMIT, |window| window.taken(10, 10, LIMIT));
        // One at most made room.
        let kept = rates.lock().values().filter(|window| window.minute == now).count();
        assert_eq!(kept, MOST_KEPT - 1);
    }

    #[test]
    fn an_answer_that_comes_after_its_minute_costs_the_next_one_nothing() {
        let (rates, now) = (Rates::default(), Time::from_unix(60));
        let before = Time::from_unix(0);
        assert_eq!(rates.with("k", now, LIMIT, |window| window.taken(10, 10, LIMIT)), Step::Pass);
        assert_eq!(
            rates.with("k", before, LIMIT, |window| window.taken(1, 600, LIMIT)),
            Step::Pass
        );
        assert_eq!(
            rates.with("k", before, LIMIT, |window| window.taken(1, 601, LIMIT)),
            Step::Refuse
        );
        // Nine of the ten are left.
        for _ in 0..9 {
            assert_eq!(rates.with("k", now, LIMIT, Window::step), Step::Pass);
        }
        assert!(matches!(rates.with("k", now, LIMIT, Window::step), Step::Ask(_)));
    }
}
