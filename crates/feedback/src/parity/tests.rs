//! Each rule at both sides of its limit, on trainings made up for it.

use super::*;
use crate::parity::{trajectory::StepRecord, weights::TensorUpdate};

const STEPS: usize = 60;

/// A training that learns: the loss falls from 4 towards 3.
fn run() -> Trajectory {
    let row = |i: usize| StepRecord {
        loss: 3.0 + (-(i as f64) / 20.0).exp(),
        grad_norm: 1.0 + 0.1 * (i as f64).sin(),
        data_hash: Some(format!("{i:x}")),
        ..StepRecord::default()
    };
    Trajectory { rows: (0..STEPS).map(row).collect(), ..Trajectory::default() }
}

fn tensor(name: &str, len: u64) -> TensorUpdate {
    let norm = 1e-3 * (len as f64).sqrt();
    TensorUpdate {
        name: name.into(),
        len,
        norm,
        dot: -0.01 * norm,
        weight_norm: 1.0,
        projection: 0.7 * norm,
        max_abs: 1e-3,
        is_finite: true,
    }
}

fn moved() -> UpdateCheck {
    UpdateCheck { seed: 7, tensors: vec![tensor("a.bias", 1_000), tensor("a.weight", 1_000_000)] }
}

/// Everything measured, both arms the same.
fn evidence(tier: Tier) -> Evidence {
    let records = Arms { baseline: run(), candidate: run() };
    let pair =
        |seed| PairEvidence { seed, records: records.clone(), held_out: Some(Arms { baseline: 3.1, candidate: 3.1 }) };
    let update = |(from, to)| UpdateEvidence { from, to, moved: Arms { baseline: moved(), candidate: moved() } };
    Evidence {
        tier,
        shows: Shows::ALL,
        steps: STEPS as u64,
        alone: vec![1, 2, 10],
        pairs: (1..=5).map(pair).collect(),
        floor: Floor::default(),
        updates: [(0, 1), (1, 2), (9, 10), (36, 37), (0, 59)].map(update).to_vec(),
    }
}

/// Names of the checks that refuse after something was changed.
fn refused(tier: Tier, change: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = evidence(tier);
    change(&mut evidence);
    let parity = Parity::judge(&evidence);
    let names: Vec<String> = parity.failures().map(|check| check.name.clone()).collect();
    assert_eq!(parity.passed, names.is_empty());
    names
}

/// The candidate's record of a step of the third pair.
fn row(evidence: &mut Evidence, step: usize) -> &mut StepRecord {
    &mut evidence.pairs[2].records.candidate.rows[step - 1]
}

/// The candidate's update of `a.weight`.
fn weight(evidence: &mut Evidence, update: usize) -> &mut TensorUpdate {
    &mut evidence.updates[update].moved.candidate.tensors[1]
}

const EVERY_TIER: [Tier; 3] = [Tier::T0, Tier::T1, Tier::T2];

#[test]
fn the_same_training_passes_every_tier() {
    for tier in EVERY_TIER {
        assert!(refused(tier, |_| ()).is_empty(), "{tier}");
        assert_eq!(tier.to_string().parse::<Tier>().unwrap(), tier);
    }
    assert!("t3".parse::<Tier>().is_err());
}

#[test]
fn steps_may_differ_up_to_their_limit() {
    for (step, limit, name) in
        [(1, 1e-4, "loss_1_5"), (5, 1e-4, "loss_1_5"), (6, 1e-3, "loss_6_20"), (20, 1e-3, "loss_6_20")]
    {
        assert!(refused(Tier::T1, |e| row(e, step).loss *= 1.0 + 0.99 * limit).is_empty(), "{step}");
        assert_eq!(refused(Tier::T1, |e| row(e, step).loss *= 1.0 - 1.01 * limit), [name], "{step}");
    }
    for (step, limit, name) in [(1, 1e-3, "grad_norm_1_5"), (6, 1e-2, "grad_norm_6_20"), (20, 1e-2, "grad_norm_6_20")] {
        assert!(refused(Tier::T1, |e| row(e, step).grad_norm *= 1.0 - 0.99 * limit).is_empty(), "{step}");
        assert_eq!(refused(Tier::T1, |e| row(e, step).grad_norm *= 1.0 + 1.01 * limit), [name], "{step}");
    }
}

