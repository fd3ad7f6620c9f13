//! The driver with synthetic pairs: all events of a pair, in milliseconds and without a process.
//!
//! A [`Bench`] is a disk with one file, and an event for the pair of each number. A run of the loop is a call of the
//! driver with the file on that disk; it may die in the middle of a pair, and then writes nothing more.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use pairbench::{
    draws::Randomization,
    pair::{Void, schedule::Blocks},
    verdict::{LOST_D, log_of_pct, round_log},
};

use crate::{
    attempt::{Confirmation, Manifest, PairRow, Revision, Seconds, bookkeeping::FREE_INTERRUPTIONS},
    machine::Machine,
    parity::Tier,
};

/// The outcome of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Measured(f64),
    Void(Arm),
    Crash(Arm),
    /// A line that breaks the protocol.
    Violation,
    /// Its records are unreadable, which is found after the pair has run.
    NoRecords,
    Interrupt,
    /// The loop is killed.
    Kill,
    /// The loop fails for an unknown reason.
    Failure,
    /// It was measured, and the disk is full.
    DiskFull(f64),
}

struct Bench {
    disk: String,
    events: BTreeMap<u64, Event>,
    ran: Vec<u64>,
    is_dead: bool,
    is_full: bool,
    is_stopped: bool,
    pairs_until_spent: usize,
}

impl Bench {
    fn new(attempt: &Attempt, events: &[Event]) -> Bench {
        Bench {
            disk: serde_json::to_string(attempt).unwrap(),
            events: (0..).zip(events.iter().copied()).collect(),
            ran: Vec::new(),
            is_dead: false,
            is_full: false,
            is_stopped: false,
            pairs_until_spent: usize::MAX,
        }
    }

    /// Another run of the loop, with the file that it finds.
    fn restart(&mut self) -> Attempt {
        (self.is_dead, self.is_full) = (false, false);
        let attempt: Attempt = serde_json::from_str(&self.disk).unwrap();
        attempt.check().unwrap();
        attempt
    }

    /// Starts the loop again until it has an answer.
    fn until_answered<T>(&mut self, run: impl Fn(&mut Bench, &mut Attempt) -> Result<T, LoopError>) -> (T, Attempt) {
        loop {
            let mut attempt = self.restart();
            if let Ok(answer) = run(self, &mut attempt) {
                return (answer, attempt);
            }
        }
    }
}

impl PairSource for Bench {
    type Run = Option<f64>;

    fn run(&mut self, number: u64) -> Result<Outcome<Option<f64>>, LoopError> {
        // The disk must already know that the pair has begun.
        let on_disk: Attempt = serde_json::from_str(&self.disk).unwrap();
        assert_eq!(on_disk.bookkeeping.begun.map(|pair| pair.number), Some(number));
        self.ran.push(number);
        let failed = || LoopError::failed("no space left");
        match self.events.get(&number).copied().unwrap_or(Event::Measured(0.0)) {
            Event::Measured(d) => Ok(Outcome::Measured(Some(d))),
            Event::Void(arm) => Ok(Outcome::Void(Void { arm, why: "left a process behind".into() })),
            Event::Crash(arm) => Err(LoopError::trainer(arm, format!("the {} failed (exit 1)", arm.name()))),
            Event::Violation => Err(LoopError::refused("the candidate said `done 5`")),
            Event::NoRecords => Ok(Outcome::Measured(None)),
            Event::Interrupt => Err(LoopError::interrupted("interrupted")),
            Event::Kill => {
                self.is_dead = true;
                Err(failed())
            }
            Event::Failure => Err(failed()),
            Event::DiskFull(d) => {
                self.is_full = true;
                Ok(Outcome::Measured(Some(d)))
            }
        }
    }

    fn add(&mut self, number: u64, d: Option<f64>, attempt: &mut Attempt) -> Result<Option<String>, LoopError> {
        let Some(d) = d else {
            return Err(LoopError::failed("cannot read `metrics.jsonl`").of_trainer(Arm::Candidate));
        };
        let row = PairRow { log_ratio: round_log(d), run_log_ratio: 0.0, ..PairRow::lost(attempt.draws, number) };
        match &mut attempt.confirmation {
            Some(confirmation) => confirmation.pairs.push(row),
            None => attempt.pairs.push(row),
        }
        Ok(None)
    }

    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError> {
        if self.is_dead || self.is_full {
            return Err(LoopError::failed("cannot write"));
        }
        self.disk = serde_json::to_string(attempt).unwrap();
        Ok(())
    }

