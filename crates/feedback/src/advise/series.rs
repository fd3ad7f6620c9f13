//! The series behind `alpha loop history`: speed as a ratio to an anchor, and where it changed.
//!
//! Runs are only comparable within one configuration. The anchor is a run measured at the same time, if a record has
//! one: a new driver or a warmer room then moves both and not the ratio. Otherwise it is the beginning of the series,
//! and a change of the machine looks like a change of the program.

use std::collections::BTreeMap;

use pairbench::stats::{change_points::change_points, robust::median};
use serde::Serialize;

/// What makes two runs comparable. A part that the history does not have is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Configuration {
    /// The hardware.
    pub machine: String,
    /// The workload, without its length.
    pub workload: String,
    /// The backend.
    pub backend: String,
    /// The device.
    pub device: String,
    /// Length of the run, as written.
    pub steps: String,
}

/// One measurement, from a row of a history or a record of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Which series it belongs to.
    pub configuration: Configuration,
    /// Only for the reader: it does not decide the order.
    pub time: String,
    /// The commit that was measured.
    pub commit: String,
    /// Its speed, finite and above zero.
    pub tok_s: f64,
    /// Speed of the anchor measured together with it, if there was one.
    pub anchor_tok_s: Option<f64>,
}

/// The denominator of a series' ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// A run of the anchor beside each measurement.
    MeasuredTogether,
    /// The median of the first five measurements.
    Beginning,
}

/// The measurements of one configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Their configuration.
    pub configuration: Configuration,
    /// The denominator of their ratios.
    pub anchor: Anchor,
    /// In the order given.
    pub points: Vec<Point>,
    /// Stretches without a change, in order; at least one.
    pub levels: Vec<Level>,
}

/// One measurement of a series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// As given.
    pub time: String,
    /// The commit that was measured.
    pub commit: String,
    /// Speed over that of the anchor.
    pub ratio: f64,
}

/// A stretch of a series without a change that could be told from noise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Index of its first point.
    pub first: usize,
    /// Number of its points.
    pub points: usize,
    /// When it began.
    pub time: String,
    /// The commit of its first point: the change came with this commit, or after the commit of the previous point.
    pub commit: String,
    /// Median speed over that of the anchor.
    pub ratio: f64,
    /// Relative to the previous level; absent for the first.
    pub change_pct: Option<f64>,
}

/// Number of first measurements that are an anchor.
const BEGINNING: usize = 5;

/// Series of measurements in order of time, by configuration and kind of anchor. Speeds that are not finite and above
/// zero are left out.
pub fn series<'a>(measurements: impl IntoIterator<Item = &'a Measurement>) -> Vec<Series> {
    let is_speed = |tok_s: f64| tok_s.is_finite() && tok_s > 0.0;
    let mut groups: BTreeMap<(&Configuration, Anchor), Vec<&Measurement>> = BTreeMap::new();
    for measurement in measurements {
        let anchor = if measurement.anchor_tok_s.is_some() { Anchor::MeasuredTogether } else { Anchor::Beginning };
        if is_speed(measurement.tok_s) && measurement.anchor_tok_s.is_none_or(is_speed) {
            groups.entry((&measurement.configuration, anchor)).or_default().push(measurement);
        }
    }
    groups
        .into_iter()
        .map(|((configuration, anchor), group)| {
            // Logarithms from here on: a ratio of two finite speeds need not be finite.
            let begins: Vec<f64> = group.iter().take(BEGINNING).map(|measurement| measurement.tok_s.ln()).collect();
            let beginning = median(&begins);
            let ln_ratio = |measurement: &&Measurement| {
                measurement.tok_s.ln() - measurement.anchor_tok_s.map_or(beginning, f64::ln)
            };
            let ln_ratios: Vec<f64> = group.iter().map(ln_ratio).collect();
            let points: Vec<Point> = group
                .iter()
                .zip(&ln_ratios)
                .map(|(measurement, ln_ratio)| Point {
                    time: measurement.time.clone(),
                    commit: measurement.commit.clone(),
                    ratio: ln_ratio.exp(),
                })
                .collect();
            let levels = levels(&points, &ln_ratios);
            Series { configuration: configuration.clone(), anchor, points, levels }
        })
        .collect()
}

