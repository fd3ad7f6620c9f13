//! The registry of attempts: every attempt counts, and no `git clean`, new cycle or lost record removes it.
//!
//! An attempt is registered before its first pair, in the repository's common git folder and in the tree of
//! `refs/alpha-loop/attempts`, both shared by linked worktrees. Attempts of other clones are read where they were
//! fetched as `refs/alpha-loop/remotes/<remote>/attempts`; `git push <remote> refs/alpha-loop/attempts` shares ours.
//! Records of the ledger count too. The registry is the union of all these, with each attempt once, by its key.
//!
//! Attempts are counted by target, over all baselines: a branch that was amended, rebased or left keeps its count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use jiff::Timestamp;
use pairbench::{
    files,
    verdict::{Estimate, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError,
    attempt::{Attempt, Confirmation, confirmation::went_on},
    git::{Repository, SharedFiles},
    records::evidence,
    store::session::Session,
};

/// The shared files' reference, below `refs/alpha-loop/`.
pub const NAME: &str = "attempts";
const SCHEMA: &str = "alpha.loop.attempt/1";

/// The registry's entry of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this object.
    pub schema: String,
    /// The attempt's key.
    pub key: String,
    /// The target of `loop.toml`, if not its own workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The commit that it was measured against.
    pub baseline: String,
    /// Measured trees of baseline and candidate.
    pub trees: [String; 2],
    /// Hashes of both programs.
    pub binaries: [String; 2],
    /// Fingerprint of the machine.
    pub machine: String,
    /// Hash of the workload's command.
    pub command: String,
    /// When it was registered, before its first pair.
    pub began: Timestamp,
    /// Chances that it had to be called faster: one more if it continued after its plan, and one more for each time
    /// that its state was lost and it started over.
    pub chances: usize,
    /// How its comparison ended; none while it is open.
    pub verdict: Option<Verdict>,
    /// The state of its confirmation, if it has one.
    pub confirmation: Option<Asked>,
}

/// A confirmation that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The level that it is judged at.
    pub level: f64,
    /// Pairs so far.
    pub pairs: usize,
    /// Exact, one-sided; none while pairs are missing.
    pub p: Option<f64>,
    /// Its estimate, in per cent.
    pub speedup_pct: Option<f64>,
    /// Whether it confirmed the gain; none while it is open.
    pub accepted: Option<bool>,
}

impl Entry {
    /// The entry of an attempt as it stands.
    pub fn of(attempt: &Attempt, began: Timestamp) -> Entry {
        let revisions = [&attempt.baseline, &attempt.candidate];
        // White space does not make another command.
        let words: Vec<&str> = attempt.manifest.command.split_whitespace().collect();
        let hash = blake3::hash(words.join(" ").as_bytes()).to_hex();
        Entry {
            schema: SCHEMA.to_owned(),
            key: attempt.key.clone(),
            target: attempt.manifest.target.clone(),
            baseline: attempt.baseline.commit.clone(),
            trees: revisions.map(|revision| revision.measured_tree.clone()),
            binaries: revisions.map(|revision| revision.binary.clone()),
            machine: attempt.machine.fingerprint(),
            command: hash[..32].to_owned(),
            began,
            chances: 1 + attempt.bookkeeping.restarts + usize::from(went_on(attempt)),
            verdict: attempt.verdict,
            confirmation: attempt.confirmation.as_ref().map(|found| Asked {
                level: found.level,
                pairs: found.pairs.len(),
                p: found.p,
                speedup_pct: found.estimate.map(|estimate| estimate.speedup_pct),
                accepted: found.accepted,
            }),
        }
    }

    /// Merges two entries of one attempt; the order does not matter.
    fn with(self, other: Entry) -> Entry {
        let (first, second) = if rank(&self) >= rank(&other) { (self, other) } else { (other, self) };
        Entry { began: first.began.min(second.began), chances: first.chances.max(second.chances), ..first }
    }
}

/// Orders entries of one attempt: the later state is greater, and a failed confirmation is greater than any other.
fn rank(entry: &Entry) -> (u8, usize, bool, String) {
    let asked = entry.confirmation.map_or(0, |asked| match asked.accepted {
        None => 1,
        Some(true) => 2,
        Some(false) => 3,
    });
    let pairs = entry.confirmation.map_or(0, |asked| asked.pairs);
    // The text makes the order total: entries of equal rank only differ in fields that are merged.
    let text = Entry { began: Timestamp::UNIX_EPOCH, chances: 0, ..entry.clone() };
    (asked, pairs, entry.verdict.is_some(), serde_json::to_string(&text).unwrap_or_default())
}

/// All attempts that are known here.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
    /// Files of attempts that cannot be read: each counts as one.
    unreadable: BTreeSet<String>,
}

