//! How often the verdict is wrong on programs that do not differ, how often it finds those that do, and how large the
//! published numbers are.
//!
//! ```text
//! cargo run --release -p pairbench --example false_verdicts [-- comparisons [noise.csv]]
//! ```
//!
//! The noise is that of `tests/noise/pairs.csv` and the models of `tests/noise/models.rs`; another file has the same columns,
//! `series,d`. Everything is seeded: the same file gives the same lines. The short form that always runs is
//! `tests/false_verdicts.rs`.
#![expect(clippy::print_stdout, reason = "an example that prints its table")]

use std::{env, error::Error, fs, thread};

use pairbench::stats::{
    conditional::conditional,
    e_process::EProcess,
    robust::median,
    sequential::{Continuation, Plan},
};

#[path = "../tests/noise/models.rs"]
mod models;

use self::models::{CONFIRMATION_LEVEL, Looks, Model, Pairs, confirmation, measured, normal};

/// Half a percent counts.
const EPSILON: f64 = 0.005;

fn main() -> Result<(), Box<dyn Error>> {
    let comparisons: usize = env::args().nth(1).map_or(Ok(20_000), |count| count.parse())?;
    let text = match env::args().nth(2) {
        Some(path) => fs::read_to_string(path)?,
        None => include_str!("../tests/noise/pairs.csv").to_owned(),
    };
    let noise = measured(&text);
    identical_programs(&noise, comparisons);
    known_effects(comparisons / 10);
    published_numbers(comparisons / 10);
    Ok(())
}

fn percent(count: usize, of: usize) -> f64 {
    100.0 * count as f64 / of as f64
}

fn identical_programs(noise: &[f64], comparisons: usize) {
    println!("Identical programs, {comparisons} comparisons a row: two-sided false verdicts, and attempts that land");
    println!("{:12} {:>5} {:>11} {:>11} {:>9}", "noise", "pairs", "in the plan", "going on", "landed");
    thread::scope(|scope| {
        let rows = Model::ALL.map(|model| {
            scope
                .spawn(move || Plan::ALL.map(|plan| identical_programs_row(model, plan, noise, comparisons)).join("\n"))
        });
        for row in rows {
            println!("{}", row.join().expect("a model's thread does not panic"));
        }
    });
    println!();
}

fn identical_programs_row(model: Model, plan: Plan, noise: &[f64], comparisons: usize) -> String {
    let looks = Looks::of(plan);
    let mut pairs = Pairs::new(model, noise, 1);
    let (mut in_plan, mut wrong, mut landed) = (0, 0, 0);
    for _ in 0..comparisons {
        pairs.begin();
        let found = looks.compare(|| pairs.next_d(), true, EPSILON);
        in_plan += usize::from(found.rejected_after.is_some_and(|after| after <= plan.pairs()));
        wrong += usize::from(found.rejected_after.is_some());
        landed += usize::from(found.faster_after.is_some_and(|after| confirmation(|| pairs.next_d(), after).confirmed));
    }
    let [in_plan, wrong, landed] = [in_plan, wrong, landed].map(|count| percent(count, comparisons));
    format!("{:12} {:>5} {in_plan:>9.2} % {wrong:>9.2} % {landed:>7.3} %", format!("{model:?}"), plan.pairs())
}

/// Power against "no difference" in normal noise with an sd of 3.5 % a pair, as plans were judged before they had a
/// reserve, and as they are now; and what continuing adds, by bets at 5 % and by the reserve.
fn known_effects(comparisons: usize) {
    let sd = 0.035;
    println!("Normal noise, sd 3.5 % a pair, {comparisons} comparisons a row: per cent that rejects above zero");
    println!(
        "{:>7} {:>5} {:>9} {:>9} {:>12} {:>12}",
        "effect", "pairs", "plan then", "plan now", "bets then", "going on now"
    );
    for effect in [0.01, 0.02, 0.05] {
        for plan in Plan::ALL {
            let (then, now) = (Looks::of(plan.with(Continuation::Bets)), Looks::of(plan));
            let mut rng = fastrand::Rng::with_seed(3);
            let (mut by_plan_then, mut by_plan, mut by_bets, mut by_looks) = (0, 0, 0, 0);
            for _ in 0..comparisons {
                let d: Vec<f64> = (0..plan.most_pairs()).map(|_| effect + sd * normal(&mut rng)).collect();
                let mut next = d.iter().copied();
                let rejects = then.compare(|| next.next().unwrap_or(0.0), false, 0.0).faster_after.is_some();
                by_plan_then += usize::from(rejects);
                let bets_win = |pairs: usize| EProcess::of(&d[..pairs]).ln_e_above(0.0) >= (2.0_f64 / 0.05).ln();
                by_bets += usize::from(rejects || (plan.pairs() + 1..=d.len()).any(bets_win));
                let mut next = d.iter().copied();
                let after = now.compare(|| next.next().unwrap_or(0.0), true, 0.0).faster_after;
                by_plan += usize::from(after.is_some_and(|after| after <= plan.pairs()));
                by_looks += usize::from(after.is_some());
            }
            let [a, b, c, e] = [by_plan_then, by_plan, by_bets, by_looks].map(|count| percent(count, comparisons));
            println!("{:>5.1} % {:>5} {a:>9.1} {b:>9.1} {c:>12.1} {e:>12.1}", 100.0 * effect, plan.pairs());
        }
    }
    println!();
}

/// The number in a commit beside the truth: plain, and corrected for having been published.
fn published_numbers(attempts: usize) {
    println!("Numbers in commits, normal noise, plan of 20 pairs, {attempts} attempts a row; as shares of the effect");
    println!("{:>7} {:>6} {:>7} {:>14} {:>14} {:>14}", "effect", "sd", "landed", "plain median", "median", "mean");
    let looks = Looks::of(Plan::ALL[0]);
    for (effect, sd) in [(0.005, 0.0046), (0.005, 0.01), (0.01, 0.01), (0.01, 0.02), (0.01, 0.035), (0.02, 0.035)] {
        let mut rng = fastrand::Rng::with_seed(4);
        let (mut plain, mut corrected) = (Vec::new(), Vec::new());
        for _ in 0..attempts {
            let mut next_d = || effect + sd * normal(&mut rng);
            let Some(after) = looks.compare(&mut next_d, false, EPSILON).faster_after else { continue };
            let outcome = confirmation(&mut next_d, after);
            let Some(found) = conditional(&outcome, CONFIRMATION_LEVEL).filter(|_| outcome.estimate >= EPSILON) else {
                continue;
            };
            plain.push(outcome.estimate / effect);
            corrected.push(found.published(EPSILON) / effect);
        }
        println!(
            "{:>5.1} % {:>4.2} % {:>5.1} % {:>14.2} {:>14.2} {:>14.2}",
            100.0 * effect,
            100.0 * sd,
            percent(plain.len(), attempts),
            median(&plain),
            median(&corrected),
            corrected.iter().sum::<f64>() / corrected.len() as f64
        );
    }
}
