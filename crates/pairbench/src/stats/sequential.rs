//! The group-sequential signed-rank test: a fixed number of pairs, fixed looks, and at each look a bound on W⁺.
//!
//! A plan looks at the pairs so far at a few numbers of pairs that are fixed beforehand and rejects where W⁺, or for
//! the other side W⁻, reaches the bound of the look. Under no difference each side rejects anywhere with probability at
//! most 2.5 %; of that, the first n of N pairs may spend n/N (linear error spending: Jennison and Turnbull, Group
//! Sequential Methods (2000), §7.2). Ties and zeros count against rejection, because what decides is the interval (see
//! [`signed_rank`](super::signed_rank)). The interval at a look inverts the test with the bound of that look, and all
//! intervals of a plan hold at once with 95 % (repeated confidence intervals: Jennison and Turnbull, JRSS B 51 (1989)).
//! Between looks there is no answer.
//!
//! The bounds of the tables come from the joint law of W⁺ over the looks under fair signs *and* magnitudes |d| that
//! come in random order. At one look the order does not matter; over several it does: where noise grows during a
//! comparison, late pairs take the high ranks, the looks agree less with each other, and a table alone rejects up to 7
//! % of the time. So a look also derives the bound that the magnitudes at hand demand, by flipping signs, and takes the
//! higher one ([`Plan::bounds_for`]). With that, 2.5 % a side holds for any noise, as long as the signs are fair.
//!
//! A comparison that ends undecided can continue within the same 2.5 %: the plan reserves a 25th of it at its last
//! look. The pairs after that spend the reserve, linearly again, at looks half a plan apart, by bounds from flipping
//! signs alone, up to four plans or 160 pairs. Simulated with normal noise with an sd of 3.5 % a pair, the per cent of
//! comparisons called faster by the plan / after continuing to 80, 160 and 160 pairs:
//!
//! | what | pairs | +0 % | +1 % | +2 % |
//! | --- | --- | --- | --- | --- |
//! | nothing kept back, bets at 5 % two-sided ([`Continuation::Bets`]) | 20 | 2.5 / 3.0 | 17 / 39 | 56 / 96 |
//! | | 40 | 2.4 / 2.7 | 32 / 69 | 88 / 100 |
//! | | 80 | 2.2 / 2.3 | 61 / 74 | 100 / 100 |
//! | a 25th kept back, looks ([`Continuation::Reserve`]) | 20 | 2.5 / 2.6 | 17 / 33 | 55 / 96 |
//! | | 40 | 2.4 / 2.5 | 32 / 67 | 88 / 100 |
//! | | 80 | 2.3 / 2.4 | 60 / 80 | 100 / 100 |
//! | a 25th kept back, bets | 20 | 2.5 / 2.5 | 17 / 21 | 55 / 85 |
//! | a fifth kept back at every look, bets | 20 | 2.0 / 2.1 | 15 / 26 | 52 / 92 |
//!
//! (20 000 comparisons of no effect, 8000 of the others; the bounds of this table were themselves simulated, which moves its
//! first column by 0.1.)

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Interval, signed_rank::WalshAverages};

/// Probability of rejecting on one side, anywhere in a plan and after it, under no difference.
pub const LEVEL: f64 = 0.025;

/// Share of the level that is reserved for continuing after the plan.
const RESERVED: f64 = 0.04;

/// The most pairs of a comparison: these rows, and as many again to confirm them, fit into a record.
const MOST_PAIRS: usize = 160;

/// How a comparison continues after its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Continuation {
    /// The plan spends its 5 %, and bets over all pairs spend another 5 %. Comparisons whose records name no
    /// continuation were judged so.
    #[default]
    Bets,
    /// Looks after the plan spend what the plan reserved: 5 % in all.
    Reserve,
}

/// A number of pairs after which a plan looks, and the smallest W⁺ that it rejects there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Pairs so far.
    pub pairs: usize,
    /// This W⁺ and every larger one reject.
    pub bound: u32,
}

/// A number of pairs fixed before the first, with its looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    looks: &'static [Look],
    continuation: Continuation,
}

