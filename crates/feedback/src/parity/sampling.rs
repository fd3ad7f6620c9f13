//! Whether a trainer still writes the same texts from the same weights.
//!
//! A token with a small margin may change when sums are re-associated, and so may everything after it. So T1 compares
//! up to the first such token of the baseline. Programs that print only text have no margins: T1 is T0 then.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Arms, Tier, check::Check};
use crate::{LoopError, parity::trajectory::Trajectory};

/// How a token is chosen, which gives its margin a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The likeliest: the margin is how much larger its logit is than the next.
    Greedy,
    /// Drawn: the margin is how far the drawn number is from that of another token, in probability.
    Seeded,
}

impl Choice {
    /// Rounding may cross smaller margins (`docs/parity.md`).
    fn floor(self) -> f64 {
        match self {
            Choice::Greedy => 1e-3,
            Choice::Seeded => 2e-5,
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Choice::Greedy => "sampling_greedy",
            Choice::Seeded => "sampling_seeded",
        }
    }
}

/// The output of a sampler.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// An object with `tokens`, `margins` and `text`.
    Tokens(Sample),
    /// Anything else.
    Text(Vec<u8>),
}

/// A continuation, token by token.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Sample {
    /// Chosen tokens.
    pub tokens: Vec<u32>,
    /// How clear each choice was; see [`Choice`]. Infinite (`null` in JSON) if there was no other token.
    #[serde(deserialize_with = "numbers_or_null")]
    pub margins: Vec<f64>,
    /// The text of the tokens.
    pub text: String,
}

impl Output {
    /// Reads a sampler's stdout.
    pub fn parse(stdout: &[u8]) -> Result<Output, LoopError> {
        let object = serde_json::from_slice::<Value>(stdout).ok().filter(|value| value.get("tokens").is_some());
        let Some(object) = object else { return Ok(Output::Text(stdout.into())) };
        let wrong = |what: String| {
            LoopError::failed(format!("not what a sampler prints: {what}"))
                .hint("print an object with `text`, `tokens` and a margin for each in `margins`, or the text alone")
        };
        let sample: Sample = serde_json::from_value(object).map_err(|error| wrong(error.to_string()))?;
        let (tokens, margins) = (sample.tokens.len(), sample.margins.len());
        if tokens != margins {
            return Err(wrong(format!("{tokens} tokens and {margins} margins")));
        }
        Ok(Output::Tokens(sample))
    }

    /// Whether it is empty, or repeats one token.
    fn is_dead(&self) -> bool {
        fn is_repetition<T: PartialEq>(units: &[T]) -> bool {
            units.is_empty() || (units.len() > 1 && units.iter().all(|unit| *unit == units[0]))
        }
        match self {
            Output::Tokens(sample) => is_repetition(&sample.tokens),
            Output::Text(text) => is_repetition(text.trim_ascii()),
        }
    }
}

fn numbers_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::INFINITY)).collect())
}

/// Compares continuations of several prompts: `sampling_greedy` or `sampling_seeded`. No check under T2, because
/// another precision may choose other tokens.
pub fn compare(tier: Tier, choice: Choice, samples: &[Arms<Output>]) -> Option<Check> {
    if tier == Tier::T2 {
        return None;
    }
    if samples.is_empty() {
        return Some(Check::unmeasured(choice.rule(), "nothing was sampled"));
    }
    let mut compared = 0;
    let mut differing = Vec::new();
    for (i, Arms { baseline, candidate }) in samples.iter().enumerate() {
        let prompt = i + 1;
        let floor = if tier == Tier::T1 { choice.floor() } else { 0.0 };
        match first_difference(baseline, candidate, floor) {
            Ok(units) => compared += units,
            Err(difference) => differing.push(format!("prompt {prompt}: {difference}")),
        }
    }
    if differing.is_empty() && compared == 0 {
        differing.push("no token was clear enough to be compared".into());
    }
    Some(Check::fails_if_any(choice.rule(), &differing))
}

/// `sampling_alive`: the candidate writes something wherever the baseline does, and the baseline does somewhere. A
/// model that hardly learned repeats one token, and so does a broken sampler.
pub fn alive(samples: &[Arms<Output>]) -> Check {
    let mut dead = Vec::new();
    if samples.iter().all(|sample| sample.baseline.is_dead()) {
        dead.push("the baseline writes nothing, or one token again and again: train its checkpoint longer".to_owned());
    }
    for (number, sample) in samples.iter().enumerate() {
        if sample.candidate.is_dead() && !sample.baseline.is_dead() {
            dead.push(format!("continuation {}: nothing, or one token again and again", number + 1));
        }
    }
    Check::fails_if_any("sampling_alive", &dead)
}