    fn note(&mut self, _line: &str) {}

    fn is_stop_requested(&self) -> bool {
        self.is_stopped
    }

    fn is_budget_spent(&self) -> bool {
        self.ran.len() >= self.pairs_until_spent
    }
}

fn plan(pairs: usize) -> PairPlan {
    let blocks = Blocks { warmup_steps: 10, block_steps: 5, blocks: 7, steps: 60 };
    PairPlan { blocks, pairs, seconds_per_pair: 1.0, continuation: pairbench::stats::sequential::Continuation::Reserve }
}

fn attempt(pairs: usize) -> Attempt {
    Attempt {
        key: "k".into(),
        is_identical: false,
        hypothesis: None,
        area: None,
        tier: Tier::T1,
        baseline: Revision::default(),
        candidate: Revision::default(),
        machine: Machine::read(),
        manifest: Manifest::default(),
        epsilon_pct: 0.5,
        draws: Randomization { seed: 7 },
        plan: Some(plan(pairs)),
        pairs: Vec::new(),
        voids: Vec::new(),
        parity: None,
        counters: Vec::new(),
        flops: None,
        guards: Vec::new(),
        guard_d: BTreeMap::new(),
        attribution: None,
        confirmation: None,
        floors: None,
        plain: None,
        evidence: String::new(),
        leaner: None,
        reference: None,
        rules: crate::attempt::RULES,
        verdict: None,
        reason: String::new(),
        estimate: None,
        seconds: Seconds::default(),
        bookkeeping: crate::attempt::bookkeeping::Bookkeeping::default(),
    }
}

fn to_confirm(planned: usize) -> Attempt {
    let confirmation = Confirmation {
        planned,
        pairs: Vec::new(),
        voids: Vec::new(),
        attempts: 0,
        over_layouts: false,
        level: 0.025,
        p: None,
        estimate: None,
        accepted: None,
        refusal: None,
    };
    Attempt { confirmation: Some(confirmation), ..attempt(20) }
}

/// The expected result of these events: the numbers that count, in order; none where a third spoiled pair ends the run.
fn expected(events: &[Event], free: usize) -> (Vec<f64>, bool) {
    let (mut d, mut interrupted, mut spoiled) = (Vec::new(), 0, 0);
    for event in events {
        match event {
            Event::Measured(measured) => d.push(round_log(*measured)),
            Event::Void(Arm::Baseline) | Event::Crash(Arm::Baseline) => {}
            Event::Interrupt if interrupted < free => interrupted += 1,
            Event::Interrupt | Event::Kill | Event::Failure | Event::DiskFull(_) => d.push(LOST_D),
            Event::Void(Arm::Candidate) | Event::Crash(Arm::Candidate) | Event::Violation | Event::NoRecords => {
                spoiled += 1;
                d.push(LOST_D);
                if spoiled == gaming::MAX_VOIDS {
                    return (d, true);
                }
            }
        }
    }
    (d, false)
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (-0.1..0.1).prop_map(Event::Measured),
        1 => Just(Event::Void(Arm::Baseline)),
        1 => Just(Event::Void(Arm::Candidate)),
        1 => Just(Event::Crash(Arm::Candidate)),
        1 => Just(Event::Violation),
        1 => Just(Event::NoRecords),
        2 => Just(Event::Interrupt),
        2 => Just(Event::Kill),
        1 => Just(Event::Failure),
        1 => (-0.1..0.1).prop_map(Event::DiskFull),
    ]
}

