//! How far apart two runs of one binary are, from a history that was not planned for it.
//!
//! Consecutive rows with the same binary and the same configuration are a chain; x = ln tok/s of its runs. "One run
//! against one run" is the difference of any two runs of a chain, so that drift is part of it. The scale is robust,
//! because the tails are heavy: the median |xᵢ − xⱼ|, scaled to the sd of a normal distribution (Shamos 1976; Bickel
//! and Lehmann 1979), where the weight of a chain is the number of its runs beyond the first.

use std::{collections::BTreeMap, f64::consts::SQRT_2};

use serde::Serialize;

use super::rows::Row;

/// The median |z| of a standard normal variable is 1 / 1.4826.
const NORMAL_SD_PER_MEDIAN: f64 = 1.482_602_218_505_602;

/// A normal variable lies within ± 1.96 sd in 95 of 100 cases.
const Z_95: f64 = 1.959_963_984_540_054;

/// Runs of a chain that are further apart are not compared: this bounds the work, and long chains have pairs enough.
const FARTHEST: usize = 64;

/// The noise of a history. Standard deviations are those of ln tok/s of one run, times 100. Absent where no binary ran
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    /// Robust, from any two runs of one binary.
    pub noise_sd_pct: Option<f64>,
    /// Robust, from neighbouring runs of one binary: smaller than the above if speed drifts.
    pub noise_neighbours_sd_pct: Option<f64>,
    /// The ordinary one, pooled within chains: larger than the robust one if tails are heavy.
    pub noise_pooled_sd_pct: Option<f64>,
    /// Pairs of neighbouring runs of the same binary.
    pub noise_steps: usize,
    /// Binaries that ran more than once.
    pub noise_chains: usize,
    /// Of lag 1, within chains of at least three runs: 1 − Σ(xᵢ₊₁ − xᵢ)² / 2Σ(xᵢ − x̄)², whose expectation is 0 where
    /// runs are independent (von Neumann 1941). Above 0: drift.
    pub noise_autocorrelation: Option<f64>,
    /// Largest gain of one run over one run inside the 95 % band: 1.96 √2 sd on the logarithmic scale.
    pub noise_band_pct: Option<f64>,
    /// Per cent of pairs of runs of one binary that lie outside the band; 5 if noise were normal.
    pub noise_outside_band_pct: Option<f64>,
    /// Mean |ln| of the ratio of neighbouring runs of one binary.
    #[serde(skip)]
    pub mean_step: Option<f64>,
}

/// A difference and its weight.
type Weighted = (f64, f64);

/// The noise that the rows show.
pub fn noise(rows: &[Row]) -> Noise {
    let chains = chains(rows);
    let steps: Vec<f64> =
        chains.iter().flat_map(|chain| chain.windows(2).map(|pair| (pair[1] - pair[0]).abs())).collect();
    if steps.is_empty() {
        return Noise::default();
    }
    let neighbours = steps.iter().map(|&step| (step, 1.0)).collect();
    let apart: Vec<Weighted> = chains.iter().flat_map(|chain| differences(chain)).collect();
    let weight = steps.len() as f64; // the weight of a chain is its number of steps

    let sd = robust_sd(apart.clone());
    let band = Z_95 * SQRT_2 * sd;
    let outside: f64 = apart.iter().filter(|(difference, _)| *difference > band).map(|(_, weight)| weight).sum();
    let squares: f64 = chains.iter().map(|chain| squares(chain)).sum();
    Noise {
        noise_sd_pct: Some(100.0 * sd),
        noise_neighbours_sd_pct: Some(100.0 * robust_sd(neighbours)),
        noise_pooled_sd_pct: Some(100.0 * (squares / weight).sqrt()),
        noise_steps: steps.len(),
        noise_chains: chains.len(),
        noise_autocorrelation: autocorrelation(&chains),
        noise_band_pct: Some(100.0 * band.exp_m1()),
        noise_outside_band_pct: Some(100.0 * outside / weight),
        mean_step: Some(steps.iter().sum::<f64>() / weight),
    }
}