/// Where two continuations part.
#[derive(Debug, thiserror::Error)]
enum Difference {
    #[error("the texts differ")]
    Text,
    /// Counted from 1.
    #[error("token {number} is {}, was {was} by a margin of {margin:.1e}", is.map_or("none".into(), |is| is.to_string()))]
    Token { number: usize, is: Option<u32>, was: u32, margin: f64 },
    #[error("it goes on after the end, or the same tokens have another text")]
    End,
}

/// How many tokens were compared, or where they differ.
fn first_difference(baseline: &Output, candidate: &Output, floor: f64) -> Result<usize, Difference> {
    let (Output::Tokens(one), Output::Tokens(other)) = (baseline, candidate) else {
        return if baseline == candidate { Ok(1) } else { Err(Difference::Text) };
    };
    let clear = one.margins.iter().take_while(|&&margin| margin >= floor).count();
    if let Some(i) = (0..clear).find(|&i| other.tokens.get(i) != Some(&one.tokens[i])) {
        let (is, was, margin) = (other.tokens.get(i).copied(), one.tokens[i], one.margins[i]);
        return Err(Difference::Token { number: i + 1, is, was, margin });
    }
    if clear == one.tokens.len() && (&one.tokens, &one.text) != (&other.tokens, &other.text) {
        return Err(Difference::End);
    }
    Ok(clear)
}