#[test]
fn later_differences_may_grow_but_not_begin() {
    for step in [21, 60] {
        assert!(refused(Tier::T1, |e| row(e, step).loss *= 1.0 + 1.9e-5).is_empty());
        assert_eq!(refused(Tier::T1, |e| row(e, step).loss *= 1.0 + 2.1e-5), ["loss_21_on"]);
        assert!(refused(Tier::T1, |e| row(e, step).grad_norm *= 1.0 - 1.9e-5).is_empty());
        assert_eq!(refused(Tier::T1, |e| row(e, step).grad_norm *= 1.0 - 2.1e-5), ["grad_norm_21_on"]);
    }
    // Differences that training amplifies may become large, if they grow gradually.
    let amplified = |factor: f64| {
        refused(Tier::T1, |e| {
            let mut apart = 3.1e-6;
            for step in 20..=60 {
                row(e, step).grad_norm *= 1.0 + apart;
                apart = (apart * factor).min(0.5);
            }
        })
    };
    assert!(amplified(290.0).is_empty());
    assert_eq!(amplified(310.0), ["grad_norm_21_on"]);
    // The loss follows the gradient's drift, by a factor of 30.
    let after_drift = |loss: f64| {
        refused(Tier::T1, |e| {
            row(e, 20).grad_norm *= 1.0 + 1e-5;
            row(e, 30).loss *= 1.0 + loss;
        })
    };
    assert!(after_drift(2.9e-4).is_empty());
    assert_eq!(after_drift(3.1e-4), ["loss_21_on"]);
}

#[test]
fn a_noisy_baseline_widens_the_limits_five_times_but_at_most_twofold() {
    let rules = [(3, 4, "loss_1_5", 1e-4), (20, 15, "loss_6_20", 1e-3), (30, 40, "loss_21_on", 2e-5)];
    for (floor_step, step, name, limit) in rules {
        let noisy = |floor: f64, apart: f64| {
            refused(Tier::T1, |e| {
                let mut other = run();
                other.rows[floor_step - 1].loss *= 1.0 + floor * limit;
                e.floor.include_runs(&run(), &other);
                row(e, step).loss *= 1.0 + apart * limit;
            })
        };
        assert!(noisy(0.31, 1.5).is_empty());
        assert_eq!(noisy(0.29, 1.5), [name]);
        // A floor that would allow any difference.
        assert!(noisy(1e3, 1.99).is_empty());
        assert_eq!(noisy(1e3, 2.01), [name]);
    }
}

#[test]
fn means_and_the_end_may_differ_by_half_a_per_cent() {
    let fifth_up = |by: f64| {
        refused(Tier::T1, |e| {
            // It comes there gradually, in the fifth before.
            for (step, apart) in [(46, 1e-5), (47, 2e-4), (48, 2e-3)] {
                row(e, step).loss *= 1.0 + apart;
            }
            for step in 49..=60 {
                row(e, step).loss *= 1.0 + by;
            }
        })
    };
    assert!(fifth_up(0.0049).is_empty());
    assert_eq!(fifth_up(0.0051), ["loss_fifths"]);
    let held_out_down = |by: f64| refused(Tier::T1, |e| e.pairs[1].held_out.as_mut().unwrap().candidate *= 1.0 - by);
    assert!(held_out_down(0.0049).is_empty());
    assert_eq!(held_out_down(0.0051), ["held_out"]);
}

