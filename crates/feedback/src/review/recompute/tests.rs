//! A genuine record, and the problems that are found after edits.

use pairbench::draws::Randomization;

use super::*;
use crate::{
    attempt::{
        confirmation::claimed,
        layout::{Basis, Floors},
        plain::{PlainRow, PlainRuns},
    },
    config::Guard,
    parity::{Check, Tier},
};

/// A claim of this repository's history, as it was measured.
const RECORD: &str =
    include_str!("../../../../../perf/ledger/08cc704056acd7ae744a08666eae8bbd11778b28c1b7a16e8243a23f6d25ef9b.json");

fn attempt() -> Attempt {
    let whole: serde_json::Value = serde_json::from_str(RECORD).unwrap();
    let record: AttemptRecord = serde_json::from_value(whole["body"].clone()).unwrap();
    // Fields that records have had since then.
    let floors = Floors { faster_pct: 1.0, sure_pct: 1.0, basis: Basis::Fixed };
    Attempt { rules: RULES, floors: Some(floors), plain: Some(plain_runs()), ..record.attempt }
}

/// Plain runs that show the gain of the record.
fn plain_runs() -> PlainRuns {
    let draws = Randomization { seed: 5 };
    let row = |number: u64| {
        let ms = [100.0 + number as f64 % 3.0, 95.0];
        let number = 3_000_000 + number;
        PlainRow { number, baseline_first: draws.coin(Purpose::Pair, number, 0), ms, log_ratio: (ms[0] / ms[1]).ln() }
    };
    PlainRuns {
        draws,
        steps: plain::steps(60, draws),
        slices: (0..10).map(row).collect(),
        whole: (10..16).map(row).collect(),
        voids: Vec::new(),
        accepted: Some(true),
        refusal: None,
    }
}

/// The configuration that it was measured under, in the parts that matter.
fn config() -> LoopConfig {
    let command = attempt().manifest.command;
    let text = format!(
        "schema = 1\n[build]\ncommand = \"b\"\nartifacts = [\"a\"]\n\
         [workload]\ncommand = '{command}'\nsteps = 60\ntokens_per_step = 128\nweights = \"w-{{step}}\"\n\
         checkpoint = \"c\"\neval = \"e {{checkpoint}}\"\n\
         [trace]\ncommand = '{command}'\nsteps = 30\nkernels = \"k\"\n\
         [sampling]\ngreedy = \"s {{checkpoint}} {{prompt}}\"\nseeded = \"s {{checkpoint}} {{prompt}}\"\nprompts = [\"p\"]\n\
         training = '{command}'\n\
         [guards.memory]\nkind = \"peak_memory\"\nmargin_pct = 5\n\
         [areas.optimizer]\nkernels = [\"adamw\", \"grad_norm\"]\n"
    );
    LoopConfig::parse(&text, None).unwrap()
}

fn problems_of(attempt: &Attempt, config: &LoopConfig) -> Vec<String> {
    let asked = Asked { config, lands: Lands::Claim, earlier_attempts: 1, message: Some("perf: x") };
    problems(attempt, &asked)
}

#[test]
fn a_true_record_follows_from_its_rows() {
    assert_eq!(problems_of(&attempt(), &config()), Vec::<String>::new());
    let claimed = claimed(&attempt()).unwrap();
    assert!((claimed.speedup_pct - 5.52).abs() < 0.005, "{claimed:?}");
}

fn plain_of(attempt: &mut Attempt) -> &mut PlainRuns {
    attempt.plain.as_mut().unwrap()
}