/// Compares the losses of a training run that samples with one of the same trainer that does not: every bit must be the
/// same, else sampling uses random numbers or state of the training.
pub fn same_losses(sampling: &Trajectory, silent: &Trajectory) -> Check {
    let mut differing = Vec::new();
    if sampling.steps() != silent.steps() {
        differing.push(format!("{} steps with sampling, {} without", sampling.steps(), silent.steps()));
    }
    for (i, (with, without)) in sampling.rows.iter().zip(&silent.rows).enumerate() {
        if with.loss.to_bits() != without.loss.to_bits() {
            differing.push(format!("step {}: loss {} with sampling, {} without", i + 1, with.loss, without.loss));
        }
    }
    Check::fails_if_any("sampling_training", &differing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::trajectory::StepRecord;

    fn sample(tokens: &[u32], margins: &[f64]) -> Output {
        let text = format!("{tokens:?}");
        Output::Tokens(Sample { tokens: tokens.into(), margins: margins.into(), text })
    }

    fn text(text: &str) -> Output {
        Output::Text(text.into())
    }

    /// Names of the checks that refuse.
    fn refused(tier: Tier, choice: Choice, pairs: &[(Output, Output)]) -> Vec<String> {
        let samples: Vec<Arms<Output>> = pairs
            .iter()
            .map(|(baseline, candidate)| Arms { baseline: baseline.clone(), candidate: candidate.clone() })
            .collect();
        let checks = compare(tier, choice, &samples).into_iter().chain([alive(&samples)]);
        checks.filter(|check| !check.passed).map(|check| check.name).collect()
    }

    #[test]
    fn what_is_printed_is_read() {
        let printed = br#"{"schema":"alpha.sample/1","prompt":"X","text":"ab","tokens":[3,4],"margins":[0.5,2e-3],"decode_tok_s":9}"#;
        let expected = Sample { tokens: vec![3, 4], margins: vec![0.5, 2e-3], text: "ab".into() };
        assert_eq!(Output::parse(printed).unwrap(), Output::Tokens(expected));
        assert_eq!(Output::parse(b"once upon\xff").unwrap(), Output::Text(b"once upon\xff".to_vec()));
        assert_eq!(Output::parse(b"{}").unwrap(), text("{}"));
        let only = Output::parse(br#"{"text":"","tokens":[1],"margins":[null]}"#).unwrap();
        assert!(matches!(only, Output::Tokens(Sample { margins, .. }) if margins == [f64::INFINITY]));
        for (printed, named) in [
            (r#"{"text":"","tokens":[1],"margins":[]}"#, "1 tokens and 0 margins"),
            (r#"{"text":"","tokens":[-1],"margins":[1]}"#, "invalid value"),
            (r#"{"text":"","tokens":[1]}"#, "missing field `margins`"),
        ] {
            let error = Output::parse(printed.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_token_may_differ_only_from_the_first_unclear_one_on() {
        let clear = sample(&[1, 2, 3], &[1.0, 1.0, 1.0]);
        let unclear = sample(&[1, 2, 3], &[1.0, 9e-4, 1.0]);
        let other_second = sample(&[1, 7, 7], &[1.0; 3]);
        let other_first = sample(&[7, 2, 3], &[1.0; 3]);
        let shorter = sample(&[1, 2], &[1.0; 2]);
        let longer = sample(&[1, 2, 3, 4], &[1.0; 4]);
        let wrong = ["sampling_greedy"];
        for (tier, baseline, candidate, expected) in [
            (Tier::T1, &clear, &clear, &[][..]),
            (Tier::T1, &clear, &other_second, &wrong),
            (Tier::T1, &clear, &shorter, &wrong),
            (Tier::T1, &clear, &longer, &wrong),
            (Tier::T1, &unclear, &other_second, &[]),
            (Tier::T1, &unclear, &other_first, &wrong),
            (Tier::T0, &unclear, &unclear, &[]),
            (Tier::T0, &unclear, &other_second, &wrong),
            (Tier::T2, &clear, &other_second, &[]),
        ] {
            let found = refused(tier, Choice::Greedy, &[(baseline.clone(), candidate.clone())]);
            assert_eq!(found, expected, "{tier}: {baseline:?}, {candidate:?}");
        }
    }

    #[test]
    fn margins_of_drawn_tokens_are_probabilities() {
        let baseline = sample(&[1, 2], &[0.3, 1e-4]);
        let candidate = sample(&[1, 3], &[0.3, 0.1]);
        let pairs = [(baseline, candidate)];
        assert_eq!(refused(Tier::T1, Choice::Seeded, &pairs), ["sampling_seeded"]);
        assert!(refused(Tier::T1, Choice::Greedy, &pairs).is_empty());
    }

    #[test]
    fn equal_tokens_have_equal_text() {
        let one = sample(&[1, 2], &[1.0; 2]);
        let Output::Tokens(mut other) = one.clone() else { unreachable!() };
        other.text.push('!');
        assert_eq!(refused(Tier::T1, Choice::Greedy, &[(one, Output::Tokens(other))]), ["sampling_greedy"]);
    }

    #[test]
    fn text_without_tokens_must_be_equal() {
        for tier in [Tier::T0, Tier::T1] {
            assert!(refused(tier, Choice::Seeded, &[(text("abc"), text("abc"))]).is_empty());
            assert_eq!(refused(tier, Choice::Seeded, &[(text("abc"), text("abd"))]), ["sampling_seeded"]);
            let tokens = sample(&[1, 2], &[1.0; 2]);
            assert_eq!(refused(tier, Choice::Seeded, &[(text("[1, 2]"), tokens)]), ["sampling_seeded"]);
        }
    }

    #[test]
    fn dead_samplers_are_refused_by_every_tier() {
        let dead = [sample(&[], &[]), sample(&[5, 5, 5], &[1.0; 3]), text(" \n"), text("aaaa\n")];
        for tier in [Tier::T0, Tier::T1, Tier::T2] {
            for output in &dead {
                let found = refused(tier, Choice::Greedy, &[(output.clone(), output.clone())]);
                assert!(found.contains(&"sampling_alive".into()), "{tier}: {output:?}");
                // One empty continuation is not a fault; a candidate that writes less than the baseline is.
                let alive = sample(&[5, 6], &[1.0; 2]);
                let same = [(output.clone(), output.clone()), (alive.clone(), alive.clone())];
                assert!(!refused(tier, Choice::Greedy, &same).contains(&"sampling_alive".into()), "{tier}: {output:?}");
                let less = [(alive.clone(), output.clone()), (alive.clone(), alive)];
                assert!(refused(tier, Choice::Greedy, &less).contains(&"sampling_alive".into()), "{tier}: {output:?}");
            }
        }
    }

    #[test]
    fn something_must_have_been_compared() {
        let unclear = sample(&[1, 2], &[1e-9, 1.0]);
        let clear = sample(&[1, 2], &[1.0, 1.0]);
        let pairs = [(unclear.clone(), unclear), (clear.clone(), clear)];
        assert_eq!(refused(Tier::T1, Choice::Greedy, &pairs[..1]), ["sampling_greedy"]);
        assert!(refused(Tier::T1, Choice::Greedy, &pairs).is_empty());
        assert_eq!(refused(Tier::T1, Choice::Greedy, &[]), ["sampling_greedy", "sampling_alive"]);
    }

    #[test]
    fn sampling_on_the_way_changes_no_loss() {
        let losses = |losses: &[f64]| Trajectory {
            rows: losses.iter().map(|&loss| StepRecord { loss, ..StepRecord::default() }).collect(),
            ..Trajectory::default()
        };
        let silent = losses(&[3.0, 2.0, 1.0]);
        assert!(same_losses(&silent.clone(), &silent).passed);
        let check = same_losses(&losses(&[3.0, 2.0, 1.0 + f64::EPSILON]), &silent);
        assert!(!check.passed && check.name == "sampling_training" && check.detail.contains("step 3"), "{check}");
        assert!(!same_losses(&losses(&[3.0, 2.0]), &silent).passed);
    }
}
