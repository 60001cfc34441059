//! Keyed rows that know which of them changed since they were last saved.
//! A row can only be changed through its table, so none is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A changed row: its key, and its JSON or that it is gone.
pub(crate) type Change = (String, Option<String>);

/// What a table's rows are kept under.
pub(crate) trait Key: Ord + Clone {
    fn to_key(&self) -> String;
    fn from_key(text: &str) -> Option<Self>;
}

impl Key for String {
    fn to_key(&self) -> String {
        self.clone()
    }
    fn from_key(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Key for u64 {
    /// Padded, so that a listing of the stored rows is in order.
    fn to_key(&self) -> String {
        format!("{self:020}")
    }
    fn from_key(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// What saving and restoring need of a table, whatever is in it.
pub(crate) trait Rows {
    fn name(&self) -> &'static str;
    fn take_dirty(&mut self, into: &mut Vec<Change>);
    /// From now on no changes are collected.
    fn untrack(&mut self);
    fn restore(&mut self, key: &str, json: &str) -> Result<(), String>;
}

#[derive(Debug)]
pub(crate) struct Table<K, V> {
    name: &'static str,
    rows: BTreeMap<K, V>,
    dirty: BTreeSet<K>,
    /// Whether changes are collected in `dirty`.
    tracked: bool,
}

impl<K: Key, V> Table<K, V> {
    pub(crate) fn new(name: &'static str) -> Self {
        Table { name, rows: BTreeMap::new(), dirty: BTreeSet::new(), tracked: true }
    }

    fn changed(&mut self, key: &K) {
        if self.tracked {
            self.dirty.insert(key.clone());
        }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.rows.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        if self.tracked {
            self.dirty.insert(key.clone());
        }
        Some(row)
    }

    /// The row under `key`, made if there is none.
    pub(crate) fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.changed(&key);
        self.rows.entry(key).or_default()
    }

    pub(crate) fn insert(&mut self, key: K, row: V) {
        self.changed(&key);
        self.rows.insert(key, row);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        self.changed(key);
        Some(row)
    }

    pub(crate) fn clear(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if self.tracked {
            self.dirty.extend(rows.into_keys());
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.rows.values()
    }

    /// The rows under these keys that there are, or all without keys given;
    /// in the order of the keys either way.
    pub(crate) fn pick<'a>(&'a self, keys: Option<&'a BTreeSet<K>>) -> impl Iterator<Item = &'a V> {
        let all = keys.is_none().then(|| self.rows.values());
        let named = keys.into_iter().flatten().filter_map(|key| self.rows.get(key));
        all.into_iter().flatten().chain(named)
    }
}

impl<K: Key, V: Serialize + DeserializeOwned> Rows for Table<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn take_dirty(&mut self, into: &mut Vec<Change>) {
        for key in std::mem::take(&mut self.dirty) {
            into.push((
                format!("{}/{}", self.name, key.to_key()),
                self.rows.get(&key).map(to_json),
            ));
        }
    }

    fn untrack(&mut self) {
        self.tracked = false;
        self.dirty.clear();
    }

    fn restore(&mut self, key: &str, json: &str) -> Result<(), String> {
        let key = K::from_key(key).ok_or_else(|| "the key does not parse".to_owned())?;
        let row = serde_json::from_str(json).map_err(|error| error.to_string())?;
        self.rows.insert(key, row);
        Ok(())
    }
}

/// The JSON of a row.
#[expect(clippy::expect_used, reason = "our row types have string keys and derived Serialize")]
pub(crate) fn to_json(row: &impl Serialize) -> String {
    serde_json::to_string(row).expect("a row serialises")
}

/// The last so many of something, oldest first.
#[derive(Debug)]
pub(crate) struct Log<V> {
    rows: Table<u64, V>,
    keep: u64,
}

impl<V> Log<V> {
    pub(crate) fn new(name: &'static str, keep: u64) -> Self {
        Log { rows: Table::new(name), keep }
    }

    pub(crate) fn push(&mut self, row: V) {
        let next = self.rows.rows.last_key_value().map_or(0, |(last, _)| last + 1);
        self.rows.insert(next, row);
        if let Some(old) = next.checked_sub(self.keep) {
            self.rows.remove(&old);
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.rows.values()
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    pub(crate) fn rows_mut(&mut self) -> &mut Table<u64, V> {
        &mut self.rows
    }
}