#[test]
fn for_t0_every_bit_counts() {
    let next = |x: &mut f64| *x = x.next_up();
    assert_eq!(refused(Tier::T0, |e| next(&mut row(e, 60).loss)), ["loss_bits"]);
    assert_eq!(refused(Tier::T0, |e| next(&mut row(e, 1).grad_norm)), ["grad_norm_bits"]);
    assert_eq!(refused(Tier::T0, |e| next(&mut weight(e, 3).projection)), ["updates_bits"]);
    assert_eq!(refused(Tier::T0, |e| next(&mut e.pairs[4].held_out.as_mut().unwrap().candidate)), ["held_out"]);
    let check = Parity::judge(&{
        let mut evidence = evidence(Tier::T0);
        next(&mut row(&mut evidence, 33).loss);
        evidence
    });
    let first = check.failures().next().unwrap().to_string();
    assert!(first.starts_with("loss_bits: found 1.00e0") && first.contains("pair 3, step 33"), "{first}");
}

#[test]
fn seeds_together_decide_t2() {
    let by_seed = |of_seed: fn(f64) -> f64| {
        refused(Tier::T2, |e| {
            for pair in &mut e.pairs {
                let factor = 1.0 + of_seed(pair.seed as f64);
                for row in &mut pair.records.candidate.rows[48..] {
                    row.loss *= factor;
                }
            }
        })
    };
    // Differences −2 … 2 times 1e-3: sd √2.5e-3, half width 2.132·√(2.5/5)e-3 = 1.507e-3 (t table, 4 degrees, 5 %).
    assert!(by_seed(|seed| 1e-3 * (seed - 3.0) + 3.4e-3).is_empty());
    assert_eq!(by_seed(|seed| 1e-3 * (seed - 3.0) + 3.6e-3), ["loss_last_fifth"]);
    assert_eq!(by_seed(|seed| 1e-3 * (seed - 3.0) - 3.6e-3), ["loss_last_fifth"]);
    let held_out =
        |by: f64| refused(Tier::T2, |e| e.pairs.iter_mut().for_each(|p| p.held_out.as_mut().unwrap().candidate *= by));
    assert!(held_out(1.0049).is_empty());
    assert_eq!(held_out(0.9949), ["held_out"]);
    assert_eq!(refused(Tier::T2, |e| e.pairs[1].seed = 1), ["loss_last_fifth", "held_out"], "four seeds");
    assert_eq!(refused(Tier::T2, |e| e.pairs[0].held_out = None), ["held_out"]);
}

/// Four steps of 0.4 % each: every one passes beside the one before it, all together do not beside the anchor.
#[test]
fn drifts_of_several_t2_add_up() {
    let pairs = |from: f64, to: f64| -> Vec<PairEvidence> {
        let of = |seed: u64, by: f64| {
            let mut run = run();
            run.rows.iter_mut().for_each(|row| row.loss *= 1.0 + by + 1e-4 * (seed % 3) as f64);
            run
        };
        let pair = |seed| PairEvidence {
            seed,
            records: Arms { baseline: of(seed, from), candidate: of(seed + 1, to) },
            held_out: Some(Arms { baseline: 3.0 * (1.0 + from), candidate: 3.0 * (1.0 + to) }),
        };
        (1..=6).map(pair).collect()
    };
    let refused = |from: f64, to: f64| -> Vec<String> {
        let checks = beside_anchor(&pairs(from, to), true);
        checks.into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
    };
    for step in 0..4 {
        let at = |step: i32| 0.004 * f64::from(step);
        assert!(refused(at(step), at(step + 1)).is_empty(), "step {step}");
        let together = refused(0.0, at(step + 1));
        assert_eq!(together.len(), if step == 0 { 0 } else { 2 }, "{together:?}");
    }
    let parity = Parity::judge(&evidence(Tier::T2));
    assert!(!is_judged_beside_anchor(&parity));
    assert!(is_judged_beside_anchor(&parity.with(beside_anchor(&pairs(0.0, 0.0), true))));
    assert_eq!(beside_anchor(&pairs(0.0, 0.0), false).len(), 1);
}