/// At most two events of the baseline, since three end a comparison as an error of the instrument.
fn is_measurable(events: &[Event]) -> bool {
    events.iter().filter(|event| matches!(event, Event::Void(Arm::Baseline))).count() < gaming::MAX_VOIDS
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// With any events: numbers rise and are never used twice, each pair is in exactly one place, and the pairs that
    /// count are those of the events.
    #[test]
    fn nothing_is_lost_and_nothing_counts_twice(events in prop::collection::vec(any_event(), 1..40)) {
        prop_assume!(is_measurable(&events));
        let (wanted, is_refused) = expected(&events, FREE_INTERRUPTIONS);
        let mut bench = Bench::new(&attempt(80), &events);
        let mut refusal = None;
        while bench.ran.len() < events.len() && refusal.is_none() {
            let mut attempt = bench.restart();
            while let Ok(found) = run_pair(&mut bench, &mut attempt, &Series::Comparison) {
                refusal = found;
                if bench.ran.len() == events.len() || refusal.is_some() {
                    break;
                }
            }
        }
        let mut found = bench.restart();
        found.settle();
        prop_assert!(bench.ran.iter().copied().eq(0..bench.ran.len() as u64), "{:?}", bench.ran);
        prop_assert_eq!(found.d(), wanted);
        prop_assert_eq!(refusal.is_some(), is_refused);
        let of_baseline = found.voids.iter().filter(|void| void.arm == Arm::Baseline).map(|void| void.number);
        let mut places: Vec<u64> = found.pairs.iter().map(|pair| pair.number).chain(of_baseline).collect();
        places.extend(found.bookkeeping.interrupted.iter().map(|pair| pair.number));
        places.sort_unstable();
        prop_assert_eq!(places, bench.ran);
        let lost = found.pairs.iter().filter(|pair| pair.is_lost()).map(|pair| pair.number);
        prop_assert!(lost.eq(found.bookkeeping.lost.iter().map(|lost| lost.pair.number)));
    }

    /// The same for a guard's pairs: once, a number was used twice after an interruption.
    #[test]
    fn guards_use_no_number_twice(events in prop::collection::vec(any_event(), 1..30)) {
        prop_assume!(is_measurable(&events));
        let (wanted, _) = expected(&events, 0);
        let shifted: BTreeMap<u64, Event> =
            events.iter().enumerate().map(|(index, event)| (crate::attempt::guard::FIRST_NUMBER + index as u64, *event)).collect();
        let mut guard = GuardBench(Bench { events: shifted, ..Bench::new(&attempt(20), &[]) });
        let series = Series::Guard("w2".into());
        let mut is_refused = false;
        while guard.0.ran.len() < events.len() && !is_refused {
            let mut attempt = guard.0.restart();
            while let Ok(found) = run_pair(&mut guard, &mut attempt, &series) {
                is_refused = found.is_some();
                if guard.0.ran.len() == events.len() || is_refused {
                    break;
                }
            }
        }
        let mut found = guard.0.restart();
        found.settle();
        let first = crate::attempt::guard::FIRST_NUMBER;
        prop_assert!(guard.0.ran.iter().copied().eq(first..first + guard.0.ran.len() as u64), "{:?}", guard.0.ran);
        prop_assert_eq!(found.guard_d.get("w2").cloned().unwrap_or_default(), wanted);
        prop_assert!(found.pairs.is_empty());
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A confirmation runs the planned pairs, and more to make up for lost ones, however often the loop dies.
    #[test]
    fn a_confirmation_has_its_pairs(events in prop::collection::vec(any_event(), 0..60), planned in 10_usize..40) {
        prop_assume!(is_measurable(&events));
        let mut bench = Bench::new(&to_confirm(planned), &events);
        let (refusal, found) = bench.until_answered(confirm);
        let confirmation = found.confirmation.clone().unwrap();
        prop_assert!(found.pairs.is_empty());
        prop_assert!(bench.ran.is_sorted_by(|a, b| a < b));
        let lost = confirmation.pairs.iter().filter(|pair| pair.is_lost()).count();
        prop_assert_eq!(lost, found.lost_in(&Series::Confirmation));
        if lost > MAX_LOST {
            prop_assert!(refusal.is_some());
        } else if refusal.is_none() {
            prop_assert_eq!(confirmation.planned, planned.max(fewest_pairs(0.025, lost)));
            prop_assert_eq!(confirmation.pairs.len(), confirmation.planned);
        } else {
            let of_candidate = confirmation.voids.iter().filter(|void| void.arm == Arm::Candidate).count();
            prop_assert_eq!(of_candidate, gaming::MAX_VOIDS);
        }
    }
}

/// The same disk and events, for a guard.
struct GuardBench(Bench);

impl PairSource for GuardBench {
    type Run = Option<f64>;

    fn run(&mut self, number: u64) -> Result<Outcome<Option<f64>>, LoopError> {
        self.0.run(number)
    }

    fn add(&mut self, _number: u64, d: Option<f64>, attempt: &mut Attempt) -> Result<Option<String>, LoopError> {
        let d = d.ok_or_else(|| LoopError::failed("cannot read").of_trainer(Arm::Candidate))?;
        attempt.guard_d.entry("w2".into()).or_default().push(round_log(d));
        Ok(None)
    }

    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError> {
        self.0.save(attempt)
    }

    fn note(&mut self, _line: &str) {}
}

/// The answer of these numbers at the plan's looks.
fn by_looks(d: &[f64], pairs: usize) -> (Verdict, usize) {
    let looks = Plan::for_pairs(pairs).unwrap();
    let answered = looks
        .looks()
        .iter()
        .filter(|look| look.pairs <= d.len())
        .find_map(|look| verdict::judge(&d[..look.pairs], looks, 0.5).verdict.map(|verdict| (verdict, look.pairs)));
    answered.unwrap_or((Verdict::Undecided, d.len()))
}

/// Noise around a gain in per cent, with drift over the comparison and a burst in some pairs.
fn noise(seed: u64, gain_pct: f64, sd_pct: f64, drift_pct: f64, pairs: usize) -> Vec<f64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut normal = || (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    (0..pairs)
        .map(|pair| {
            let burst = if pair % 9 == 8 { 5.0 } else { 1.0 };
            log_of_pct(gain_pct + drift_pct * (pair as f64 / pairs as f64 - 0.5) + burst * sd_pct * normal())
        })
        .collect()
}

proptest! {
    // Each case draws signs for every look: some tens of milliseconds.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The answer is that of the numbers that count, at the plan's looks: interruptions change nothing.
    #[test]
    fn resuming_gives_the_answer_of_an_uninterrupted_run(
        (seed, gain, sd, drift) in (any::<u64>(), -2.0..3.0, 0.2..2.0, -3.0..3.0),
        trouble in prop::collection::vec(any_event(), 0..12),
        place in 0_usize..20,
    ) {
        let mut events: Vec<Event> = noise(seed, gain, sd, drift, 40).into_iter().map(Event::Measured).collect();
        let is_trouble = |event: &Event| !matches!(event, Event::Measured(_) | Event::Violation | Event::NoRecords);
        let of_loop = |event: &Event| is_trouble(event) && !matches!(event, Event::Void(_) | Event::Crash(_));
        events.splice(place..place, trouble.into_iter().filter(of_loop));
        let (wanted, _) = expected(&events, FREE_INTERRUPTIONS);
        let mut bench = Bench::new(&attempt(20), &events);
        let ((verdict, _), found) = bench.until_answered(|bench, attempt| compare(bench, attempt, &plan(20)));
        prop_assert_eq!((verdict, found.pairs.len()), by_looks(&wanted, 20));
        prop_assert_eq!(&found.d()[..], &wanted[..found.pairs.len()]);
    }
}

/// The call that ran the last planned pair failed before it judged them.
#[test]
fn a_plan_that_a_lost_pair_completes_is_judged_there() {
    let cases =
        [(15_583_579_102_244_072_073, 1.745, Verdict::Slower), (15_592_321_145_397_125_207, 0.2, Verdict::Undecided)];
    for (seed, sd, answer) in cases {
        let mut events: Vec<Event> = noise(seed, 0.384, sd, 0.496, 40).into_iter().map(Event::Measured).collect();
        events.splice(18..18, [Event::Kill, Event::Failure]);
        assert_eq!(by_looks(&expected(&events, 0).0[..20], 20), (answer, 20));
        let mut bench = Bench::new(&attempt(20), &events);
        let ((verdict, _), mut found) = bench.until_answered(|bench, attempt| compare(bench, attempt, &plan(20)));
        assert_eq!((verdict, found.pairs.len()), (answer, 20));
        // Asked once more, the loop continues what it has judged.
        found.decide(verdict, "");
        compare(&mut bench, &mut found, &plan(20)).unwrap();
        assert_eq!(found.pairs.len() > 20, answer == Verdict::Undecided);
    }
}

#[test]
fn three_spoiled_pairs_refuse_and_three_of_the_baseline_are_no_verdict() {
    let mut events = vec![Event::Measured(0.01), Event::Crash(Arm::Candidate), Event::Void(Arm::Candidate)];
    events.push(Event::Violation);
    let mut bench = Bench::new(&attempt(20), &events);
    let ((verdict, reason), found) = bench.until_answered(|bench, attempt| compare(bench, attempt, &plan(20)));
    assert_eq!((verdict, found.pairs.len(), bench.ran.len()), (Verdict::Refused, 4, 4));
    assert!(reason.contains("said `done 5`"), "{reason}");

    let mut bench = Bench::new(&attempt(20), &[Event::Void(Arm::Baseline); 3]);
    let error = compare(&mut bench, &mut attempt(20), &plan(20)).unwrap_err();
    assert!(error.to_string().contains("the baseline cannot be measured"), "{error}");
    let found = bench.restart();
    assert_eq!((found.voids.len(), found.pairs.len()), (3, 0));
}

/// A crash ends the command, and the pair is recorded.
#[test]
fn a_crash_is_an_error_that_counts() {
    let mut bench = Bench::new(&attempt(20), &[Event::Measured(0.01), Event::Crash(Arm::Candidate)]);
    let error = compare(&mut bench, &mut attempt(20), &plan(20)).unwrap_err();
    assert!(error.to_string().contains("the candidate failed"), "{error}");
    let found = bench.restart();
    assert_eq!(found.d(), [0.01, LOST_D]);
    assert_eq!(found.bookkeeping.lost[0].why, "the candidate failed (exit 1)");
    assert_eq!(found.next_number_of(&Series::Comparison), 2);
}

/// A gain that every pair shows survives a killed loop; a confirmation of ten pairs then takes two more than planned.
#[test]
fn a_clear_gain_survives_a_kill() {
    let mut events: Vec<Event> = noise(1, 5.0, 0.5, 0.0, 40).into_iter().map(Event::Measured).collect();
    events[3] = Event::Kill;
    let mut bench = Bench::new(&attempt(20), &events);
    let ((verdict, _), found) = bench.until_answered(|bench, attempt| compare(bench, attempt, &plan(20)));
    assert_eq!((verdict, found.pairs.len()), (Verdict::Faster, 14));
    let mut bench = Bench::new(&to_confirm(10), &events);
    let (refusal, found) = bench.until_answered(confirm);
    let confirmation = found.confirmation.unwrap();
    assert_eq!((refusal, confirmation.pairs.len()), (None, 12));
    assert!(pairbench::stats::confirmation::confirm(&confirmation.d(), 0.025).confirmed);
}

/// A trainer that ends bad pairs as a user would wins nothing in the confirmation, at its level.
#[test]
fn interruptions_are_paid_for() {
    let mut interrupted = attempt(20);
    let level = |attempt: &Attempt| crate::attempt::confirmation::level(1, attempt);
    assert!((level(&interrupted) - 0.025).abs() < 1e-12);
    for number in 0..5 {
        interrupted.bookkeeping.begun = None;
        interrupted.interrupt(PairOf { series: Series::Comparison, number });
    }
    assert_eq!((interrupted.bookkeeping.interrupted.len(), interrupted.pairs.len()), (3, 2));
    assert!((level(&interrupted) - 0.025 / 64.0).abs() < 1e-12);
    let mut confirmed = to_confirm(10);
    confirmed.interrupt(PairOf { series: Series::Confirmation, number: 8 });
    assert_eq!(confirmed.confirmation.unwrap().d(), [LOST_D]);
}

#[test]
fn the_budget_and_a_stop_are_seen_before_a_pair() {
    let mut bench = Bench { pairs_until_spent: 5, ..Bench::new(&attempt(20), &[]) };
    let ((verdict, reason), found) = bench.until_answered(|bench, attempt| compare(bench, attempt, &plan(20)));
    assert_eq!((verdict, found.pairs.len()), (Verdict::Undecided, 5));
    assert!(reason.starts_with("the budget is used up"), "{reason}");
    let mut bench = Bench { is_stopped: true, ..Bench::new(&attempt(20), &[]) };
    let stopped = compare(&mut bench, &mut attempt(20), &plan(20));
    assert!(stopped.is_err_and(|error| error.kind == ErrorKind::Interrupted) && bench.ran.is_empty());
}

/// A plan that is used up continues in the next call, by as many pairs, but not by itself because its last pair was
/// lost.
#[test]
fn a_used_up_plan_goes_on_when_asked() {
    let events: Vec<Event> = noise(3, 0.2, 6.0, 0.0, 80).into_iter().map(Event::Measured).collect();
    let mut killed = events.clone();
    killed[19] = Event::Kill;
    for (events, calls) in [(events, 1), (killed, 2)] {
        let mut bench = Bench::new(&attempt(20), &events);
        let ((verdict, reason), found) = bench.until_answered(|bench, attempt| compare(bench, attempt, &plan(20)));
        let pairs = found.pairs.len();
        assert_eq!((verdict, pairs), by_looks(&found.d(), 20), "{calls} calls: {reason}");
        let mut found = found;
        found.verdict = None;
        if pairs == 20 {
            let (verdict, _) = compare(&mut bench, &mut found, &plan(20)).unwrap();
            assert!(verdict != Verdict::Undecided || found.pairs.len() == 40, "{verdict:?} {}", found.pairs.len());
        }
    }
}

#[test]
fn absurd_states_are_refused_by_name() {
    let with = |change: fn(&mut Attempt)| {
        let mut attempt = to_confirm(10);
        attempt.pairs = (0..3)
            .map(|number| PairRow {
                log_ratio: 0.01,
                run_log_ratio: 0.0,
                ..PairRow::lost(Randomization { seed: 7 }, number)
            })
            .collect();
        attempt.check().unwrap();
        change(&mut attempt);
        attempt.check().unwrap_err().to_string()
    };
    let plan = |change: fn(&mut PairPlan)| {
        let mut attempt = attempt(20);
        change(attempt.plan.as_mut().unwrap());
        attempt.check().unwrap_err().to_string()
    };
    assert!(plan(|plan| plan.pairs = 1_000_000_000_000_000_000).contains("1000000000000000000 pairs"));
    assert!(plan(|plan| plan.blocks.blocks = u64::MAX).contains("do not fit"));
    assert!(plan(|plan| plan.blocks.warmup_steps = 61).contains("do not fit"));
    assert!(plan(|plan| plan.seconds_per_pair = f64::NAN).contains("do not fit"));
    assert!(with(|a| a.pairs[1].log_ratio = f64::NAN).contains("impossible numbers in pair 1"));
    assert!(with(|a| a.pairs[1].log_ratio = -60.0).contains("impossible numbers in pair 1"));
    assert!(with(|a| a.pairs[1].turns_s = f64::INFINITY).contains("impossible numbers in pair 1"));
    assert!(with(|a| a.pairs[1].number = 0).contains("pair 0 twice"));
    assert!(with(|a| a.pairs[1].number = u64::MAX).contains("a number that no pair has"));
    assert!(with(|a| a.confirmation.as_mut().unwrap().planned = 1 << 60).contains("pairs, where at most"));
    assert!(with(|a| a.confirmation.as_mut().unwrap().level = 0.5).contains("a level"));
    assert!(with(|a| a.epsilon_pct = f64::NAN).contains("smallest gain"));
    assert!(with(|a| drop(a.guard_d.insert("w2".into(), vec![f64::INFINITY]))).contains("guard"));
    assert!(with(|a| a.pairs = vec![a.pairs[0].clone(); 1001]).contains("1001 pairs"));
}
