//! How often the verdict is wrong on programs that do not differ, and how often it finds those that do.
//!
//! ```text
//! cargo run --release -p feedback --example false_verdicts -- ../shared/data/alpha2-history.csv
//! ```
//!
//! The noise is that of the history: log tok/s of rows that ran the binary of the row before (`compile_ms` under 100, the
//! same commit), against that row. A pair is two runs that follow each other; a coin says which of them is the candidate.
//! Everything is seeded: the same file gives the same lines.
#![expect(clippy::print_stdout, reason = "an example that prints its table")]

use std::{env, error::Error, path::Path, thread};

use feedback::stats::{
    confirmation::confirm,
    e_process::EProcess,
    robust::mad_sd,
    sequential::{Answer, Evidence, Plan},
    signed_rank::walsh_above_zero,
};
use statrs::distribution::{ContinuousCDF, Normal};

const COMPARISONS: usize = 20_000;
const ATTEMPTS: usize = 50_000;
const POWER_COMPARISONS: usize = 1_000;
/// Half a percent counts.
const EPSILON: f64 = 0.005;
/// One-sided level of the confirmation, which has at least ten pairs.
const CONFIRMATION_LEVEL: f64 = 0.025;
const CONFIRMATION_PAIRS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("expected the path of a benchmark history (CSV)")?;
    let noise = HistoryNoise::read(Path::new(&path))?;
    println!(
        "noise: {} runs against the run before; sd of a run {:.1} % robust, {:.1} % pooled; correlation of runs {:.2}\n",
        noise.steps.len(),
        100.0 * noise.robust_sd,
        100.0 * noise.pooled_sd,
        noise.correlation
    );
    identical_programs(&noise);
    going_on(&noise);
    known_effects();
    answers();
    Ok(())
}

/// What the history says about two runs of one binary.
struct HistoryNoise {
    /// ln(tok/s of a run / tok/s of the run before it).
    steps: Vec<f64>,
    robust_sd: f64,
    pooled_sd: f64,
    /// Of AR(1), from the mean squares of steps over one run and over two.
    correlation: f64,
}

impl HistoryNoise {
    fn read(path: &Path) -> Result<HistoryNoise, Box<dyn Error>> {
        let mut reader = csv::Reader::from_path(path)?;
        let headers = reader.headers()?.clone();
        let column = |name| headers.iter().position(|header| header == name).ok_or(format!("no column `{name}`"));
        let (commit, steps) = (column("git_commit")?, column("steps")?);
        let (compile_ms, tok_s) = (column("compile_ms")?, column("avg_tok_s")?);
        let mut chains: Vec<Vec<f64>> = Vec::new();
        let mut before: Option<csv::StringRecord> = None;
        for row in reader.records() {
            let row = row?;
            let Some(speed) = row[tok_s].parse::<f64>().ok().filter(|speed| *speed > 0.0) else { continue };
            let is_same = |before: &csv::StringRecord| {
                before[commit] == row[commit]
                    && before[steps] == row[steps]
                    && row[compile_ms].parse::<f64>().is_ok_and(|ms| ms < 100.0)
            };
            match chains.last_mut().filter(|_| before.as_ref().is_some_and(is_same)) {
                Some(chain) => chain.push(speed.ln()),
                None => chains.push(vec![speed.ln()]),
            }
            before = Some(row);
        }
        let over = |runs: usize| -> Vec<f64> {
            chains
                .iter()
                .flat_map(|chain| chain.windows(runs + 1).map(move |window| window[runs] - window[0]))
                .collect()
        };
        let mean_square = |steps: &[f64]| steps.iter().map(|step| step * step).sum::<f64>() / steps.len() as f64;
        let (one, two) = (over(1), over(2));
        if two.len() < 10 {
            return Err("the history has too few runs of one binary".into());
        }
        Ok(HistoryNoise {
            robust_sd: mad_sd(&one) / 2.0_f64.sqrt(),
            pooled_sd: (mean_square(&one) / 2.0).sqrt(),
            correlation: (mean_square(&two) / mean_square(&one) - 1.0).clamp(0.0, 0.99),
            steps: one,
        })
    }
}