#[test]
fn what_always_holds_is_refused_by_name() {
    for tier in EVERY_TIER {
        let has = |name: &str, change: fn(&mut Evidence)| {
            let names = refused(tier, change);
            assert!(names.iter().any(|found| found == name), "{tier}, {name}: {names:?}");
        };
        has("steps", |e| drop(e.pairs[0].records.candidate.rows.pop()));
        has("steps", |e| e.steps = 61);
        has("tokens", |e| row(e, 30).data_hash = Some("other".into()));
        has("tokens", |e| row(e, 30).data_hash = None);
        has("tokens", |e| {
            let Arms { baseline, candidate } = &mut e.pairs[0].records;
            for run in [baseline, candidate] {
                run.rows[9].data_hash = run.rows[8].data_hash.clone();
            }
        });
        has("finite", |e| row(e, 60).loss = f64::NAN);
        has("finite", |e| row(e, 2).grad_norm = f64::INFINITY);
        has("finite", |e| e.pairs[0].held_out.as_mut().unwrap().candidate = f64::NAN);
        has("finite", |e| weight(e, 4).is_finite = false);
        has("loss_moved", |e| {
            let Arms { baseline, candidate } = &mut e.pairs[0].records;
            for run in [baseline, candidate] {
                run.rows.iter_mut().for_each(|row| row.loss = 3.0);
            }
        });
        has("zero_gradient", |e| weight(e, 2).max_abs = 0.0);
        has("zero_gradient", |e| {
            for moved in e.updates.iter_mut().map(|update| &mut update.moved) {
                moved.baseline.tensors[0].max_abs = 0.0;
                moved.candidate.tensors[0].max_abs = 0.0;
            }
        });
        has("updates", |e| drop(e.updates.remove(0)));
        has("updates", |e| drop(e.updates.remove(3)));
        has("updates", |e| drop(e.updates.remove(4)));
        has("updates", |e| drop(e.updates[0].moved.candidate.tensors.pop()));
        has("updates", |e| weight(e, 0).len -= 1);
        has("updates", |e| e.updates[0].moved.candidate.seed = 8);
    }
}