#[test]
fn what_was_edited_is_named() {
    type Edit = fn(&mut Attempt);
    let edits: [(Edit, &str); 30] = [
        (|a| a.plain = None, "there are no plain runs"),
        (|a| plain_of(a).whole.truncate(5), "none ran one after the other"),
        (
            |a| plain_of(a).slices.iter_mut().for_each(|row| (row.ms, row.log_ratio) = ([95.0, 95.0], 0.0)),
            "only_while_measured",
        ),
        (|a| plain_of(a).slices[2].log_ratio = 0.2, "another ratio than its times"),
        (|a| a.floors.as_mut().unwrap().faster_pct = 6.0, "luck of layout"),
        (|a| a.floors.as_mut().unwrap().faster_pct = 0.1, "does not follow from what was measured"),
        (|a| a.guards.clear(), "guard memory of its `loop.toml` was not measured"),
        (|a| a.guards.push(a.guards[0].clone()), "or twice"),
        (|a| a.guards[0].margin_pct = 500.0, "let 500 % through"),
        (|a| a.guards[0].p = 1e-4, "guard memory does not follow"),
        (
            |a| a.pairs.iter_mut().for_each(|pair| pair.peak_memory_bytes[1] = Some(1 << 40)),
            "guard memory does not hold in its pairs",
        ),
        (|a| a.pairs[3].log_ratio = 0.5, "estimate"),
        (|a| a.pairs.iter_mut().for_each(|pair| pair.log_ratio = 0.0), "not FASTER"),
        (|a| a.pairs.retain(|pair| pair.number != 2), "pair 2 is missing"),
        (|a| a.pairs[1].number = 0, "twice"),
        (|a| a.pairs[0].baseline_first ^= true, "coin"),
        (|a| a.pairs[0].seed += 1, "seed"),
        (|a| a.pairs.iter_mut().for_each(|pair| pair.run_log_ratio = -0.05), "moved_work"),
        (|a| a.confirmation = None, "no confirmation"),
        (|a| a.confirmation.as_mut().unwrap().level = 0.5, "was judged at 0.5"),
        (|a| a.confirmation.as_mut().unwrap().level = f64::NAN, "was judged at NaN"),
        (|a| a.confirmation.as_mut().unwrap().planned = 11, "not the 11 planned"),
        (|a| a.confirmation.as_mut().unwrap().p = Some(0.0001), "p is not that"),
        (|a| a.confirmation.as_mut().unwrap().accepted = None, "not accepted"),
        (
            |a| a.confirmation.as_mut().unwrap().pairs.iter_mut().for_each(|pair| pair.log_ratio = -0.01),
            "does not pass",
        ),
        (|a| a.attribution = None, "not attributed"),
        (|a| a.attribution.as_mut().unwrap().kernels.iter_mut().for_each(|kernel| kernel.is_in_area = true), "area"),
        (|a| a.manifest.command.push_str(" --fewer"), "workload of its `loop.toml`"),
        (|a| a.epsilon_pct = 0.1, "ε is 0.1 %"),
        (|a| a.tier = Tier::T1, "parity is not shown"),
    ];
    for (edit, named) in edits {
        let mut attempt = attempt();
        edit(&mut attempt);
        let found = problems_of(&attempt, &config());
        assert!(found.iter().any(|problem| problem.contains(named)), "no `{named}` in {found:?}");
    }
}

#[test]
fn rules_of_parity_are_asked_for_and_allow_what_they_may() {
    let with = |edit: &dyn Fn(&mut Vec<Check>)| {
        let mut attempt = attempt();
        edit(&mut attempt.parity.as_mut().unwrap().checks);
        problems_of(&attempt, &config())
    };
    let found = with(&|checks| checks.retain(|check| check.name != "updates_bits"));
    assert!(found[0].contains("`updates_bits` was not looked at"), "{found:?}");
    let wide = with(&|checks| {
        for check in checks.iter_mut().filter(|check| check.name == "loss_bits") {
            (check.found, check.allowed) = (Some(3.0), 5.0);
        }
    });
    assert!(wide[0].contains("more than the rule does"), "{wide:?}");
    let failed = with(&|checks| checks[0].found = Some(1.0));
    assert!(failed[0].contains("does not hold"), "{failed:?}");
}

