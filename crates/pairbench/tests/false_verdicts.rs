//! How often the verdict is wrong on programs that do not differ, in a short form: plans alone and going on after them,
//! and whole attempts. The long form is `examples/false_verdicts.rs`.

use std::thread;

use pairbench::stats::sequential::Plan;

#[path = "noise/models.rs"]
mod models;

use self::models::{Looks, Model, Pairs, confirmation, measured};

const NOISE: &str = include_str!("noise/pairs.csv");
/// Comparisons with each model and plan; those of more pairs take longer.
const COMPARISONS: [usize; 3] = [480, 120, 60];
/// The smallest gain that counts.
const EPSILON: f64 = 0.005;

#[derive(Default, Debug)]
struct Counts {
    comparisons: usize,
    wrong_in_plan: usize,
    wrong: usize,
    landed: usize,
}

fn of_model(model: Model, measured: &[f64]) -> Counts {
    let mut counts = Counts::default();
    for (plan, comparisons) in Plan::ALL.into_iter().zip(COMPARISONS) {
        let looks = Looks::of(plan);
        let mut pairs = Pairs::new(model, measured, 1);
        for _ in 0..comparisons {
            pairs.begin();
            let found = looks.compare(|| pairs.next_d(), true, EPSILON);
            counts.wrong += usize::from(found.rejected_after.is_some());
            counts.wrong_in_plan += usize::from(found.rejected_after.is_some_and(|pairs| pairs <= plan.pairs()));
            let lands = |after| confirmation(|| pairs.next_d(), after).confirmed;
            counts.landed += usize::from(found.faster_after.is_some_and(lands));
        }
        counts.comparisons += comparisons;
    }
    counts
}

/// At most so many of `count` are expected to happen at this rate in all but one of a thousand test runs.
fn most_at(rate: f64, count: usize) -> usize {
    let expected = rate * count as f64;
    (expected + 3.1 * expected.sqrt() + 1.0) as usize
}

#[test]
fn identical_programs_are_rarely_told_apart_and_hardly_ever_land() {
    let noise = measured(NOISE);
    let counts: Vec<Counts> = thread::scope(|scope| {
        let noise = &noise;
        let threads = Model::ALL.map(|model| scope.spawn(move || of_model(model, noise)));
        threads.into_iter().map(|thread| thread.join().expect("a model's thread does not panic")).collect()
    });
    for (model, counts) in Model::ALL.into_iter().zip(&counts) {
        let most = most_at(0.053, counts.comparisons);
        assert!(counts.wrong <= most, "{model:?}: {counts:?}, expected at most {most} wrong");
    }
    let sum = |count: fn(&Counts) -> usize| counts.iter().map(count).sum::<usize>();
    let all = sum(|counts| counts.comparisons);
    let (wrong, in_plan, landed) =
        (sum(|counts| counts.wrong), sum(|counts| counts.wrong_in_plan), sum(|counts| counts.landed));
    assert!(wrong <= most_at(0.053, all), "{wrong} of {all}");
    assert!(landed <= most_at(0.001, all), "{landed} of {all}");
    // A test that never rejects would pass all this.
    assert!(in_plan > all / 33, "{in_plan} of {all}");
}