impl Registry {
    /// Reads all attempts that are known here.
    ///
    /// # Errors
    /// Where git's folder cannot be read.
    pub fn read(session: &Session) -> Result<Registry, LoopError> {
        let mut known = Registry::default();
        known.include(&in_folder(session)?);
        for files in session.repository.shared_files(NAME)? {
            known.include(&files);
        }
        for record in session.ledger.records().iter().filter(|record| record.kind == evidence::KIND) {
            if let Ok(body) = record.body::<evidence::AttemptRecord>()
                && !body.attempt.is_identical
            {
                known.insert(Entry::of(&body.attempt, record.time));
            }
        }
        Ok(known)
    }

    fn insert(&mut self, entry: Entry) {
        let key = entry.key.clone();
        let merged = match self.entries.remove(&key) {
            Some(known) => known.with(entry),
            None => entry,
        };
        self.unreadable.remove(&file_name(&key));
        self.entries.insert(key, merged);
    }

    fn include(&mut self, files: &SharedFiles) {
        for (name, bytes) in files {
            match serde_json::from_slice::<Entry>(bytes) {
                Ok(entry) if file_name(&entry.key) == *name => self.insert(entry),
                _ if self.entries.contains_key(name.trim_end_matches(".json")) => {}
                _ => drop(self.unreadable.insert(name.clone())),
            }
        }
    }

    /// The attempt of this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Chances that the known attempts on the session's target had; at least the highest count in a record of the
    /// ledger.
    pub fn attempts(&self, session: &Session) -> usize {
        self.present(session).max(recorded(session))
    }

    fn present(&self, session: &Session) -> usize {
        let of_target = self.entries.values().filter(|entry| entry.target == session.config.target);
        of_target.map(|entry| entry.chances).sum::<usize>() + self.unreadable.len()
    }

    /// A warning, where a record of the ledger counts more attempts than are known here.
    pub fn missing(&self, session: &Session) -> Option<String> {
        let (present, recorded) = (self.present(session), recorded(session));
        (present < recorded).then(|| {
            format!(
                "a record knows of {recorded} attempts on this target, {present} are known here: \
                 `refs/alpha-loop/attempts` was not fetched, or was removed; levels count {recorded}"
            )
        })
    }

    /// Another attempt at the same two programs on this machine, or this one with its state lost, whose confirmation
    /// was begun. One under another key counts even if it was confirmed: a later gate refused it, and it is not tried
    /// again.
    pub fn asked_before(&self, attempt: &Attempt) -> Option<(&Entry, Asked)> {
        let own = Entry::of(attempt, Timestamp::UNIX_EPOCH);
        let is_same = |entry: &&Entry| {
            entry.binaries == own.binaries && entry.machine == own.machine && entry.command == own.command
        };
        let asked = self.entries.values().filter(is_same).filter_map(|entry| Some((entry, entry.confirmation?)));
        let counts = |(entry, asked): &(&Entry, Asked)| asked.accepted != Some(true) || entry.key != own.key;
        // A failed one is reported before an open one.
        asked.filter(counts).min_by_key(|(_, asked)| (asked.accepted != Some(false), asked.accepted.is_none()))
    }
}

impl Asked {
    /// The failed confirmation, for an attempt at the same two programs.
    pub fn as_failed(&self, key: &str) -> Confirmation {
        Confirmation {
            planned: self.pairs,
            pairs: Vec::new(),
            voids: Vec::new(),
            level: self.level,
            attempts: 0,
            over_layouts: false,
            p: self.p,
            estimate: self.speedup_pct.map(|speedup_pct| Estimate {
                speedup_pct,
                ci_low_pct: None,
                ci_high_pct: None,
                pairs: self.pairs,
            }),
            accepted: Some(false),
            refusal: Some(format!("a confirmation of the same two programs failed before (attempt {key})")),
        }
    }
}

/// The highest count of attempts in a record on this target.
fn recorded(session: &Session) -> usize {
    let attempts = evidence::attempts(session);
    let of_target = attempts.iter().filter(|(_, record)| record.attempt.manifest.target == session.config.target);
    of_target.filter_map(|(_, record)| record.attempt.bookkeeping.attempts_known).max().unwrap_or(0)
}

/// Registers the state of an attempt in the common git folder and the shared reference, and notes the count of attempts
/// in the attempt. A comparison of a program with itself does not count.
pub fn note(session: &Session, attempt: &mut Attempt) -> Result<(), LoopError> {
    if attempt.is_identical {
        return Ok(());
    }
    let entry = Entry::of(attempt, Timestamp::now());
    let mut own = Registry::default();
    own.include(&in_folder(session)?);
    own.insert(entry.clone());
    if let Some(merged) = own.get(&entry.key) {
        files::write(&folder(session).join(file_name(&entry.key)), &encoded(merged)?)?;
    }
    session.repository.share_files(NAME, &|all| {
        let mut known = own.clone();
        let mut files = SharedFiles::new();
        for theirs in &all {
            known.include(theirs);
            // A file that cannot be read is kept as it is.
            files.extend(theirs.clone());
        }
        for (key, entry) in &known.entries {
            files.insert(file_name(key), encoded(entry)?);
        }
        Ok(files)
    })?;
    attempt.bookkeeping.attempts_known = Some(Registry::read(session)?.attempts(session));
    Ok(())
}