#[test]
fn what_its_own_configuration_asks_for_must_be_there() {
    let mut config = config();
    config.guards.insert("build".into(), Guard::BuildTime { margin_pct: 5.0 });
    assert!(problems_of(&attempt(), &config)[0].contains("guard build"), "a guard that was never measured");
    let mut attempt = attempt();
    attempt.guards.push(crate::attempt::guard::judge("build", 5.0, &[0.0; 8], 0.025));
    assert!(problems_of(&attempt, &config)[0].contains("guard build does not follow"), "its numbers are not there");
    attempt.guard_d.insert("build".into(), vec![0.0; 8]);
    assert_eq!(problems_of(&attempt, &config), Vec::<String>::new());
}

/// In older records a pair that the candidate spoiled did not count and has no row; now it has one.
#[test]
fn a_spoiled_pair_is_no_gap() {
    let mut attempt = attempt();
    let spoiled = attempt.pairs.remove(3).number;
    let why = "used 4.0 ms of the processor while it was to wait".to_owned();
    let missing = |attempt: &Attempt| of_pairs(attempt).iter().any(|problem| problem.contains("is missing"));
    assert!(missing(&attempt));
    attempt.voids.push(crate::attempt::VoidPair { number: spoiled, arm: Arm::Candidate, why });
    assert!(!missing(&attempt));
    let lost = PairRow::lost(attempt.draws, spoiled);
    attempt.pairs.insert(3, lost);
    assert_eq!(of_pairs(&attempt), Vec::<String>::new());
}

#[test]
fn many_attempts_lower_the_level() {
    let config = config();
    let asked = Asked { config: &config, lands: Lands::Claim, earlier_attempts: 81, message: None };
    let found = problems(&attempt(), &asked);
    assert!(found[0].contains("allowed is 0.0125 after 81 attempts"), "{found:?}");
}

#[test]
fn what_the_ledger_has_stays() {
    let recorded = attempt();
    assert_eq!(departures(&recorded, &recorded), Vec::<String>::new());
    let mut more = recorded.clone();
    more.guard_d.insert("decode".into(), vec![0.1]);
    assert_eq!(departures(&more, &recorded), Vec::<String>::new(), "rows may be added");
    assert!(departures(&recorded, &more)[0].contains("guard decode"));
    let refused = Attempt { verdict: Some(Verdict::Refused), ..recorded.clone() };
    assert!(departures(&recorded, &refused)[0].contains("REFUSED"), "an answer stays");
    let undecided = Attempt { verdict: Some(Verdict::Undecided), confirmation: None, ..recorded.clone() };
    assert_eq!(departures(&recorded, &undecided), Vec::<String>::new(), "one that was none can come");
    let mut fewer = recorded.clone();
    fewer.pairs.pop();
    assert!(departures(&fewer, &recorded)[0].contains("pairs"));
}

/// The claim is the smaller of the gains over the parent and over the best accepted commit.
#[test]
fn the_smaller_gain_is_claimed() {
    use crate::attempt::reference::{Beside, Reference};
    let beside = |pct: f64, verdict| {
        let estimate =
            Some(Estimate { speedup_pct: pct, ci_low_pct: Some(pct - 1.0), ci_high_pct: Some(pct + 1.0), pairs: 20 });
        Some(Beside { record: String::new(), verdict, estimate })
    };
    let with = |pct: f64, verdict| {
        let parent = beside(-3.0, Verdict::Slower);
        let reference = Reference { commit: "c".into(), parent, candidate: beside(pct, verdict), unmeasured: None };
        Attempt { reference: Some(reference), ..attempt() }
    };
    assert!((claimed(&with(2.0, Verdict::Faster)).unwrap().speedup_pct - 2.0).abs() < 1e-12);
    assert!(claimed(&with(8.0, Verdict::Faster)).unwrap().speedup_pct < 6.0);
    assert_eq!(claimed(&with(0.1, Verdict::Same)), None);
}