/// What the pairs show at a look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Hodges–Lehmann estimate of the difference.
    pub estimate: f64,
    /// Repeated confidence interval, 95 % over all looks together.
    pub interval: Interval,
}

/// A verdict that ends a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The interval lies above zero and the estimate is at least ε.
    Faster,
    /// The interval lies below zero and the estimate is at most −ε.
    Slower,
    /// The interval lies inside ±ε.
    Same,
}

impl Evidence {
    fn of(d: &[f64], bound: u32) -> Evidence {
        let averages = WalshAverages::of(d);
        Evidence { estimate: averages.estimate(), interval: averages.interval(bound) }
    }

    /// The answer, if there is one; `epsilon` is the smallest difference that counts, as a logarithm.
    pub fn answer(self, epsilon: f64) -> Option<Answer> {
        if self.interval.is_above(0.0) && self.estimate >= epsilon {
            Some(Answer::Faster)
        } else if self.interval.is_below(0.0) && self.estimate <= -epsilon {
            Some(Answer::Slower)
        } else if self.interval.is_within(epsilon) {
            Some(Answer::Same)
        } else {
            None
        }
    }
}

impl Plan {
    /// Every plan there is, from the smallest.
    pub const ALL: [Plan; 3] = [
        Plan {
            looks: &[
                look(8, 35),
                look(10, 51),
                look(12, 70),
                look(14, 91),
                look(16, 114),
                look(18, 140),
                look(20, 167),
            ],
            continuation: Continuation::Reserve,
        },
        Plan {
            looks: &[
                look(8, 36),
                look(10, 53),
                look(12, 73),
                look(16, 118),
                look(20, 173),
                look(25, 254),
                look(30, 349),
                look(35, 461),
                look(40, 584),
            ],
            continuation: Continuation::Reserve,
        },
        Plan {
            looks: &[
                look(10, 53),
                look(12, 74),
                look(16, 121),
                look(20, 179),
                look(30, 358),
                look(40, 597),
                look(60, 1232),
                look(80, 2092),
            ],
            continuation: Continuation::Reserve,
        },
    ];

    /// The plan of exactly this many pairs, as comparisons are judged now.
    pub fn for_pairs(pairs: usize) -> Option<Plan> {
        Plan::ALL.into_iter().find(|plan| plan.pairs() == pairs)
    }

    /// The same looks, with this continuation.
    #[must_use]
    pub fn with(self, continuation: Continuation) -> Plan {
        Plan { continuation, ..self }
    }

    /// How it continues after its last look.
    pub fn continuation(self) -> Continuation {
        self.continuation
    }

    /// How many pairs it can have when it continues; bets never end.
    pub fn most_pairs(self) -> usize {
        match self.continuation {
            Continuation::Bets => usize::MAX,
            Continuation::Reserve => (4 * self.pairs()).min(MOST_PAIRS),
        }
    }

    /// The largest plan of at most this many pairs.
    pub fn largest_within(pairs: usize) -> Option<Plan> {
        Plan::ALL.into_iter().rev().find(|plan| plan.pairs() <= pairs)
    }

    /// How many pairs it has in all.
    pub fn pairs(self) -> usize {
        self.looks.last().map_or(0, |look| look.pairs)
    }

