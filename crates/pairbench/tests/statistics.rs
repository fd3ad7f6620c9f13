//! The statistics against a second implementation in numpy and scipy: `tests/statistics/golden.json`, written by
//! `scripts/make_statistics_golden.py`.
#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use pairbench::stats::{
    change_points::change_points,
    e_process::EProcess,
    equivalence::equivalence,
    robust::{mad_sd, mid_ranks, quantile},
    sequential::Plan,
    signed_rank::{WalshAverages, critical_value, p_greater, p_two_sided, w_plus},
};
use serde_json::Value;

/// The cases under `name`, of which there is at least one.
fn cases(name: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/statistics/golden.json")).unwrap();
    let cases = golden[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn number(case: &Value, name: &str) -> f64 {
    case[name].as_f64().unwrap()
}

fn numbers(case: &Value, name: &str) -> Vec<f64> {
    case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "found {found}, expected {expected}");
}

#[test]
fn signed_rank_test_estimate_and_interval() {
    for case in cases("signed_rank") {
        let d = numbers(&case, "d");
        near(w_plus(&d), number(&case, "w_plus"));
        near(p_greater(&d), number(&case, "p_greater"));
        near(p_two_sided(&d), number(&case, "p_two_sided"));
        let averages = WalshAverages::of(&d);
        let interval = averages.interval(number(&case, "critical") as u32);
        near(averages.estimate(), number(&case, "estimate"));
        near(interval.low, number(&case, "low"));
        near(interval.high, number(&case, "high"));
    }
}

/// Every level between two neighbouring tail probabilities has its critical value.
#[test]
fn critical_values_of_listed_subsets() {
    for case in cases("null_tail") {
        let pairs = number(&case, "pairs") as usize;
        let counts = numbers(&case, "counts");
        let mut tail = 0.0;
        for (sum, count) in counts.iter().enumerate().rev() {
            let probability = |subsets: f64| subsets / counts.iter().sum::<f64>();
            let above = (sum + 1 < counts.len()).then_some(sum as u32 + 1);
            assert_eq!(critical_value(pairs, probability(tail + count / 2.0)), above, "{pairs} pairs");
            tail += count;
            assert_eq!(critical_value(pairs, probability(tail) + 1e-12), Some(sum as u32), "{pairs} pairs");
        }
    }
}

/// Four million comparisons ranked by numpy: each look spends no more than it was granted, and all together spend the
/// level.
#[test]
fn plans_spend_what_they_are_granted() {
    let cases = cases("sequential");
    assert_eq!(cases.len(), Plan::ALL.len());
    for (case, plan) in cases.iter().zip(Plan::ALL) {
        assert_eq!(number(case, "pairs") as usize, plan.pairs());
        let of_plan =
            |value: fn(&pairbench::stats::sequential::Look) -> f64| plan.looks().iter().map(value).collect::<Vec<_>>();
        assert_eq!(numbers(case, "looks"), of_plan(|look| look.pairs as f64));
        assert_eq!(numbers(case, "bounds"), of_plan(|look| f64::from(look.bound)));
        let spent = numbers(case, "spent");
        for (look, spent) in plan.looks().iter().zip(&spent) {
            let granted = 0.025 * look.pairs as f64 / plan.pairs() as f64;
            let error = (granted / number(case, "comparisons")).sqrt();
            assert!(*spent <= granted + 4.0 * error, "{look:?} of {}: {spent} of {granted}", plan.pairs());
        }
        assert!(*spent.last().unwrap() > 0.024, "{} pairs: {spent:?}", plan.pairs());
    }
}

#[test]
fn bets() {
    for case in cases("e_process") {
        let bets = EProcess::of(&numbers(&case, "d"));
        near(bets.ln_e_above(number(&case, "theta")), number(&case, "above"));
        near(bets.ln_e_below(number(&case, "theta")), number(&case, "below"));
    }
}

#[test]
fn two_one_sided_t_tests() {
    for case in cases("equivalence") {
        let found = equivalence(&numbers(&case, "differences"), number(&case, "margin"), 0.05);
        near(found.mean, number(&case, "mean"));
        near(found.p, number(&case, "p"));
        near(found.interval.low, number(&case, "low"));
        near(found.interval.high, number(&case, "high"));
        assert_eq!(found.equivalent, found.interval.is_within(number(&case, "margin")));
    }
}

#[test]
fn order_statistics() {
    for case in cases("robust") {
        let values = numbers(&case, "values");
        for (fraction, expected) in numbers(&case, "fractions").iter().zip(numbers(&case, "quantiles")) {
            near(quantile(&values, *fraction), expected);
        }
        near(mad_sd(&values), number(&case, "mad_sd"));
        assert_eq!(mid_ranks(&values), numbers(&case, "mid_ranks"));
    }
}

#[test]
fn levels_of_planted_series() {
    for case in cases("change_points") {
        let found: Vec<f64> = change_points(&numbers(&case, "series")).iter().map(|index| *index as f64).collect();
        assert_eq!(found, numbers(&case, "found"), "planted {}", case["planted"]);
    }
}
