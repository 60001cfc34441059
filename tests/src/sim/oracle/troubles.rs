//! What goes wrong on purpose, as the oracle is told.

use jiff::Timestamp;

use super::super::spells::Trouble;
use super::Oracle;

impl Oracle {
    /// A call met a trouble that lasts.
    pub(crate) fn met(&mut self, trouble: Trouble, now: Timestamp) {
        match self.troubles.iter_mut().find(|(one, _)| *one == trouble) {
            Some((_, at)) => *at = now,
            None => self.troubles.push((trouble, now)),
        }
    }

    /// Whether a trouble met a call at or after `since`.
    pub(super) fn met_since(&self, trouble: Trouble, since: Timestamp) -> bool {
        self.troubles.iter().any(|(one, at)| *one == trouble && *at >= since)
    }

    pub(crate) fn doomed(&mut self, snapshot: &str) {
        let set = self.snapshots.get(snapshot).map(|one| one.set.clone());
        for id in set.into_iter().flatten() {
            if let Some(one) = self.snapshots.get_mut(&id) {
                one.doomed = true;
            }
        }
    }

    pub(crate) fn stalled(&mut self, until: Timestamp) {
        self.stalled_until = self.stalled_until.max(until);
    }

    pub(crate) fn deleted_by_hand(&mut self, now: Timestamp, snapshot: &str) {
        if let Some(one) = self.snapshots.get_mut(snapshot) {
            one.by_hand = Some(now);
            self.by_hand.insert(snapshot.to_owned());
        }
    }

    /// Somebody changes an instance or its volumes.
    pub(crate) fn touched(&mut self, now: Timestamp, instance: &str) {
        self.touched.insert(instance.to_owned(), now);
        self.meddled(now, instance);
    }

    /// An instance has got a volume that others may attach too.
    pub(crate) fn shared(&mut self, instance: &str) {
        self.shared.insert(instance.to_owned());
    }

    pub(crate) fn stalled_until(&self) -> Timestamp {
        self.stalled_until
    }
}
