//! Text from a model: prefill, then a token at a time against the key-value cache.
//!
//! Each token has a random number of its own, by seed and position in the text, so that sampling
//! changes no other stream. When the context is full, the older half is dropped and the rest is
//! read again: positions are learned, so a cache cannot be shifted.

use std::time::Instant;

use alpha_data::Tokenizer;
use alpha_nn::{ModelConfig, ParamLayout, programs};
use alpha_tensor::{
    Backend, Program, Region, RunArgs, Tensor,
    rng::{Key, Purpose},
};

use crate::TrainError;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Tokens to generate at most.
    pub steps: usize,
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temp: f32,
    /// Keep this many likeliest tokens; 0 keeps all.
    pub topk: usize,
    /// Keep the likeliest tokens with this probability together (Holtzman et al., 2020,
    /// section 3.1); 1 keeps all.
    pub topp: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SampleOptions {
    fn default() -> SampleOptions {
        SampleOptions { steps: 200, temp: 0.8, topk: 40, topp: 1.0, seed: 1 }
    }
}

/// What was generated, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// New tokens, the prompt not among them.
    pub tokens: Vec<u32>,
    /// For each token, how far the choice was from another one. Greedy: the gap between the largest and the second
    /// largest logit, infinite where there is only one. Drawn: how much probability would have to move, the least of
    /// three: from the random number to an edge of the token's interval beyond which another token lies; between the
    /// token and a neighbour in the order of candidates; to the cut of `topp`. 1 where no other token could be drawn.
    pub margins: Vec<f64>,
    /// Tokens a second while reading the prompt.
    pub prefill_tok_s: f64,
    /// Tokens a second while writing.
    pub decode_tok_s: f64,
}

/// Generates from a model whose parameters are in a prepared backend.
pub struct Sampler<'a> {
    config: &'a ModelConfig,
    layout: &'a ParamLayout,
    decode: (Program, programs::Inputs, Tensor),
    /// Ids that a token may have.
    known_ids: usize,
    logits: Vec<f32>,
    order: Vec<u32>,
}

impl<'a> Sampler<'a> {
    /// A sampler for this model. It never chooses an id that pads the vocabulary beyond the tokenizer's.
    pub fn new(config: &'a ModelConfig, layout: &'a ParamLayout, tokenizer: Option<&Tokenizer>) -> Sampler<'a> {
        let decode = programs::decode_program(config, layout, 1);
        let known_ids = tokenizer.map_or(config.vocab, |tokenizer| tokenizer.vocab_size().min(config.vocab));
        Sampler {
            config,
            layout,
            decode,
            known_ids,
            logits: vec![0.0; config.vocab],
            order: Vec::with_capacity(config.vocab),
        }
    }

    /// Continues `prompt` (at least one token) until a token that `is_end`, for `options.steps` tokens, or until `goes_on`, asked with
    /// the number of new tokens before each, says no.
    pub fn sample(
        &mut self,
        backend: &mut dyn Backend,
        prompt: &[u32],
        options: &SampleOptions,
        is_end: &dyn Fn(u32) -> bool,
        goes_on: &dyn Fn(usize) -> bool,
    ) -> Result<Sample, TrainError> {
        if let Some(&token) = prompt.iter().find(|&&token| token as usize >= self.config.vocab) {
            return Err(TrainError::PromptToken { token, vocab: self.config.vocab });
        }
        if prompt.is_empty() {
            return Err(TrainError::EmptyPrompt);
        }
        let key = Key::new(options.seed, Purpose::Sample);
        let block = self.config.block;
        let mut text = prompt.to_vec();
        let start = Instant::now();
        let mut context = self.prefill(backend, &text[text.len().saturating_sub(block)..])?;
        let prefill_s = start.elapsed().as_secs_f64();
        let mut margins = Vec::new();
        let start = Instant::now();
        for index in 0..options.steps {
            if !goes_on(index) {
                break;
            }
            // Ids that pad the vocabulary stand for no text.
            let logits = &self.logits[..self.known_ids];
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(TrainError::NonfiniteLogits);
            }
            let Choice { token, margin } = choose(logits, &mut self.order, options, key.uniform(index as u64));
            text.push(token);
            margins.push(margin);
            if is_end(token) || index + 1 == options.steps {
                break;
            }
            if context == block {
                context = self.prefill(backend, &text[text.len() - block.div_ceil(2)..])?;
            } else {
                let (program, inputs, logits) = &self.decode;
                backend.write_tokens(inputs.tokens.offset, &[token])?;
                backend.run(program, &RunArgs { position: context, ..RunArgs::default() }, None)?;
                backend.read(Region::Activations, logits.offset, &mut self.logits)?;
                context += 1;
            }
        }
        let tokens = text.split_off(prompt.len());
        let decode_tok_s = tokens.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Sample { tokens, margins, prefill_tok_s: prompt.len().min(block) as f64 / prefill_s, decode_tok_s })
    }

    /// Reads `tokens` from position 0 on; leaves the last one's logits.
    fn prefill(&mut self, backend: &mut dyn Backend, tokens: &[u32]) -> Result<usize, TrainError> {
        let (program, inputs, logits) = programs::decode_program(self.config, self.layout, tokens.len());
        backend.write_tokens(inputs.tokens.offset, tokens)?;
        backend.run(&program, &RunArgs::default(), None)?;
        backend.read(Region::Activations, logits.offset, &mut self.logits)?;
        Ok(tokens.len())
    }
}