fn levels(points: &[Point], ln_ratios: &[f64]) -> Vec<Level> {
    let starts: Vec<usize> = [0].into_iter().chain(change_points(ln_ratios)).collect();
    let ends = starts.iter().copied().skip(1).chain([points.len()]);
    let mut before = None;
    starts
        .iter()
        .zip(ends)
        .map(|(&first, end)| {
            let ln_ratio = median(&ln_ratios[first..end]);
            Level {
                first,
                points: end - first,
                time: points[first].time.clone(),
                commit: points[first].commit.clone(),
                ratio: ln_ratio.exp(),
                change_pct: before.replace(ln_ratio).map(|before| 100.0 * (ln_ratio - before).exp_m1()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(backend: &str, commit: usize, tok_s: f64, anchor_tok_s: Option<f64>) -> Measurement {
        let configuration = Configuration { backend: backend.into(), ..Configuration::default() };
        let name = |letter: char| format!("{letter}{commit}");
        Measurement { configuration, time: name('t'), commit: name('c'), tok_s, anchor_tok_s }
    }

    /// Within ± 1 % of 1, of no pattern.
    fn wobble(rng: &mut fastrand::Rng) -> f64 {
        1.0 + 0.02 * (rng.f64() - 0.5)
    }

    #[test]
    fn a_planted_change_is_a_level() {
        let mut rng = fastrand::Rng::with_seed(7);
        let measurements: Vec<_> = (0..60)
            .map(|index| measurement("cpu", index, if index < 40 { 100.0 } else { 150.0 } * wobble(&mut rng), None))
            .collect();
        let [found] = &series(&measurements)[..] else { panic!("one configuration") };
        assert_eq!((found.anchor, found.points.len()), (Anchor::Beginning, 60));
        let [before, after] = &found.levels[..] else { panic!("{:?}", found.levels) };
        assert_eq!((before.first, before.points, before.change_pct), (0, 40, None));
        assert_eq!((after.first, after.points), (40, 20));
        assert_eq!((after.time.as_str(), after.commit.as_str()), ("t40", "c40"));
        assert!((before.ratio - 1.0).abs() < 0.02 && (after.ratio - 1.5).abs() < 0.03, "{:?}", found.levels);
        assert!((after.change_pct.unwrap() - 50.0).abs() < 3.0, "{after:?}");
    }

    #[test]
    fn another_machine_is_no_change_where_the_anchor_was_measured_too() {
        let mut rng = fastrand::Rng::with_seed(8);
        // The room gets warm at 30: trainer and anchor lose a third.
        let measurements: Vec<_> = (0..60)
            .map(|index| {
                let speed = if index < 30 { 300.0 } else { 200.0 };
                measurement("cpu", index, 1.2 * speed * wobble(&mut rng), Some(speed))
            })
            .collect();
        let [found] = &series(&measurements)[..] else { panic!("one configuration") };
        assert_eq!((found.anchor, found.levels.len()), (Anchor::MeasuredTogether, 1));
        assert!((found.levels[0].ratio - 1.2).abs() < 0.01, "{:?}", found.levels);
    }

    #[test]
    fn configurations_and_anchors_are_kept_apart() {
        let measurements = [
            measurement("gpu", 0, 1000.0, None),
            measurement("cpu", 1, 10.0, None),
            measurement("gpu", 2, 3000.0, None),
            measurement("cpu", 3, f64::NAN, None),
            measurement("cpu", 4, 20.0, Some(10.0)),
            measurement("cpu", 5, 20.0, Some(0.0)),
            measurement("gpu", 6, 2000.0, None),
        ];
        let found = series(&measurements);
        let short: Vec<_> = found
            .iter()
            .map(|series| {
                let points = series.points.iter().map(|point| (point.commit.clone(), (1000.0 * point.ratio).round()));
                (series.configuration.backend.as_str(), series.anchor, points.collect::<Vec<_>>())
            })
            .collect();
        // The anchor of the beginning is the median of 1000, 3000 and 2000.
        let point = |commit: &str, ratio: f64| (commit.to_owned(), 1000.0 * ratio);
        assert_eq!(
            short,
            [
                ("cpu", Anchor::MeasuredTogether, vec![point("c4", 2.0)]),
                ("cpu", Anchor::Beginning, vec![point("c1", 1.0)]),
                ("gpu", Anchor::Beginning, vec![point("c0", 0.5), point("c2", 1.5), point("c6", 1.0)]),
            ]
        );
        assert_eq!(series(&[]), []);
    }

    #[test]
    fn speeds_at_the_edge_of_what_a_number_holds_do_no_harm() {
        let measurements: Vec<_> = (0..30)
            .map(|index| measurement("cpu", index, if index % 2 == 0 { 5e-324 } else { f64::MAX }, None))
            .collect();
        let found = series(&measurements);
        assert_eq!(found[0].levels.iter().map(|level| level.points).sum::<usize>(), 30);
    }
}
