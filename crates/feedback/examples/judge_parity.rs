//! Judges parity from files: `judge_parity EVIDENCE.json` prints the judgement as JSON.
//!
//! `scripts/calibrate_parity.py` writes the evidence of known changes and faults, and tabulates what each rule found.

#![expect(clippy::print_stdout, reason = "a program that prints its result")]

use std::{error::Error, path::PathBuf};

use feedback::{
    config::metrics::Shows,
    parity::{
        Arms, Evidence, Floor, PairEvidence, Parity, Tier, UpdateEvidence,
        trajectory::{DEFAULT_COUNTERS, Trajectory},
        weights::{Exempt, UpdateCheck},
    },
};
use serde::Deserialize;

/// The input. Of two files or numbers the first is the baseline's.
#[derive(Deserialize)]
struct Files {
    tier: Tier,
    steps: u64,
    /// The seed of the projections' signs.
    seed: u64,
    exempt: Vec<String>,
    pairs: Vec<Pair>,
    updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Pair {
    seed: u64,
    metrics: [PathBuf; 2],
    held_out: Option<[f64; 2]>,
}

#[derive(Deserialize)]
struct Update {
    from: u64,
    to: u64,
    /// Weights before and after, of each trainer.
    weights: [[PathBuf; 2]; 2],
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: judge_parity EVIDENCE.json")?;
    let files: Files = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let exempt: Vec<Exempt> = files.exempt.iter().map(|text| Exempt::parse(text)).collect::<Result<_, _>>()?;
    let mut evidence = Evidence {
        tier: files.tier,
        shows: Shows::ALL,
        steps: files.steps,
        alone: vec![1, 2, 10],
        pairs: Vec::new(),
        floor: Floor::default(),
        updates: Vec::new(),
    };
    for Pair { seed, metrics: [baseline, candidate], held_out } in files.pairs {
        let records = Arms {
            baseline: Trajectory::read(&baseline, &DEFAULT_COUNTERS)?,
            candidate: Trajectory::read(&candidate, &DEFAULT_COUNTERS)?,
        };
        let held_out = held_out.map(|[baseline, candidate]| Arms { baseline, candidate });
        evidence.pairs.push(PairEvidence { seed, records, held_out });
    }
    for Update { from, to, weights } in files.updates {
        let [baseline, candidate] =
            weights.map(|[before, after]| UpdateCheck::between(&before, &after, files.seed, &exempt));
        let moved = Arms { baseline: baseline?, candidate: candidate? };
        evidence.updates.push(UpdateEvidence { from, to, moved });
    }
    println!("{}", serde_json::to_string(&Parity::judge(&evidence))?);
    Ok(())
}