/// A token, and how far the choice was from another one; see [`Sample::margins`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    token: u32,
    margin: f64,
}

/// Chooses a token by a uniform number in `[0, 1)`. Candidates are ordered by falling logit, ties
/// by rising id, so that the choice is the same on every machine with the same logits.
fn choose(logits: &[f32], order: &mut Vec<u32>, options: &SampleOptions, uniform: f64) -> Choice {
    let is_greedy = options.temp <= 0.0;
    let keep = match options.topk {
        _ if is_greedy => 1,
        0 => logits.len(),
        topk => topk.min(logits.len()),
    };
    sort_candidates(logits, order, keep);
    let logit = |index: usize| f64::from(logits[order[index] as usize]);
    if is_greedy {
        let margin = if order.len() > 1 { logit(0) - logit(1) } else { f64::INFINITY };
        return Choice { token: order[0], margin };
    }
    let weight = |index: usize| ((logit(index) - logit(0)) / f64::from(options.temp)).exp();
    let total: f64 = (0..keep).map(weight).sum();
    let threshold = f64::from(options.topp) * total;
    let mut kept_total = 0.0;
    let mut kept = keep;
    for index in 0..keep {
        kept_total += weight(index);
        if kept_total >= threshold {
            kept = index + 1;
            break;
        }
    }
    let mut rest = uniform * kept_total;
    let mut chosen = kept - 1;
    for index in 0..kept {
        if rest < weight(index) {
            chosen = index;
            break;
        }
        rest -= weight(index);
    }
    // The least distance to another choice, as a share: to an edge of the interval beyond which another token lies,
    let mut margin = 1.0f64;
    let mut is_near = |distance: f64, whole: f64| margin = margin.min(distance / whole);
    if chosen > 0 {
        is_near(rest, kept_total);
        is_near(weight(chosen - 1) - weight(chosen), kept_total); // to a neighbour that changes places with it,
    }
    if chosen + 1 < kept {
        is_near(weight(chosen) - rest, kept_total);
    }
    if chosen + 1 < order.len() {
        is_near(weight(chosen) - weight(chosen + 1), kept_total);
    }
    if options.topp < 1.0 {
        is_near(kept_total - threshold, total); // or to another number of candidates.
        is_near(threshold - (kept_total - weight(kept - 1)), total);
    }
    Choice { token: order[chosen], margin: margin.max(0.0) }
}

/// Orders the `keep` likeliest ids, and one more: the margin of a choice depends on how near the first that is cut comes.
fn sort_candidates(logits: &[f32], order: &mut Vec<u32>, keep: usize) {
    order.clear();
    order.extend(0..logits.len() as u32);
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if keep + 1 < order.len() {
        order.select_nth_unstable_by(keep, by_logit);
        order.truncate(keep + 1);
    }
    order.sort_unstable_by(by_logit);
}

/// A prompt's tokens: encoded, or the ids that it lists where there is no tokenizer.
pub fn prompt_ids(prompt: &str, tokenizer: Option<&Tokenizer>, vocab: usize) -> Result<Vec<u32>, TrainError> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.encode(prompt)?),
        None => prompt
            .split_whitespace()
            .map(|word| word.parse().map_err(|_| TrainError::PromptNotIds { word: word.to_owned(), vocab }))
            .collect(),
    }
}