/// ln tok/s of runs of the same binary and configuration, at least two each.
fn chains(rows: &[Row]) -> Vec<Vec<f64>> {
    let mut chains: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    let mut binary = 0;
    for (index, row) in rows.iter().enumerate() {
        if index > 0 && !row.has_binary_of(&rows[index - 1]) {
            binary += 1;
        }
        if let Some(tok_s) = row.tok_s {
            chains.entry((binary, &row.configuration)).or_default().push(tok_s.ln());
        }
    }
    chains.into_values().filter(|chain| chain.len() > 1).collect()
}

/// |xᵢ − xⱼ| of a chain. Their total weight is the number of steps of the chain.
fn differences(chain: &[f64]) -> impl Iterator<Item = Weighted> {
    let farthest = FARTHEST.min(chain.len() - 1);
    let pairs: usize = (1..=farthest).map(|lag| chain.len() - lag).sum();
    let weight = (chain.len() - 1) as f64 / pairs as f64;
    (1..=farthest).flat_map(move |lag| chain.iter().zip(&chain[lag..]).map(move |(a, b)| ((b - a).abs(), weight)))
}

/// The sd of one run, from absolute differences of two.
fn robust_sd(differences: Vec<Weighted>) -> f64 {
    NORMAL_SD_PER_MEDIAN * weighted_median(differences) / SQRT_2
}

/// The smallest value that has half the weight at or below it; not empty.
fn weighted_median(mut values: Vec<Weighted>) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    // Sums of weights that should be equal differ by rounding.
    let reaches = |weight: f64| weight >= half * (1.0 - 1e-12);
    for &(value, weight) in &values {
        below += weight;
        if reaches(below) {
            return value;
        }
    }
    values.last().map_or(0.0, |&(value, _)| value)
}

fn squares(chain: &[f64]) -> f64 {
    let mean = chain.iter().sum::<f64>() / chain.len() as f64;
    chain.iter().map(|x| (x - mean).powi(2)).sum()
}

