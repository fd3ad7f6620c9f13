//! What the pairs of an open attempt showed of the training, so that a comparison that was interrupted judges all of
//! them: a line of JSON for each pair, written before the pair counts.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    LoopError, files,
    parity::{PairEvidence, UpdateEvidence},
};

/// What one pair showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The pair's.
    pub number: u64,
    /// Losses, norms, tokens, held-out loss.
    pub pair: PairEvidence,
    /// How far the weights moved, where it was looked at.
    pub updates: Vec<UpdateEvidence>,
}

/// The file of an attempt.
#[derive(Clone, Debug)]
pub struct KeptEvidence(PathBuf);

impl KeptEvidence {
    /// At this path; nothing is opened yet.
    pub fn new(path: PathBuf) -> KeptEvidence {
        KeptEvidence(path)
    }

    /// Adds a pair.
    pub fn append(&self, shown: &Shown) -> Result<(), LoopError> {
        let line = serde_json::to_string(shown)
            .map_err(|error| LoopError::Failed(format!("evidence cannot be written: {error}")))?;
        files::append_line(&self.0, &line)
    }

    /// Removes it: it has served.
    pub fn remove(&self) -> Result<(), LoopError> {
        files::remove(&self.0)
    }

    /// What those of the pairs with these numbers showed that ran here, in their order. A line that cannot be read is one
    /// of a pair that a crash cut short, which does not count and ran again.
    pub fn read(&self, numbers: &[u64]) -> Result<Vec<Shown>, LoopError> {
        let mut by_number: BTreeMap<u64, Shown> = self.lines()?.map(|shown| (shown.number, shown)).collect();
        Ok(numbers.iter().filter_map(|number| by_number.remove(number)).collect())
    }

    /// What all pairs showed, in the order of their numbers.
    pub fn read_all(&self) -> Result<Vec<Shown>, LoopError> {
        let by_number: BTreeMap<u64, Shown> = self.lines()?.map(|shown| (shown.number, shown)).collect();
        Ok(by_number.into_values().collect())
    }

    fn lines(&self) -> Result<impl Iterator<Item = Shown>, LoopError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(LoopError::io("read", &self.0, &error)),
        };
        let lines: Vec<Shown> =
            bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Shown>(line).ok()).collect();
        Ok(lines.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        parity::Arms,
        records::{StepRecord, Trajectory},
        weights::{TensorUpdate, UpdateCheck},
    };

    fn shown(number: u64, loss: f64) -> Shown {
        let row = StepRecord { loss, grad_norm: 0.1 + 0.2, data_hash: Some("ab".into()), ..StepRecord::default() };
        let run = Trajectory { rows: vec![row.clone(), row] };
        let tensor = TensorUpdate { name: "w".into(), len: 3, norm: 1.0 / 3.0, ..TensorUpdate::default() };
        let moved = UpdateCheck { seed: 1, tensors: vec![tensor] };
        Shown {
            number,
            pair: PairEvidence {
                seed: u64::MAX,
                records: Arms { baseline: run.clone(), candidate: run },
                held_out: Some(Arms { baseline: 1e-300, candidate: 7.1 }),
            },
            updates: vec![UpdateEvidence { from: 0, to: 1, moved: Arms { baseline: moved.clone(), candidate: moved } }],
        }
    }

    #[test]
    fn what_was_shown_is_read_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptEvidence::new(folder.path().join("parity.jsonl"));
        assert_eq!(kept.read(&[]).unwrap(), []);
        for number in [0, 1, 2] {
            kept.append(&shown(number, 1.0 / (number + 3) as f64)).unwrap();
        }
        assert_eq!(kept.read(&[2, 0]).unwrap(), [shown(2, 0.2), shown(0, 1.0 / 3.0)]);
        // Losses that are not finite stay so.
        kept.append(&shown(3, f64::NAN)).unwrap();
        assert!(kept.read(&[3]).unwrap()[0].pair.records.candidate.rows[1].loss.is_nan());
    }

    #[test]
    fn a_torn_line_is_a_pair_that_ran_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("parity.jsonl");
        let kept = KeptEvidence::new(path.clone());
        kept.append(&shown(0, 1.0)).unwrap();
        kept.append(&shown(1, 2.0)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 20]).unwrap();
        assert_eq!(kept.read(&[0, 1]).unwrap(), [shown(0, 1.0)]);
        kept.append(&shown(1, 3.0)).unwrap();
        assert_eq!(kept.read(&[0, 1]).unwrap(), [shown(0, 1.0), shown(1, 3.0)]);
    }
}