/// The text of tokens that were generated after `prompt`. Without a tokenizer it is their ids, each after a space.
pub fn decode(prompt: &[u32], tokens: &[u32], tokenizer: Option<&Tokenizer>) -> Result<String, TrainError> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.decode_after(prompt, tokens)?),
        None => Ok(tokens.iter().fold(String::new(), |text, id| text + " " + &id.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draw(logits: &[f32], options: SampleOptions, uniform: f64) -> u32 {
        choose(logits, &mut Vec::new(), &options, uniform).token
    }

    const ALL: SampleOptions = SampleOptions { steps: 1, temp: 1.0, topk: 0, topp: 1.0, seed: 1 };

    #[test]
    fn frequencies_are_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0];
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let mut counts = [0.0; 3];
        for i in 0..10_000 {
            counts[draw(&logits, ALL, f64::from(i) / 10_000.0) as usize] += 1e-4;
        }
        for (count, logit) in counts.into_iter().zip(logits) {
            assert!((count - f64::from(logit).exp() / total).abs() < 1e-3);
        }
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_likeliest() {
        assert_eq!(draw(&[0.0, 3.0, 3.0], SampleOptions { temp: 0.0, ..ALL }, 0.99), 1);
    }

    #[test]
    fn margins_are_distances_to_another_choice() {
        let check = |logits: &[f32], options: SampleOptions, uniform, expected: (u32, f64)| {
            let Choice { token, margin } = choose(logits, &mut Vec::new(), &options, uniform);
            assert!(token == expected.0 && (margin - expected.1).abs() < 1e-6, "{token} {margin}, not {expected:?}");
        };
        let greedy = SampleOptions { temp: 0.0, ..ALL };
        check(&[1.0, 4.0, 3.5], greedy, 0.9, (1, 0.5));
        check(&[2.0, 2.0], greedy, 0.9, (0, 0.0));
        assert_eq!(choose(&[2.0], &mut Vec::new(), &greedy, 0.9), Choice { token: 0, margin: f64::INFINITY });
        // Probabilities 0.2, 0.5, 0.3, and so intervals: token 1 to 0.5, token 2 to 0.8, token 0 to 1.
        let logits = [0.2f32, 0.5, 0.3].map(f32::ln);
        check(&logits, ALL, 0.1, (1, 0.2)); // the next likeliest has 0.2 less
        check(&logits, ALL, 0.45, (1, 0.05));
        check(&logits, ALL, 0.53, (2, 0.03));
        check(&logits, ALL, 0.65, (2, 0.1)); // token 0 has 0.1 less
        check(&logits, ALL, 0.99, (0, 0.1)); // nothing lies beyond 1
        // Beyond the last candidate nothing lies, but the first that was cut may take its place.
        check(&logits, SampleOptions { topk: 1, ..ALL }, 0.99, (1, 0.2 / 0.5));
        check(&logits, SampleOptions { topk: 2, ..ALL }, 0.99, (2, 0.1 / 0.8));
        check(&[1.0], ALL, 0.5, (0, 1.0));
        // Half would do: the second is kept, or not, for very little.
        check(&logits, SampleOptions { topp: 0.51, ..ALL }, 0.3, (1, 0.01));
        check(&logits, SampleOptions { topp: 0.79, ..ALL }, 0.3, (1, 0.01));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8192))] // few are near another choice

        /// Logits that move by at most `delta` change no share by more than a factor of e^(2·delta/temp).
        #[test]
        fn a_choice_with_margin_survives_small_changes(
            logits in prop::collection::vec(-3.0f32..3.0, 1..12),
            noise in prop::collection::vec(-1.0f32..1.0, 12),
            (uniform, temp, topk, topp) in (0.0f64..1.0, 0.3f32..2.0, 0usize..12, 0.05f32..1.3),
            exponent in -6i32..0,
        ) {
            let delta = 10f32.powi(exponent);
            let options = SampleOptions { temp, topk, topp: topp.min(1.0), ..ALL };
            let before = choose(&logits, &mut Vec::new(), &options, uniform);
            let moved: Vec<f32> = logits.iter().zip(&noise).map(|(logit, noise)| logit + noise * delta).collect();
            let after = choose(&moved, &mut Vec::new(), &options, uniform);
            let possible = f64::exp(2.0 * f64::from(delta / temp)) - 1.0 + 2e-6; // for rounding
            prop_assert!(before.token == after.token || before.margin <= 2.0 * possible, "{before:?}, {after:?}");
            let greedy = SampleOptions { temp: 0.0, ..options };
            let [before, after] = [&logits, &moved].map(|logits| choose(logits, &mut Vec::new(), &greedy, uniform));
            prop_assert!(before.token == after.token || before.margin <= 2.0 * f64::from(delta) + 1e-6);
        }
    }

    #[test]
    fn topk_and_topp_cut_the_tail() {
        let logits = [0.0, 5.0, 4.0, -1.0];
        for i in 0..100 {
            let uniform = f64::from(i) / 100.0;
            assert!([1, 2].contains(&draw(&logits, SampleOptions { topk: 2, ..ALL }, uniform)));
            assert_eq!(draw(&logits, SampleOptions { topp: 0.5, ..ALL }, uniform), 1);
        }
    }
}