#[derive(Clone, Copy)]
enum Model {
    /// Steps of the history, drawn independently.
    Resampled,
    /// A level that drifts as AR(1) with the history's pooled spread and correlation.
    Drift,
    /// The drift, and on top runs with the history's tails, five times as wide during bursts of other load, which last
    /// ten runs on average and begin every fiftieth.
    Bursts,
    /// As `Resampled`, but ten times as wide at the end of 80 pairs as at the beginning.
    Growing,
}

/// Runs of one program after each other, as pairs.
struct Runs<'a> {
    model: Model,
    noise: &'a HistoryNoise,
    rng: fastrand::Rng,
    drift: f64,
    burst: bool,
    pairs: i32,
}

impl<'a> Runs<'a> {
    fn new(model: Model, noise: &'a HistoryNoise, seed: u64) -> Runs<'a> {
        Runs { model, noise, rng: fastrand::Rng::with_seed(seed), drift: 0.0, burst: false, pairs: 0 }
    }

    /// A new comparison begins somewhere else in the series.
    fn begin(&mut self) {
        self.pairs = 0;
        self.drift = self.stationary_sd() * normal(&mut self.rng);
        self.burst = self.rng.f64() < 1.0 / 6.0;
    }

    /// d of a pair of runs of the same program.
    fn pair(&mut self) -> f64 {
        self.pairs += 1;
        let step = match self.model {
            Model::Resampled => self.step(),
            Model::Growing => self.step() * 10.0_f64.powf(f64::from(self.pairs) / 80.0),
            Model::Drift | Model::Bursts => self.run() - self.run(),
        };
        if self.rng.bool() { step } else { -step }
    }

    /// A step of the history; within a thousandth, so that drawing it twice makes no tie.
    fn step(&mut self) -> f64 {
        self.noise.steps[self.rng.usize(..self.noise.steps.len())] * (1.0 + self.rng.f64() / 1000.0)
    }

    fn run(&mut self) -> f64 {
        let correlation = self.noise.correlation;
        let innovation = self.stationary_sd() * (1.0 - correlation * correlation).sqrt();
        self.drift = correlation * self.drift + innovation * normal(&mut self.rng);
        if matches!(self.model, Model::Drift) {
            return self.drift;
        }
        if self.rng.f64() < if self.burst { 0.1 } else { 0.02 } {
            self.burst = !self.burst;
        }
        self.drift + self.step() * if self.burst { 5.0 } else { 1.0 }
    }

    /// A step over one run has variance 2 σ² (1 − ρ).
    fn stationary_sd(&self) -> f64 {
        self.noise.pooled_sd / (1.0 - self.noise.correlation).sqrt()
    }
}

fn normal(rng: &mut fastrand::Rng) -> f64 {
    // Never 0 or 1, where the quantile is infinite.
    Normal::standard().inverse_cdf((rng.u32(..) as f64 + 0.5) / 2.0_f64.powi(32))
}

/// Pairs up to the first look at which `judge` says something, and what it says; it gets the table's bound.
fn compare<T>(
    plan: Plan,
    mut pair: impl FnMut() -> f64,
    mut judge: impl FnMut(&[f64], u32) -> Option<T>,
) -> (Vec<f64>, Option<T>) {
    let mut d = Vec::with_capacity(plan.pairs());
    for look in plan.looks() {
        d.extend((d.len()..look.pairs).map(|_| pair()));
        if let Some(said) = judge(&d, look.bound) {
            return (d, Some(said));
        }
    }
    (d, None)
}

/// Whether the interval by the table's bound lies above `value`. The plan's own bound is never lower and takes longer to
/// find, so the plan is asked only where the table would let an answer through.
fn is_above_by_table(d: &[f64], value: f64, bound: u32) -> bool {
    walsh_above_zero(&d.iter().map(|d| d - value).collect::<Vec<_>>()) >= bound
}

fn is_below_by_table(d: &[f64], value: f64, bound: u32) -> bool {
    walsh_above_zero(&d.iter().map(|d| value - d).collect::<Vec<_>>()) >= bound
}

fn table_rejects(d: &[f64], bound: u32) -> bool {
    is_above_by_table(d, 0.0, bound) || is_below_by_table(d, 0.0, bound)
}

/// The evidence that rejects "no difference".
fn rejection(plan: Plan, d: &[f64], bound: u32) -> Option<Evidence> {
    table_rejects(d, bound).then(|| plan.evidence(d)).flatten().filter(|evidence| !evidence.interval.contains(0.0))
}

/// The answer, with its estimate.
fn answer(plan: Plan, d: &[f64], bound: u32) -> Option<(Answer, f64)> {
    let may_be_same = is_above_by_table(d, -EPSILON, bound) && is_below_by_table(d, EPSILON, bound);
    let evidence = (table_rejects(d, bound) || may_be_same).then(|| plan.evidence(d)).flatten()?;
    Some((evidence.answer(EPSILON)?, evidence.estimate))
}

fn percent(count: usize, of: usize) -> f64 {
    100.0 * count as f64 / of as f64
}

fn identical_programs(noise: &HistoryNoise) {
    println!(
        "Identical programs: two-sided false verdicts of {COMPARISONS} comparisons (table: without raising bounds), \
         attempts of {ATTEMPTS} that land"
    );
    println!("{:34} {:>5} {:>9} {:>9} {:>9}", "noise", "pairs", "table", "verdict", "landed");
    let models = [
        ("steps drawn independently", Model::Resampled),
        ("drift", Model::Drift),
        ("drift, heavy tails and bursts", Model::Bursts),
        ("noise that grows tenfold (extra)", Model::Growing),
    ];
    thread::scope(|scope| {
        let rows = models.map(|(name, model)| {
            let row = move |plan: Plan| identical_programs_row(name, plan, Runs::new(model, noise, 1));
            scope.spawn(move || Plan::ALL.map(row).join("\n"))
        });
        for row in rows {
            println!("{}", row.join().expect("nothing in it panics"));
        }
    });
    println!();
}

fn identical_programs_row(name: &str, plan: Plan, mut runs: Runs) -> String {
    let (mut by_table, mut wrong, mut landed) = (0, 0, 0);
    for _ in 0..COMPARISONS {
        runs.begin();
        let mut table_rejected = false;
        let (_, verdict) = compare(
            plan,
            || runs.pair(),
            |d, bound| {
                table_rejected |= table_rejects(d, bound);
                rejection(plan, d, bound)
            },
        );
        by_table += usize::from(table_rejected);
        wrong += usize::from(verdict.is_some());
    }
    // A whole attempt: FASTER, then confirmed by fresh pairs.
    for _ in 0..ATTEMPTS {
        runs.begin();
        let (d, verdict) = compare(plan, || runs.pair(), |d, bound| answer(plan, d, bound));
        if matches!(verdict, Some((Answer::Faster, _))) {
            let fresh: Vec<f64> = (0..d.len().max(CONFIRMATION_PAIRS)).map(|_| runs.pair()).collect();
            landed += usize::from(confirm(&fresh, CONFIRMATION_LEVEL).confirmed);
        }
    }
    format!(
        "{name:34} {:>5} {:>7.2} % {:>7.2} % {:>7.3} %",
        plan.pairs(),
        percent(by_table, COMPARISONS),
        percent(wrong, COMPARISONS),
        percent(landed, ATTEMPTS)
    )
}

/// A comparison that goes on with bets after its plan spends a second 5 %.
fn going_on(noise: &HistoryNoise) {
    let mut runs = Runs::new(Model::Resampled, noise, 2);
    for plan in Plan::ALL {
        let (mut by_plan, mut by_bets) = (0, 0);
        for _ in 0..POWER_COMPARISONS {
            runs.begin();
            let (mut d, verdict) = compare(plan, || runs.pair(), |d, bound| rejection(plan, d, bound));
            let mut bets_win = |_: usize| {
                d.push(runs.pair());
                let bets = EProcess::of(&d);
                bets.ln_e_above(0.0).max(bets.ln_e_below(0.0)) >= (2.0_f64 / 0.05).ln()
            };
            by_plan += usize::from(verdict.is_some());
            by_bets += usize::from(verdict.is_none() && (plan.pairs()..200).any(&mut bets_win));
        }
        println!(
            "going on to 200 pairs: {:.1} % by the plan of {}, {:.1} % more by bets at 5 %, of {POWER_COMPARISONS}",
            percent(by_plan, POWER_COMPARISONS),
            plan.pairs(),
            percent(by_bets, POWER_COMPARISONS)
        );
    }
    println!();
}

/// Power against "no difference": what `loop.md` expects of normal noise with an sd of 3.5 % a pair.
fn known_effects() {
    println!("Known effects, normal noise with sd 3.5 % a pair: share of {POWER_COMPARISONS} that rejects above zero");
    println!("{:>7} {:>6} {:>9} {:>9} {:>11} {:>10}", "effect", "pairs", "table", "verdict", "mean pairs", "coverage");
    for effect in [0.01, 0.02, 0.05] {
        for plan in Plan::ALL {
            let mut rng = fastrand::Rng::with_seed(3);
            let (mut by_table, mut found, mut pairs, mut covered) = (0, 0, 0, 0);
            for _ in 0..POWER_COMPARISONS {
                let mut table_rejected = false;
                let pair = || effect + 0.035 * normal(&mut rng);
                let (d, verdict) = compare(plan, pair, |d, bound| {
                    table_rejected |= is_above_by_table(d, 0.0, bound);
                    rejection(plan, d, bound)
                });
                let last = verdict.or_else(|| plan.evidence(&d));
                by_table += usize::from(table_rejected);
                found += usize::from(verdict.is_some_and(|evidence| evidence.interval.is_above(0.0)));
                covered += usize::from(last.is_some_and(|evidence| evidence.interval.contains(effect)));
                pairs += d.len();
            }
            println!(
                "{:>5.1} % {:>6} {:>7.1} % {:>7.1} % {:>11.1} {:>8.1} %",
                100.0 * effect,
                plan.pairs(),
                percent(by_table, POWER_COMPARISONS),
                percent(found, POWER_COMPARISONS),
                pairs as f64 / POWER_COMPARISONS as f64,
                percent(covered, POWER_COMPARISONS)
            );
        }
    }
    println!();
}

/// Answers, and what selection does to their estimates.
fn answers() {
    let (sd, plan) = (0.01, Plan::ALL[1]);
    println!(
        "Answers of {} pairs, normal noise with sd {:.1} % a pair, ε = {:.1} %, of {POWER_COMPARISONS} comparisons; mean \
         estimates of the verdicts FASTER and of their confirmations",
        plan.pairs(),
        100.0 * sd,
        100.0 * EPSILON
    );
    println!(
        "{:>7} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "effect", "FASTER", "SLOWER", "SAME", "UNDECIDED", "verdict", "confirmed"
    );
    for effect in [0.0, 0.005, 0.01, 0.02] {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut pair = || effect + sd * normal(&mut rng);
        let mut answers = Vec::with_capacity(POWER_COMPARISONS);
        let (mut verdicts, mut confirmations) = (Vec::new(), Vec::new());
        for _ in 0..POWER_COMPARISONS {
            let (d, verdict) = compare(plan, &mut pair, |d, bound| answer(plan, d, bound));
            answers.push(verdict.map(|(answer, _)| answer));
            if let Some((Answer::Faster, estimate)) = verdict {
                verdicts.push(estimate);
                let fresh: Vec<f64> = (0..d.len().max(CONFIRMATION_PAIRS)).map(|_| pair()).collect();
                confirmations.push(confirm(&fresh, CONFIRMATION_LEVEL).estimate);
            }
        }
        let share = |answer| percent(answers.iter().filter(|given| **given == answer).count(), POWER_COMPARISONS);
        let mean = |estimates: &[f64]| 100.0 * estimates.iter().sum::<f64>() / estimates.len() as f64;
        println!(
            "{:>5.1} % {:>6.1} % {:>6.1} % {:>6.1} % {:>8.1} % {:>8.2} % {:>8.2} %",
            100.0 * effect,
            share(Some(Answer::Faster)),
            share(Some(Answer::Slower)),
            share(Some(Answer::Same)),
            share(None),
            mean(&verdicts),
            mean(&confirmations)
        );
    }
}