    /// Its looks, in order; the last is after all pairs.
    pub fn looks(self) -> &'static [Look] {
        self.looks
    }

    /// Whether it looks after this many pairs, including looks after the plan.
    pub fn is_look(self, pairs: usize) -> bool {
        self.all_looks().any(|(look, _)| look == pairs)
    }

    /// The first look after more than `pairs` pairs, including looks after the plan.
    pub fn next_look(self, pairs: usize) -> Option<usize> {
        self.all_looks().map(|(look, _)| look).find(|look| *look > pairs)
    }

    /// All looks, with the bound of the table where there is one.
    fn all_looks(self) -> impl Iterator<Item = (usize, Option<u32>)> {
        let most = match self.continuation {
            Continuation::Bets => self.pairs(),
            Continuation::Reserve => self.most_pairs(),
        };
        let after = (self.pairs() + 1..=most).filter(move |pairs| pairs.is_multiple_of(self.pairs() / 2));
        self.looks.iter().map(|look| (look.pairs, Some(look.bound))).chain(after.map(|pairs| (pairs, None)))
    }

    /// Probability of rejecting on one side that the first `pairs` pairs may spend.
    fn granted(self, pairs: usize) -> f64 {
        let (planned, pairs, most) = (self.pairs() as f64, pairs as f64, self.most_pairs() as f64);
        match self.continuation {
            Continuation::Bets => LEVEL * pairs / planned,
            Continuation::Reserve if pairs <= planned => LEVEL * (pairs / planned).min(1.0 - RESERVED),
            Continuation::Reserve => LEVEL * (1.0 - RESERVED * (most - pairs) / (most - planned)),
        }
    }

    /// The bound of the table on W⁺ after this many pairs; none between looks.
    pub fn bound(self, pairs: usize) -> Option<u32> {
        self.looks.iter().find(|look| look.pairs == pairs).map(|look| look.bound)
    }

    /// The bounds for these pairs, one for each look so far: the table's, or the bound that the order of their
    /// magnitudes demands where that is higher.
    ///
    /// All signs are redrawn many times. Each look may reject as many of those paths as linear spending grants, less
    /// those that were rejected before. The measured path is one of them and, with the magnitudes given, as probable as
    /// any other; so it is rejected with at most the probability spent, on average over draws (Hemerik and Goeman, TEST
    /// 27 (2018)). The draw that is used is always the same; its error is about 0.06 percentage points of the 2.5.
    /// Every path also counts mirrored, so that one bound serves both sides.
    pub fn bounds_for(self, d: &[f64]) -> Vec<u32> {
        let looks: Vec<(usize, Option<u32>)> = self.all_looks().take_while(|(pairs, _)| *pairs <= d.len()).collect();
        let steps: Vec<(usize, f64)> = looks.iter().map(|(pairs, _)| (*pairs, self.granted(*pairs))).collect();
        let table: Vec<u32> = looks.iter().map(|(_, bound)| bound.unwrap_or(0)).collect();
        sign_flip_bounds(d, &steps, &table)
    }

    /// What the pairs so far show; none between looks.
    pub fn evidence(self, d: &[f64]) -> Option<Evidence> {
        self.is_look(d.len()).then(|| Some(Evidence::of(d, *self.bounds_for(d).last()?)))?
    }

    /// [`Plan::evidence`] with the table's bound, for simulations of many comparisons: not for a verdict.
    pub(super) fn evidence_of_table(self, d: &[f64]) -> Option<Evidence> {
        Some(Evidence::of(d, self.bound(d.len())?))
    }
}

/// For each of `looks` (pairs so far, and the probability of rejecting on one side that they may spend) the bound on W⁺
/// that the magnitudes at hand demand, or that of `least` where it is higher. The looks ascend, at most to `d.len()`
/// pairs.
pub(super) fn sign_flip_bounds(d: &[f64], looks: &[(usize, f64)], least: &[u32]) -> Vec<u32> {
    let Some((last, _)) = looks.last() else { return Vec::new() };
    let signs = sign_paths(&d[..*last]);
    // A path for each side of each assignment of signs.
    let mut stands = vec![true; 2 * ASSIGNMENTS];
    let mut bound_at = |(&(pairs, granted), least): (&(usize, f64), &u32)| {
        let ranks = ranks_by_time(&d[..pairs]);
        let mut w_plus = vec![0_u16; ASSIGNMENTS];
        for (rank, signs) in ranks.iter().zip(&signs) {
            for (sum, sign) in w_plus.iter_mut().zip(signs) {
                *sum += rank & sign;
            }
        }
        let all_ranks: u16 = ranks.iter().sum();
        let both_sides = || w_plus.iter().copied().chain(w_plus.iter().map(|sum| all_ranks - sum));
        let mut standing: Vec<u16> = both_sides().zip(&stands).filter(|(_, stands)| **stands).map(|(w, _)| w).collect();
        let granted = granted * stands.len() as f64;
        let may_go = (granted as usize).saturating_sub(stands.len() - standing.len());
        let (_, largest_that_stays, _) = standing.select_nth_unstable_by_key(may_go, |w| Reverse(*w));
        let bound = (*least).max(u32::from(*largest_that_stays) + 1);
        for (stands, w) in stands.iter_mut().zip(both_sides()) {
            *stands &= u32::from(w) < bound;
        }
        bound
    };
    looks.iter().zip(least).map(&mut bound_at).collect()
}