fn autocorrelation(chains: &[Vec<f64>]) -> Option<f64> {
    // Two runs are the same distance from their mean, whatever the correlation.
    let long = || chains.iter().filter(|chain| chain.len() > 2);
    let around_mean: f64 = long().map(|chain| squares(chain)).sum();
    let steps: f64 = long().flat_map(|chain| chain.windows(2)).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    (around_mean > 0.0).then(|| 1.0 - steps / (2.0 * around_mean))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::advise::import::Rows;

    /// Rows of one commit after a build each time `None` stands between; values are ln tok/s.
    fn rows(values: &[Option<f64>]) -> Vec<Row> {
        let mut text = String::from("timestamp,git_commit,steps,backend,compile_ms,avg_tok_s,speedup_pct,status\n");
        let mut compile_ms = 2000;
        for value in values {
            if let Some(value) = value {
                writeln!(text, "20260227T091858Z,a,100,cpu,{compile_ms},{},,ok", value.exp()).unwrap();
            }
            compile_ms = if value.is_some() { 2 } else { 2000 };
        }
        Rows::parse(text.as_bytes()).unwrap().rows
    }

    #[track_caller]
    fn close(found: Option<f64>, expected: f64, relative: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() <= relative * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn two_runs() {
        let found = noise(&rows(&[Some(8.0), Some(8.1)]));
        assert_eq!((found.noise_steps, found.noise_chains, found.noise_autocorrelation), (1, 1, None));
        close(found.noise_pooled_sd_pct, 100.0 * 0.1 / SQRT_2, 1e-9);
        close(found.noise_sd_pct, 100.0 * 1.482_602_218_505_602 * 0.1 / SQRT_2, 1e-9);
        close(found.noise_band_pct, 100.0 * ((1.959_963_984_540_054_f64 * 0.148_260_221_850_560_2).exp() - 1.0), 1e-9);
        assert_eq!(found.noise_outside_band_pct, Some(0.0));
        close(found.mean_step, 0.1, 1e-9);
    }

    #[test]
    fn chains_weigh_what_they_have_steps() {
        // Differences 1, 2, 3 with weight 2/3 each, and 4 and 5 with weight 1: half of 4 is reached at 3.
        let values = [8.0, 8.01, 8.03].map(Some);
        let found = noise(&rows(&[&values[..], &[None, Some(8.0), Some(8.04), None, Some(8.0), Some(8.05)]].concat()));
        assert_eq!((found.noise_steps, found.noise_chains), (4, 3));
        close(found.noise_sd_pct, 1.482_602_218_505_602 * 3.0 / SQRT_2, 1e-9);
        // Neighbours are 1, 2, 4, 5 apart: half the weight is at or below 2.
        close(found.noise_neighbours_sd_pct, 1.482_602_218_505_602 * 2.0 / SQRT_2, 1e-9);
        // Around their means: 0, 1, 3 give 42/9; 4 and 5 give 8 and 12.5.
        close(found.noise_pooled_sd_pct, ((42.0_f64 / 9.0 + 20.5) / 4.0).sqrt(), 1e-9);
        // Only the chain of three tells: steps 1 and 2.
        close(found.noise_autocorrelation, 1.0 - 5.0 / (2.0 * 42.0 / 9.0), 1e-6);
        close(found.mean_step, 0.03, 1e-9);
    }

    #[test]
    fn only_runs_of_one_binary_and_configuration_are_compared() {
        assert_eq!(noise(&[]), Noise::default());
        assert_eq!(noise(&rows(&[Some(8.0), None, Some(8.1), None, Some(8.0)])), Noise::default());
        let mut mixed = rows(&[8.0, 9.0, 8.1, 9.1, 8.2].map(Some));
        mixed[1].configuration.steps = "20".into();
        mixed[3].tok_s = None; // a run that failed did not change the binary
        let found = noise(&mixed);
        assert_eq!((found.noise_steps, found.noise_chains), (2, 1));
        close(found.noise_neighbours_sd_pct, 1.482_602_218_505_602 * 10.0 / SQRT_2, 1e-9);
    }

    fn normal(rng: &mut fastrand::Rng) -> f64 {
        (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
    }

    #[test]
    fn independent_normal_noise_is_found_as_it_is() {
        let mut rng = fastrand::Rng::with_seed(1);
        let values: Vec<_> = (0..4000).map(|_| Some(8.0 + 0.03 * normal(&mut rng))).collect();
        let found = noise(&rows(&values));
        // Standard errors are below 2 % of an sd and 0.016 of a correlation.
        for sd in [found.noise_sd_pct, found.noise_neighbours_sd_pct, found.noise_pooled_sd_pct] {
            close(sd, 3.0, 0.08);
        }
        assert!(found.noise_autocorrelation.unwrap().abs() < 0.08, "{found:?}");
        close(found.noise_outside_band_pct, 5.0, 0.25);
    }

    #[test]
    fn drift_and_bursts_show() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut level = 8.0;
        // AR(1) with coefficient 0.8: neighbours differ by √(2 (1 − 0.8)) sd instead of √2.
        let drifting: Vec<_> = (0..4000)
            .map(|_| {
                level = 8.0 + 0.8 * (level - 8.0) + 0.6 * 0.05 * normal(&mut rng);
                Some(level)
            })
            .collect();
        let found = noise(&rows(&drifting));
        close(found.noise_autocorrelation, 0.8, 0.08);
        close(found.noise_sd_pct, 5.0, 0.12);
        close(found.noise_neighbours_sd_pct, 5.0 * 0.2_f64.sqrt(), 0.12);

        // One run in ten is 30 % slow: the ordinary sd is three times that of the others, the robust one is not.
        let bursts: Vec<_> = (0..4000)
            .map(|index| Some(8.0 + 0.03 * normal(&mut rng) - if index % 10 == 0 { 0.3 } else { 0.0 }))
            .collect();
        let found = noise(&rows(&bursts));
        close(found.noise_pooled_sd_pct, 100.0 * (0.03_f64.powi(2) + 0.09 * 0.3_f64.powi(2)).sqrt(), 0.05);
        assert!(found.noise_sd_pct.unwrap() < 4.5, "{found:?}");
        assert!(found.noise_outside_band_pct.unwrap() > 10.0, "{found:?}");
    }
}