/// For each remote whose attempts are not fetched yet, how to share attempts with its clones.
pub fn how_to_share(repository: &Repository) -> Result<Vec<String>, LoopError> {
    let remotes = repository.remotes_without_shared(NAME)?;
    let text = |(remote, refspec)| {
        format!(
            "attempts are counted in this clone alone; `git config --add remote.{remote}.fetch '{refspec}'` has \
             `git fetch` bring those of others, `git push {remote} refs/alpha-loop/{NAME}` gives ours"
        )
    };
    Ok(remotes.into_iter().map(text).collect())
}

fn encoded(entry: &Entry) -> Result<Vec<u8>, LoopError> {
    let json = serde_json::to_string(entry)
        .map_err(|error| LoopError::failed(format!("an attempt cannot be written down: {error}")))?;
    Ok(format!("{json}\n").into_bytes())
}

fn file_name(key: &str) -> String {
    format!("{key}.json")
}

fn folder(session: &Session) -> std::path::PathBuf {
    session.state.folder().join("counted")
}

fn in_folder(session: &Session) -> Result<SharedFiles, LoopError> {
    let folder = folder(session);
    let failed = |error: io::Error| LoopError::io("read", &folder, &error);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SharedFiles::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = SharedFiles::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, fs::read(&path).map_err(failed)?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str) -> Entry {
        Entry {
            schema: SCHEMA.to_owned(),
            key: key.to_owned(),
            target: None,
            baseline: "c".into(),
            trees: ["a".into(), "b".into()],
            binaries: ["x".into(), "y".into()],
            machine: "m".into(),
            command: "h".into(),
            began: Timestamp::from_second(1_000).unwrap(),
            chances: 1,
            verdict: None,
            confirmation: None,
        }
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let verdicts = prop_oneof![Just(None), Just(Some(Verdict::Faster)), Just(Some(Verdict::Slower))];
        let accepted = prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
        let asked = prop::option::of((accepted, 0_usize..20).prop_map(|(accepted, pairs)| Asked {
            level: 0.025,
            pairs,
            p: accepted.map(|_| 0.5),
            speedup_pct: None,
            accepted,
        }));
        (0..3, 0_i64..2_000, 1_usize..5, verdicts, asked).prop_map(|(key, second, chances, verdict, confirmation)| {
            Entry {
                began: Timestamp::from_second(second).unwrap(),
                chances,
                verdict,
                confirmation,
                ..entry(&format!("k{key}"))
            }
        })
    }

    fn union(entries: impl IntoIterator<Item = Entry>) -> BTreeMap<String, Entry> {
        let mut known = Registry::default();
        entries.into_iter().for_each(|entry| known.insert(entry));
        known.entries
    }

    proptest! {
        /// The union of entries does not depend on their order or on repetitions.
        #[test]
        fn what_is_known_does_not_depend_on_the_order(
            entries in prop::collection::vec(any_entry(), 0..12),
            rotated in 0_usize..12,
        ) {
            let wanted = union(entries.clone());
            let mut other = entries.clone();
            other.rotate_left(rotated.min(entries.len()));
            other.reverse();
            other.extend(entries.clone());
            prop_assert_eq!(&union(other), &wanted);
            for (key, found) in &wanted {
                let of_key = || entries.iter().filter(|entry| entry.key == *key);
                prop_assert_eq!(Some(found.chances), of_key().map(|entry| entry.chances).max());
                prop_assert_eq!(Some(found.began), of_key().map(|entry| entry.began).min());
                let failed = of_key().any(|entry| entry.confirmation.is_some_and(|asked| asked.accepted == Some(false)));
                prop_assert_eq!(found.confirmation.is_some_and(|asked| asked.accepted == Some(false)), failed);
            }
        }
    }

    /// A spoiled file does not reduce the count.
    #[test]
    fn a_file_that_cannot_be_read_counts() {
        let mut known = Registry::default();
        let file = |name: &str, bytes: &[u8]| SharedFiles::from([(file_name(name), bytes.to_vec())]);
        known.include(&file("k1", &encoded(&entry("k1")).unwrap()));
        known.include(&file("k2", b"{"));
        known.include(&file("k3", &encoded(&entry("k1")).unwrap()));
        assert_eq!((known.entries.len(), known.unreadable.len()), (1, 2));
        // A file that is spoiled in one place and whole in another is one attempt.
        known.include(&file("k1", b""));
        known.include(&file("k2", &encoded(&entry("k2")).unwrap()));
        assert_eq!((known.entries.len(), known.unreadable.len()), (2, 1));
    }
}