/// Assignments of signs that are tried. Their rank sums fit 16 bits for up to 361 pairs.
const ASSIGNMENTS: usize = 1 << 15;

/// For each pair its signs in all assignments, as masks: all bits set where positive. The first assignment is the
/// measured one.
fn sign_paths(d: &[f64]) -> Vec<Vec<u16>> {
    let mut rng = fastrand::Rng::with_seed(0);
    let mask = |is_positive: u64| (is_positive as u16).wrapping_neg();
    let mut signs_of = |d: &f64| {
        let mut signs = vec![0; ASSIGNMENTS];
        for chunk in signs.chunks_mut(64) {
            let bits = rng.u64(..);
            for (bit, sign) in chunk.iter_mut().enumerate() {
                *sign = mask(bits >> bit & 1);
            }
        }
        signs[0] = mask(u64::from(*d > 0.0));
        signs
    };
    d.iter().map(&mut signs_of).collect()
}

const fn look(pairs: usize, bound: u32) -> Look {
    Look { pairs, bound }
}

/// Ranks of the magnitudes from 1; among equal magnitudes the earlier pair comes first, whatever the signs.
fn ranks_by_time(d: &[f64]) -> Vec<u16> {
    let mut order: Vec<usize> = (0..d.len()).collect();
    order.sort_by(|&a, &b| d[a].abs().total_cmp(&d[b].abs()));
    let mut ranks = vec![0; d.len()];
    for (rank, pair) in (1..).zip(order) {
        ranks[pair] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs of all pairs, in the order of their magnitudes, to their probability; no longer those that were rejected.
    type Law = Vec<f64>;

    /// One more pair, whose magnitude has any rank among those so far with the same probability, and a fair sign.
    fn with_one_more(law: &Law) -> Law {
        let pairs = law.len().ilog2() + 1;
        let without = |signs: usize, rank: u32| (signs >> (rank + 1) << rank) | (signs & ((1 << rank) - 1));
        let before = |signs: usize| (0..pairs).map(|rank| law[without(signs, rank)]).sum::<f64>();
        (0..2 * law.len()).map(|signs| before(signs) / f64::from(2 * pairs)).collect()
    }

    fn w_plus(signs: usize) -> u32 {
        (0..usize::BITS).map(|rank| (signs >> rank & 1) as u32 * (rank + 1)).sum()
    }

    /// Probability of rejecting on one side up to each of the looks of at most 20 pairs: exact, by the law over all signs.
    fn exact_spending(plan: Plan) -> Vec<f64> {
        let mut law: Law = vec![1.0];
        let mut spent = 0.0;
        let mut spending = Vec::new();
        for pairs in 1..=20 {
            law = with_one_more(&law);
            if let Some(bound) = plan.bound(pairs) {
                for (signs, probability) in law.iter_mut().enumerate() {
                    if w_plus(signs) >= bound {
                        spent += *probability;
                        *probability = 0.0;
                    }
                }
                spending.push(spent);
            }
        }
        spending
    }

    /// The same for all looks, by simulation of the same law; standard error at 2.5 %: 0.035 %.
    fn simulated_spending(plan: Plan, comparisons: u32) -> Vec<f64> {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut rejected = vec![0; plan.looks.len()];
        for _ in 0..comparisons {
            let (mut signs, mut w_plus) = (0_u128, 0);
            let mut looks = plan.looks.iter().enumerate();
            let mut look = looks.next();
            for pairs in 1..=plan.pairs() {
                let (rank, sign) = (rng.u32(..pairs as u32), rng.bool());
                let above = signs >> rank;
                w_plus += above.count_ones() + u32::from(sign) * (rank + 1);
                signs = (above << 1 | u128::from(sign)) << rank | signs & ((1 << rank) - 1);
                if let Some((index, Look { bound, .. })) = look.filter(|(_, look)| look.pairs == pairs) {
                    if w_plus >= *bound {
                        rejected[index] += 1;
                        break;
                    }
                    look = looks.next();
                }
            }
        }
        let cumulated = rejected.iter().scan(0, |sum, rejected| {
            *sum += rejected;
            Some(f64::from(*sum) / f64::from(comparisons))
        });
        cumulated.collect()
    }

    #[test]
    fn the_tables_spend_what_is_granted() {
        for plan in Plan::ALL {
            let exact = exact_spending(plan);
            let comparisons = 200_000;
            let simulated = simulated_spending(plan, comparisons);
            for (index, look) in plan.looks.iter().enumerate() {
                let granted = LEVEL * look.pairs as f64 / plan.pairs() as f64;
                let four_errors = 4.0 * (granted / f64::from(comparisons)).sqrt();
                let spent = simulated[index];
                if let Some(exact) = exact.get(index) {
                    assert!(*exact <= granted && (exact - spent).abs() < four_errors, "{look:?} {exact} {spent}");
                }
                assert!(spent <= granted + four_errors, "{look:?}: {spent} of {granted}");
            }
        }
    }

    #[test]
    fn first_bounds_by_counting() {
        // 8 pairs, W⁺ ≥ 35 of 36: none negative, or the smallest alone. 10 pairs, W⁺ ≥ 53 of 55: nothing, 1 or 2.
        assert!((exact_spending(Plan::ALL[0])[0] - 2.0 / 256.0).abs() < 1e-15);
        assert!((exact_spending(Plan::ALL[2])[0] - 3.0 / 1024.0).abs() < 1e-15);
    }

    /// Probability of rejecting above zero when |d| is given: all 2²⁰ assignments of signs.
    fn spent_with_magnitudes(d: &[f64], bounds: &[u32]) -> f64 {
        let looks = Plan::ALL[0].looks;
        let ranks: Vec<Vec<u16>> = looks.iter().map(|look| ranks_by_time(&d[..look.pairs])).collect();
        let rejects = |signs: &u32| {
            ranks.iter().zip(bounds).any(|(ranks, bound)| {
                let shares = ranks.iter().enumerate().map(|(pair, rank)| (signs >> pair & 1) * u32::from(*rank));
                shares.sum::<u32>() >= *bound
            })
        };
        (0..1 << 20).filter(rejects).count() as f64 / f64::from(1 << 20)
    }

    /// With signs from another generator state than the bounds', no more than is granted is spent up to each look,
    /// including those after the plan.
    #[test]
    fn going_on_spends_what_the_plan_kept_back() {
        let plan = Plan::ALL[0];
        let mut rng = fastrand::Rng::with_seed(9);
        let even: Vec<f64> = (0..50).map(|_| rng.f64() + 0.01).collect();
        let growing: Vec<f64> = even.iter().zip(0..).map(|(d, pair)| d * 1.1_f64.powi(pair)).collect();
        for d in [even, growing] {
            let looks: Vec<usize> =
                plan.all_looks().map(|(pairs, _)| pairs).filter(|pairs| *pairs <= d.len()).collect();
            assert_eq!(looks, [8, 10, 12, 14, 16, 18, 20, 30, 40, 50]);
            let bounds = plan.bounds_for(&d);
            let ranks: Vec<Vec<u16>> = looks.iter().map(|look| ranks_by_time(&d[..*look])).collect();
            let paths = 200_000;
            let mut rejected = vec![0; looks.len()];
            for _ in 0..paths {
                let signs = rng.u64(..);
                let w_plus = |ranks: &[u16]| -> u32 {
                    ranks.iter().enumerate().map(|(pair, rank)| (signs >> pair & 1) as u32 * u32::from(*rank)).sum()
                };
                if let Some(look) = ranks.iter().zip(&bounds).position(|(ranks, bound)| w_plus(ranks) >= *bound) {
                    rejected[look..].iter_mut().for_each(|count| *count += 1);
                }
            }
            for (look, rejected) in looks.iter().zip(rejected) {
                let (spent, granted) = (f64::from(rejected) / f64::from(paths), plan.granted(*look));
                // The paths here and those that the bounds come from.
                let error = (granted / f64::from(paths) + granted / (2 * ASSIGNMENTS) as f64).sqrt();
                assert!(spent <= granted + 4.0 * error, "{look} pairs: {spent} of {granted}");
            }
        }
        assert!((plan.granted(20) - 0.024).abs() < 1e-15 && (plan.granted(plan.most_pairs()) - LEVEL).abs() < 1e-15);
        assert_eq!(Plan::ALL.map(Plan::most_pairs), [80, 160, 160]);
        // Without a reserve all of it is spent in the plan.
        assert!((plan.with(Continuation::Bets).granted(20) - LEVEL).abs() < 1e-15);
    }

    #[test]
    fn growing_noise_raises_the_bounds() {
        let plan = Plan::ALL[0];
        let table: Vec<u32> = plan.looks.iter().map(|look| look.bound).collect();
        let growing: Vec<f64> = (0..20).map(|pair| (-1.5_f64).powi(pair)).collect();
        assert!(spent_with_magnitudes(&growing, &table) > 0.033);
        let bounds = plan.bounds_for(&growing);
        assert!(bounds.iter().zip(&table).all(|(bound, table)| bound >= table), "{bounds:?}");
        let four_errors = 4.0 * (LEVEL / (2 * ASSIGNMENTS) as f64).sqrt();
        let spent = spent_with_magnitudes(&growing, &bounds);
        assert!((0.022..LEVEL + four_errors).contains(&spent), "{spent}");
        // A look does not change its mind later.
        assert_eq!(plan.bounds_for(&growing[..15]), bounds[..4]);
        // Shrinking noise would allow lower bounds; they stay those of the table.
        let shrinking: Vec<f64> = growing.iter().map(|d| 1.0 / d).collect();
        assert_eq!(plan.bounds_for(&shrinking), table);
    }

    #[test]
    fn ties_and_zeros_break_nothing() {
        let plan = Plan::ALL[2];
        assert_eq!(plan.bounds_for(&[0.0; 80]).len(), plan.looks.len());
        let evidence = plan.evidence(&[0.0; 80]).unwrap();
        assert_eq!((evidence.interval, evidence.answer(0.005)), (Interval { low: 0.0, high: 0.0 }, Some(Answer::Same)));
        let evidence = plan.evidence(&[0.01; 10]).unwrap();
        assert_eq!((evidence.estimate, evidence.answer(0.005)), (0.01, Some(Answer::Faster)));
    }

    #[test]
    fn answers() {
        let evidence = |estimate, low, high| Evidence { estimate, interval: Interval { low, high } };
        assert_eq!(evidence(0.02, 0.001, 0.04).answer(0.005), Some(Answer::Faster));
        assert_eq!(evidence(-0.02, -0.04, -0.001).answer(0.005), Some(Answer::Slower));
        assert_eq!(evidence(0.002, 0.001, 0.004).answer(0.005), Some(Answer::Same));
        // Above zero, but too little to count and not surely the same.
        assert_eq!(evidence(0.004, 0.001, 0.007).answer(0.005), None);
        assert_eq!(evidence(0.02, -0.001, 0.04).answer(0.005), None);
    }

    #[test]
    fn plans_are_found_by_their_pairs() {
        assert_eq!(Plan::for_pairs(40).map(Plan::pairs), Some(40));
        assert_eq!(Plan::for_pairs(30), None);
        assert_eq!(Plan::largest_within(79).map(Plan::pairs), Some(40));
        assert_eq!(Plan::largest_within(19), None);
        assert!(Plan::ALL[0].is_look(14) && !Plan::ALL[0].is_look(15));
        assert_eq!(Plan::ALL[0].evidence(&[1.0; 15]), None);
        for plan in Plan::ALL {
            assert!(plan.looks.is_sorted_by(|a, b| a.pairs < b.pairs && a.bound < b.bound));
        }
    }
}
