//! What the pairs of an open attempt showed of the training, so that a resumed comparison judges all of them: a line of
//! JSON for each pair, written before the pair counts.
//!
//! The attempt holds a hash of the lines of its pairs, so that an edit of the log alone is noticed. An edit of both is
//! not: against that, verdicts are recomputed and measured again.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use pairbench::files;
use serde::{Deserialize, Serialize};

use crate::{
    LoopError,
    parity::{PairEvidence, UpdateEvidence},
};

/// The observation of one pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairObservation {
    /// The pair's number.
    pub number: u64,
    /// Losses, norms, tokens, held-out loss.
    pub pair: PairEvidence,
    /// How far the weights moved, if that was checked.
    pub updates: Vec<UpdateEvidence>,
}

/// The file of an attempt.
#[derive(Clone, Debug)]
pub struct PairLog(PathBuf);

impl PairLog {
    /// The log at this path; nothing is opened yet.
    pub fn new(path: PathBuf) -> PairLog {
        PairLog(path)
    }

    /// Adds a pair to those that `seal` covers; returns the new seal.
    pub fn append(&self, shown: &PairObservation, seal: &str) -> Result<String, LoopError> {
        let line = serde_json::to_string(shown)
            .map_err(|error| LoopError::failed(format!("evidence cannot be written: {error}")))?;
        files::append_line(&self.0, &line)?;
        Ok(sealed(seal, line.as_bytes()))
    }

    /// Whether the file exists.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Removes the file, which is no longer needed.
    pub fn remove(&self) -> Result<(), LoopError> {
        files::remove(&self.0)
    }

    /// The observations of the pairs with these numbers that ran here, in their order. A line that cannot be read
    /// belongs to a pair that a crash cut short; it does not count and ran again.
    ///
    /// # Errors
    /// [`LoopError::refused`] if `seal` does not cover exactly these lines.
    pub fn read(&self, numbers: &[u64], seal: &str) -> Result<Vec<PairObservation>, LoopError> {
        let mut by_number = self.lines()?;
        let lines: Vec<(Vec<u8>, PairObservation)> =
            numbers.iter().filter_map(|number| by_number.remove(number)).collect();
        let found = lines.iter().fold(String::new(), |seal, (line, _)| sealed(&seal, line));
        if found != seal {
            return Err(LoopError::refused(format!(
                "`{}` is not what the pairs of this attempt showed: it was changed, or lines are gone",
                self.0.display()
            ))
            .hint("put it back as it was; else these two programs cannot be committed: their pairs prove nothing any more"));
        }
        Ok(lines.into_iter().map(|(_, shown)| shown).collect())
    }

    /// The observations of all pairs, in the order of their numbers; not checked against a seal.
    pub fn read_all(&self) -> Result<Vec<PairObservation>, LoopError> {
        Ok(self.lines()?.into_values().map(|(_, shown)| shown).collect())
    }

    /// Each line and its content, by the number of its pair.
    fn lines(&self) -> Result<BTreeMap<u64, (Vec<u8>, PairObservation)>, LoopError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(LoopError::io("read", &self.0, &error)),
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines =
            lines.filter_map(|line| Some((line.to_vec(), serde_json::from_slice::<PairObservation>(line).ok()?)));
        Ok(lines.map(|(line, shown)| (shown.number, (line, shown))).collect())
    }
}

/// The seal after one more line.
fn sealed(seal: &str, line: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(seal.as_bytes()).update(line);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::{
        Arms,
        trajectory::{StepRecord, Trajectory},
        weights::{TensorUpdate, UpdateCheck},
    };

    fn shown(number: u64, loss: f64) -> PairObservation {
        let row = StepRecord { loss, grad_norm: 0.1 + 0.2, data_hash: Some("ab".into()), ..StepRecord::default() };
        let run = Trajectory { rows: vec![row.clone(), row], ..Trajectory::default() };
        let tensor = TensorUpdate { name: "w".into(), len: 3, norm: 1.0 / 3.0, ..TensorUpdate::default() };
        let moved = UpdateCheck { seed: 1, tensors: vec![tensor] };
        PairObservation {
            number,
            pair: PairEvidence {
                seed: u64::MAX,
                records: Arms { baseline: run.clone(), candidate: run },
                held_out: Some(Arms { baseline: 1e-300, candidate: 7.1 }),
            },
            updates: vec![UpdateEvidence { from: 0, to: 1, moved: Arms { baseline: moved.clone(), candidate: moved } }],
        }
    }

    fn kept() -> (tempfile::TempDir, PairLog) {
        let folder = tempfile::tempdir().unwrap();
        let kept = PairLog::new(folder.path().join("parity.jsonl"));
        (folder, kept)
    }

    #[test]
    fn what_was_shown_is_read_back_to_the_last_bit() {
        let (_folder, kept) = kept();
        assert_eq!(kept.read(&[], "").unwrap(), []);
        let mut seals = vec![String::new()];
        for number in [0, 1, 2] {
            seals.push(kept.append(&shown(number, 1.0 / (number + 3) as f64), &seals[number as usize]).unwrap());
        }
        assert_eq!(kept.read(&[0, 1], &seals[2]).unwrap(), [shown(0, 1.0 / 3.0), shown(1, 0.25)]);
        // Losses that are not finite stay so.
        let seal = kept.append(&shown(3, f64::NAN), &seals[3]).unwrap();
        assert!(kept.read(&[0, 1, 2, 3], &seal).unwrap()[3].pair.records.candidate.rows[1].loss.is_nan());
    }

    #[test]
    fn a_torn_line_is_a_pair_that_ran_again() {
        let (_folder, kept) = kept();
        let first = kept.append(&shown(0, 1.0), "").unwrap();
        kept.append(&shown(1, 2.0), &first).unwrap();
        let text = fs::read_to_string(&kept.0).unwrap();
        fs::write(&kept.0, &text[..text.len() - 20]).unwrap();
        // The attempt has not counted it either.
        assert_eq!(kept.read(&[0], &first).unwrap(), [shown(0, 1.0)]);
        let second = kept.append(&shown(1, 3.0), &first).unwrap();
        assert_eq!(kept.read(&[0, 1], &second).unwrap(), [shown(0, 1.0), shown(1, 3.0)]);
    }

    #[test]
    fn what_was_edited_is_found() {
        let (_folder, kept) = kept();
        let first = kept.append(&shown(0, 1.0), "").unwrap();
        let second = kept.append(&shown(1, 2.0), &first).unwrap();
        let whole = fs::read_to_string(&kept.0).unwrap();
        let edits = [whole.replacen("7.1", "7.0", 1), whole.lines().next().unwrap().to_owned() + "\n", String::new()];
        for edit in edits {
            assert_ne!(edit, whole);
            fs::write(&kept.0, edit).unwrap();
            let error = kept.read(&[0, 1], &second).unwrap_err();
            assert!(error.to_string().contains("changed"), "{error}");
            assert_eq!(error.exit_code(), 4);
        }
        fs::write(&kept.0, whole).unwrap();
        assert_eq!(kept.read(&[0, 1], &second).unwrap().len(), 2);
        assert!(kept.read(&[0, 1], &first).is_err());
    }
}
