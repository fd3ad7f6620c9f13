//! The graph of records and their parents. Missing or damaged records are not in it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Record, RecordId};

/// The records that no other names as its parent, in ascending order.
pub(super) fn heads(records: &[Record]) -> Vec<RecordId> {
    let named: BTreeSet<_> = records.iter().flat_map(|record| &record.parents).collect();
    let heads: BTreeSet<_> = records.iter().map(|record| record.id).filter(|id| !named.contains(id)).collect();
    heads.into_iter().collect()
}

/// Orders records so that parents come first, and the older first where that leaves a choice.
pub(super) fn parents_first(mut records: BTreeMap<RecordId, Record>) -> Vec<Record> {
    let mut children: BTreeMap<RecordId, Vec<RecordId>> = BTreeMap::new();
    let mut waiting_for: BTreeMap<RecordId, usize> = BTreeMap::new();
    for record in records.values() {
        let parents: BTreeSet<_> = record.parents.iter().filter(|parent| records.contains_key(parent)).collect();
        waiting_for.insert(record.id, parents.len());
        for parent in parents {
            children.entry(*parent).or_default().push(record.id);
        }
    }
    let mut ready: BTreeSet<(Timestamp, RecordId)> =
        records.values().filter(|record| waiting_for[&record.id] == 0).map(|record| (record.time, record.id)).collect();
    let mut ordered = Vec::with_capacity(records.len());
    while let Some((_, id)) = ready.pop_first() {
        for child in children.remove(&id).unwrap_or_default() {
            let left = waiting_for.get_mut(&child).expect("every record is in it");
            *left -= 1;
            if *left == 0 {
                ready.insert((records[&child].time, child));
            }
        }
        ordered.extend(records.remove(&id));
    }
    // Nothing is left: a cycle would need a record that contains its own hash.
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(time: &str, parents: &[RecordId], body: usize) -> Record {
        Record::encode(time.parse().unwrap(), "note", parents, None, &body).unwrap().0
    }

    fn ordered(records: &[Record]) -> Vec<RecordId> {
        let records = records.iter().map(|record| (record.id, record.clone())).collect();
        parents_first(records).iter().map(|record| record.id).collect()
    }

    #[test]
    fn parents_come_first_and_else_the_older() {
        let third = record("2026-01-03T00:00:00Z", &[], 0);
        let first = record("2026-01-01T00:00:00Z", &[], 1);
        let second = record("2026-01-02T00:00:00Z", &[], 2);
        let alone = [third.clone(), first.clone(), second.clone()];
        // A clock that was set back does not put a record before its parents.
        let last = record("2020-01-01T00:00:00Z", &heads(&alone), 3);
        let all = [last.clone(), third.clone(), first.clone(), second.clone()];
        assert_eq!(ordered(&all), [first.id, second.id, third.id, last.id]);
        assert_eq!(heads(&all), [last.id]);
        // Without one of its parents, and with a parent twice, a record still has its place.
        assert_eq!(ordered(&[last.clone(), third.clone(), first.clone()]), [first.id, third.id, last.id]);
        let twice = record("2020-01-01T00:00:00Z", &[first.id, first.id], 4);
        assert_eq!(ordered(&[twice.clone(), first.clone()]), [first.id, twice.id]);
    }

    proptest! {
        /// Three branches that grow, and now and then take over another's records.
        #[test]
        fn branches_merge_to_the_same_graph(
            events in prop::collection::vec((0..3usize, 0..3usize, any::<bool>(), 0..4u8), 1..30),
        ) {
            let mut branches: [Vec<Record>; 3] = Default::default();
            let mut ancestors: BTreeMap<RecordId, BTreeSet<RecordId>> = BTreeMap::new();
            for (count, (to, from, is_merge, second)) in events.into_iter().enumerate() {
                let there: BTreeSet<_> = branches[to].iter().map(|record| record.id).collect();
                if is_merge {
                    let new: Vec<_> = branches[from].iter().filter(|record| !there.contains(&record.id)).collect();
                    let new: Vec<_> = new.into_iter().cloned().collect();
                    branches[to].extend(new);
                } else {
                    let time = format!("2026-01-01T00:00:0{second}Z");
                    let new = record(&time, &heads(&branches[to]), count);
                    ancestors.insert(new.id, there);
                    branches[to].push(new);
                }
            }
            let all = branches.concat();
            let order = ordered(&all);
            prop_assert_eq!(&order, &ordered(&all.iter().rev().cloned().collect::<Vec<_>>()));
            prop_assert_eq!(order.len(), ancestors.len());
            for (place, id) in order.iter().enumerate() {
                prop_assert!(ancestors[id].is_subset(&order[..place].iter().copied().collect()));
            }
            let older: BTreeSet<_> = ancestors.values().flatten().collect();
            let youngest: Vec<_> = ancestors.keys().copied().filter(|id| !older.contains(id)).collect();
            prop_assert_eq!(heads(&all), youngest);
        }
    }
}