#[test]
fn a_step_without_learning_rate_is_no_zero_gradient() {
    let names = refused(Tier::T1, |e| {
        let still = |t: &mut TensorUpdate| {
            *t = TensorUpdate { name: t.name.clone(), len: t.len, is_finite: true, ..TensorUpdate::default() }
        };
        e.updates[0].moved.baseline.tensors.iter_mut().for_each(still);
        e.updates[0].moved.candidate.tensors.iter_mut().for_each(still);
    });
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn nothing_passes_unmeasured() {
    for tier in EVERY_TIER {
        let without_pairs = refused(tier, |e| e.pairs.clear());
        let rules = Parity::judge(&evidence(tier)).checks.len();
        let of_weights = if tier == Tier::T0 { 3 } else { 5 };
        assert_eq!(without_pairs.len(), rules - of_weights, "{tier}: {without_pairs:?}");
        assert_eq!(refused(tier, |e| e.updates.clear()).len(), of_weights, "{tier}");
        let without_held_out = refused(tier, |e| e.pairs.iter_mut().for_each(|pair| pair.held_out = None));
        assert_eq!(without_held_out, ["held_out"], "{tier}");
    }
}

#[test]
fn updates_may_differ_up_to_their_limit() {
    let limits = [(0, updates::T1_STEP, updates::FLIPS), (4, updates::T1_RUN, 0.0)];
    for (update, limit, flips) in limits {
        // All but a thousandth of the elements are in `a.weight`.
        let elements = 1_001_000.0;
        let projection = limit.projection.hypot(2.0 * f64::sqrt(flips / elements)) * f64::sqrt(elements) * 1e-3;
        let dot = limit.dot + 2.0 * flips / 1e6;
        for (share, allowed) in [(0.99, true), (1.01, false)] {
            for (name, change) in [
                (
                    "updates_projection",
                    &(|t: &mut TensorUpdate| t.projection += share * projection) as &dyn Fn(&mut TensorUpdate),
                ),
                ("updates_norm", &|t| t.norm *= 1.0 - share * limit.norm),
                ("updates_dot", &|t| t.dot += share * dot * t.norm),
            ] {
                let names = refused(Tier::T1, |e| change(weight(e, update)));
                assert_eq!(names, if allowed { vec![] } else { vec![name] }, "update {update}, {name}, {share}");
            }
        }
    }
    assert!(refused(Tier::T2, |e| weight(e, 0).norm *= 1.04).is_empty());
    assert_eq!(refused(Tier::T2, |e| weight(e, 0).norm *= 1.06), ["updates_norm"]);
}

#[test]
fn a_few_flipped_signs_are_rounding() {
    // One sign of a bias of 1000 elements: 2/1000 of its product with weights of equal size.
    assert!(
        refused(Tier::T1, |e| {
            let bias = &mut e.updates[0].moved.candidate.tensors[0];
            bias.dot += 2e-3 * bias.norm;
            bias.projection += 2.0 * bias.max_abs;
        })
        .is_empty()
    );
    // Over the whole run such an element counts like any other.
    assert_eq!(
        refused(Tier::T1, |e| {
            let bias = &mut e.updates[4].moved.candidate.tensors[0];
            bias.dot += 2e-3 * bias.norm;
        }),
        ["updates_dot"]
    );
}

#[test]
fn updates_may_follow_where_losses_have_drifted_but_at_most_twofold() {
    let after_drift = |drift: f64, norm: f64| {
        refused(Tier::T1, |e| {
            row(e, 20).loss *= 1.0 + drift;
            weight(e, 3).norm *= 1.0 + norm;
        })
    };
    assert!(after_drift(7e-5, 6.9e-4).is_empty());
    assert_eq!(after_drift(7e-5, 7.1e-4), ["updates_norm"]);
    assert!(after_drift(9e-4, -9.9e-4).is_empty());
    assert_eq!(after_drift(9e-4, -1.01e-3), ["updates_norm"]);
    // Drift after the drawn step (37) is not an excuse.
    let late = refused(Tier::T1, |e| {
        row(e, 20).loss *= 1.0 + 1e-5;
        row(e, 38).loss *= 1.0 + 2.9e-4;
        weight(e, 3).norm *= 1.0 + 7e-4;
    });
    assert_eq!(late, ["updates_norm"]);
}

/// Half a per cent of error in the reported gradient norm is within its own limits and widens nothing else.
#[test]
fn a_gradient_norm_that_lies_is_no_excuse() {
    let lying = |change: &dyn Fn(&mut Evidence)| {
        refused(Tier::T1, |e| {
            for step in 6..=60 {
                row(e, step).grad_norm *= if step % 2 == 0 { 1.005 } else { 0.995 };
            }
            change(e);
        })
    };
    assert!(lying(&|_| ()).is_empty());
    assert_eq!(lying(&|e| weight(e, 3).norm *= 1.0 + 5.1e-4), ["updates_norm"]);
    assert_eq!(lying(&|e| weight(e, 4).norm *= 1.0 + 1.01e-4), ["updates_norm"]);
    assert_eq!(lying(&|e| row(e, 30).loss *= 1.0 + 6.1e-4), ["loss_21_on"]);
}

#[test]
fn a_noisy_baseline_widens_the_updates_too() {
    let noisy = |noise: f64, apart: f64| {
        refused(Tier::T1, |e| {
            let mut other = moved();
            other.tensors[1].norm *= 1.0 + noise;
            e.floor.include_updates(&moved(), &other);
            weight(e, 0).norm *= 1.0 + apart;
        })
    };
    assert!(noisy(1.6e-4, 7.9e-4).is_empty());
    assert_eq!(noisy(1.4e-4, 7.9e-4), ["updates_norm"]);
    assert_eq!(noisy(0.5, 1.01e-3), ["updates_norm"]);
}

#[test]
fn the_judgement_survives_json() {
    let mut evidence = evidence(Tier::T1);
    row(&mut evidence, 3).loss = f64::NAN;
    let parity = Parity::judge(&evidence).with([Check::fails_if_any("sampling_greedy", &["prompt 1".into()])]);
    let text = serde_json::to_string(&parity).unwrap();
    assert_eq!(serde_json::from_str::<Parity>(&text).unwrap(), parity);
    assert!(!parity.passed && parity.failures().any(|check| check.name == "sampling_greedy"));
}

/// Records of losses alone, as they are printed with a number of decimals.
fn printed(tier: Tier, decimals: i32) -> Evidence {
    let mut evidence = evidence(tier);
    evidence.shows = Shows { grad_norms: false, data_hashes: false, all_digits: false };
    let unit = 10f64.powi(-decimals);
    for pair in &mut evidence.pairs {
        for row in pair.records.baseline.rows.iter_mut().chain(&mut pair.records.candidate.rows) {
            *row = StepRecord {
                loss: (row.loss / unit).round() * unit,
                loss_unit: unit,
                grad_norm: f64::NAN,
                ..StepRecord::default()
            };
        }
    }
    evidence
}

#[test]
fn printed_digits_carry_what_they_can() {
    for (tier, decimals, refused) in [
        (Tier::T0, 6, &[][..]),
        (Tier::T1, 6, &[]),
        (Tier::T0, 4, &[]),
        (Tier::T1, 4, &[]),
        // A thousandth of 4 is more than the first steps may differ by.
        (Tier::T0, 3, &["digits"]),
        (Tier::T1, 3, &["digits"]),
        (Tier::T2, 3, &[]),
        (Tier::T2, 1, &[]),
    ] {
        let parity = Parity::judge(&printed(tier, decimals));
        let failed: Vec<&str> = parity.failures().map(|check| check.name.as_str()).collect();
        assert_eq!(failed, refused, "{tier} with {decimals} decimals: {parity}");
        let is_asked = |name: &str| parity.checks.iter().any(|check| check.name.starts_with(name));
        assert!(!is_asked("tokens") && !is_asked("grad_norm") && is_asked("loss"), "{parity}");
        if refused.is_empty() && tier != Tier::T2 {
            assert!(parity.to_string().contains(&format!("{tier} to the printed digits holds")), "{parity}");
        }
    }
}

/// A difference in the last digit may be one of rounding; a larger one is judged as ever.
#[test]
fn a_last_digit_that_differs_proves_nothing() {
    let refused = |decimals: i32, step: usize, units: f64| {
        let mut evidence = printed(Tier::T1, decimals);
        row(&mut evidence, step).loss += units * 10f64.powi(-decimals);
        Parity::judge(&evidence).failures().map(|check| check.name.clone()).collect::<Vec<_>>()
    };
    // At step 30 the loss is 3.2, at step 2 it is 4.
    assert!(refused(4, 30, 1.0).is_empty() && refused(4, 30, 1.9).is_empty());
    assert_eq!(refused(4, 30, 3.1), ["loss_21_on"]);
    assert!(refused(4, 2, 4.9).is_empty());
    assert_eq!(refused(4, 2, 5.1), ["loss_1_5"]);
    assert!(refused(6, 2, 395.0).is_empty());
    assert_eq!(refused(6, 2, 402.0), ["loss_1_5"]);
    // Bits are those of the printed text.
    let mut evidence = printed(Tier::T0, 4);
    row(&mut evidence, 30).loss += 1e-4;
    assert_eq!(Parity::judge(&evidence).failures().next().unwrap().name, "loss_bits");
}

#[test]
fn a_step_beyond_the_last_counts() {
    let with = |baseline, candidate| {
        refused(Tier::T1, |e| {
            for pair in &mut e.pairs {
                pair.records.baseline.extra_steps = baseline;
                pair.records.candidate.extra_steps = candidate;
            }
        })
    };
    assert!(with(1, 1).is_empty());
    assert_eq!(with(1, 0), ["steps"]);
    assert_eq!(with(0, 1), ["steps"]);
}
