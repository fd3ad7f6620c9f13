//! Which effects a comparison can still find, and how many pairs it would need.
//!
//! `sd` is the standard deviation of d over pairs; of measured pairs take [`mad_sd`](super::robust::mad_sd). An effect
//! is *resolved* by a plan that rejects "no difference" with probability 80 %, in normal noise. FASTER also needs an
//! estimate of at least ε, so effects smaller than ε are not worth resolving. SAME needs an interval inside ±ε, that
//! is, the distance from the effect to ε resolved.

use super::{
    Interval,
    sequential::{Evidence, Plan},
    signed_rank::WalshAverages,
};

/// Below this conditional power, continuing is futile.
pub const FUTILE: f64 = 0.05;

/// effect · √pairs / sd that every plan resolves: by simulation the plan of 20 pairs needs 3.4, those of 40 and 80 a little
/// less. One look after a fixed number of pairs would need 2.9.
const RESOLVED: f64 = 3.4;

/// How many continuations conditional power rests on: a standard error of 1 % at 5 %.
const CONTINUATIONS: usize = 500;

/// The smallest effect that `plan` resolves.
pub fn smallest_effect(sd: f64, plan: Plan) -> f64 {
    RESOLVED * sd / (plan.pairs() as f64).sqrt()
}

/// How many pairs resolve `effect`, even if no plan has as many. Infinite for an effect of zero.
pub fn pairs_needed(sd: f64, effect: f64) -> f64 {
    (RESOLVED * sd / effect).powi(2).ceil()
}

/// Probability that `plan`, after the pairs `d`, still ends in an answer, if the true difference is `effect`.
///
/// The pairs to come are drawn from those so far, moved from their estimate to `effect`, with fair signs around it, and
/// each later look is judged by the bounds of the table. 0 when no look is left or nothing was measured.
pub fn conditional_power(d: &[f64], plan: Plan, effect: f64, epsilon: f64, seed: u64) -> f64 {
    if d.is_empty() {
        return 0.0;
    }
    let centre = WalshAverages::of(d).estimate();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut is_answered = |_: &usize| {
        let mut pairs = d.to_vec();
        plan.looks().iter().filter(|look| look.pairs > d.len()).any(|look| {
            while pairs.len() < look.pairs {
                let residual = d[rng.usize(..d.len())] - centre;
                pairs.push(effect + if rng.bool() { residual } else { -residual });
            }
            plan.evidence_of_table(&pairs).is_some_and(|evidence| evidence.answer(epsilon).is_some())
        })
    };
    (0..CONTINUATIONS).filter(&mut is_answered).count() as f64 / CONTINUATIONS as f64
}

/// Whether continuing is futile: an answer is improbable even for the true effect that makes it likeliest. That effect
/// is an end of the interval for FASTER and SLOWER, and the value nearest to zero for SAME. `evidence` is that of `d`
/// at a look of `plan`.
pub fn is_futile(d: &[f64], plan: Plan, evidence: Evidence, epsilon: f64, seed: u64) -> bool {
    let Interval { low, high } = evidence.interval;
    let effects = [high, low, if low > 0.0 { low } else { high.min(0.0) }];
    effects.into_iter().all(|effect| conditional_power(d, plan, effect, epsilon, seed) < FUTILE)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use statrs::distribution::{ContinuousCDF, Normal};

    use super::{super::signed_rank::walsh_above_zero, *};

    /// Two pairs before the end there are (2 · 18)² continuations: all of them instead of some.
    #[test]
    fn conditional_power_is_that_of_all_continuations() {
        let plan = Plan::for_pairs(20).unwrap();
        let mut rng = fastrand::Rng::with_seed(5);
        let d: Vec<f64> = (0..18).map(|_| rng.f64() - 0.42).collect();
        let evidence = plan.evidence(&d).unwrap();
        assert_eq!(evidence.answer(0.01), None, "{evidence:?}");
        let centre = evidence.estimate;
        for effect in [0.0, centre, evidence.interval.high] {
            let next: Vec<f64> = d.iter().flat_map(|d| [effect + d - centre, effect - d + centre]).collect();
            let outcomes = next.iter().flat_map(|a| next.iter().map(|b| [d.as_slice(), &[*a, *b]].concat()));
            let is_answered = |pairs: &Vec<f64>| plan.evidence_of_table(pairs).unwrap().answer(0.01).is_some();
            let expected = outcomes.filter(is_answered).count() as f64 / 1296.0;
            let found = conditional_power(&d, plan, effect, 0.01, 3);
            let tolerance = 4.0 * (expected * (1.0 - expected) / CONTINUATIONS as f64).sqrt();
            assert!((found - expected).abs() <= tolerance, "{effect}: {found} {expected}");
        }
    }

    #[test]
    fn power_is_nothing_after_the_end_and_certain_for_a_huge_effect() {
        let plan = Plan::for_pairs(20).unwrap();
        let d: Vec<f64> = (0..20).map(|index| f64::from(index % 5) - 2.0).collect();
        assert_eq!(conditional_power(&d, plan, 1e3, 0.01, 0), 0.0);
        assert_eq!(conditional_power(&[], plan, 1e3, 0.01, 0), 0.0);
        assert_eq!(conditional_power(&d[..8], plan, 1e3, 0.01, 0), 1.0);
        // At no difference the interval of 16 such pairs can no longer leave zero, nor shrink into ±1 %.
        let evidence = plan.evidence(&d[..16]).unwrap();
        assert!(conditional_power(&d[..16], plan, 0.0, 0.01, 0) < FUTILE && !evidence.interval.is_within(0.01));
    }

    /// The promise of `smallest_effect`: 80 % of comparisons reject; of the largest plan not many more.
    #[test]
    fn the_smallest_effect_is_found_in_four_of_five() {
        let normal = Normal::standard();
        let mut rng = fastrand::Rng::with_seed(11);
        for plan in Plan::ALL {
            let effect = smallest_effect(1.0, plan);
            let mut rejects = |_: &i32| {
                let d: Vec<f64> = (0..plan.pairs()).map(|_| effect + normal.inverse_cdf(rng.f64())).collect();
                plan.looks().iter().any(|look| walsh_above_zero(&d[..look.pairs]) >= look.bound)
            };
            let power = f64::from((0..1000).filter(&mut rejects).count() as u32) / 1000.0;
            assert!((0.8 - 0.05..0.87 + 0.04).contains(&power), "{} pairs: {power}", plan.pairs());
        }
    }

    #[test]
    fn pairs_and_effect_are_each_other_s_inverse() {
        for plan in Plan::ALL {
            let effect = smallest_effect(0.035, plan);
            assert!((pairs_needed(0.035, effect * 1.0001) - plan.pairs() as f64).abs() < 0.5);
            assert_eq!(pairs_needed(0.035, -effect / 1.999), (4 * plan.pairs()) as f64);
        }
        assert_eq!(pairs_needed(1.0, 0.0), f64::INFINITY);
    }
}
