//! Text from a model: prefill, then a token at a time against the key-value cache.
//!
//! Each token has a random number of its own, by seed and position in the text, so that sampling
//! moves no other stream. When the context is full, the older half is dropped and the rest is
//! read again: positions are learned, so that a cache cannot be shifted.

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
    logits: Vec<f32>,
    order: Vec<u32>,
}

impl<'a> Sampler<'a> {
    /// A sampler for this model.
    pub fn new(config: &'a ModelConfig, layout: &'a ParamLayout) -> Sampler<'a> {
        let decode = programs::decode_program(config, layout, 1);
        Sampler { config, layout, decode, logits: vec![0.0; config.vocab], order: Vec::with_capacity(config.vocab) }
    }

    /// Continues `prompt` (at least one token) until `end_of_text` or for `options.steps` tokens.
    pub fn sample(
        &mut self,
        backend: &mut dyn Backend,
        prompt: &[u32],
        options: &SampleOptions,
        end_of_text: Option<u32>,
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
        let start = Instant::now();
        for index in 0..options.steps {
            let token = choose(&mut self.logits, &mut self.order, options, key.uniform(index as u64));
            text.push(token);
            if Some(token) == end_of_text || index + 1 == options.steps {
                break;
            }
            if context == block {
                context = self.prefill(backend, &text[text.len() - block.div_ceil(2)..])?;
            } else {
                let (program, inputs, logits) = &self.decode;
                backend.write_tokens(inputs.tokens.offset, &[token]);
                backend.run(program, &RunArgs { position: context, ..RunArgs::default() }, None)?;
                backend.read(Region::Activations, logits.offset, &mut self.logits);
                context += 1;
            }
        }
        let tokens = text.split_off(prompt.len());
        let decode_tok_s = tokens.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Sample { tokens, prefill_tok_s: prompt.len().min(block) as f64 / prefill_s, decode_tok_s })
    }

    /// Reads `tokens` from position 0 on; leaves the last one's logits.
    fn prefill(&mut self, backend: &mut dyn Backend, tokens: &[u32]) -> Result<usize, TrainError> {
        let (program, inputs, logits) = programs::decode_program(self.config, self.layout, tokens.len());
        backend.write_tokens(inputs.tokens.offset, tokens);
        backend.run(&program, &RunArgs::default(), None)?;
        backend.read(Region::Activations, logits.offset, &mut self.logits);
        Ok(tokens.len())
    }
}

/// Chooses a token by a uniform number in `[0, 1)`. Candidates are ordered by falling logit, ties
/// by rising id, so that the choice is the same on every machine with the same logits.
fn choose(logits: &mut [f32], order: &mut Vec<u32>, options: &SampleOptions, uniform: f64) -> u32 {
    order.clear();
    order.extend(0..logits.len() as u32);
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let keep = if options.temp <= 0.0 { 1 } else { options.topk.min(order.len()) };
    if keep > 0 && keep < order.len() {
        order.select_nth_unstable_by(keep - 1, by_logit);
        order.truncate(keep);
    }
    order.sort_unstable_by(by_logit);
    if options.temp <= 0.0 {
        return order[0];
    }
    let max = f64::from(logits[order[0] as usize]);
    let weight = |id: u32| ((f64::from(logits[id as usize]) - max) / f64::from(options.temp)).exp();
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut kept_total = 0.0;
    let mut kept = order.len();
    for (index, &id) in order.iter().enumerate() {
        kept_total += weight(id);
        if kept_total >= f64::from(options.topp) * total {
            kept = index + 1;
            break;
        }
    }
    let mut rest = uniform * kept_total;
    for &id in &order[..kept] {
        rest -= weight(id);
        if rest < 0.0 {
            return id;
        }
    }
    order[kept - 1]
}

/// A prompt's tokens: encoded, or ids as they stand where there is no tokenizer.
pub fn prompt_ids(prompt: &str, tokenizer: Option<&Tokenizer>, vocab: usize) -> Result<Vec<u32>, TrainError> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.encode(prompt)?),
        None => prompt
            .split_whitespace()
            .map(|word| word.parse().map_err(|_| TrainError::PromptNotIds { word: word.to_owned(), vocab }))
            .collect(),
    }
}

/// Text of generated tokens; ids separated by spaces where there is no tokenizer.
pub fn decode(tokens: &[u32], tokenizer: Option<&Tokenizer>) -> Result<String, TrainError> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.decode(tokens)?),
        None => Ok(tokens.iter().fold(String::new(), |text, id| text + " " + &id.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(logits: &[f32], options: SampleOptions, uniform: f64) -> u32 {
        choose(&mut logits.to_vec(), &mut Vec::new(), &options, uniform)
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
    fn topk_and_topp_cut_the_tail() {
        let logits = [0.0, 5.0, 4.0, -1.0];
        for i in 0..100 {
            let uniform = f64::from(i) / 100.0;
            assert!([1, 2].contains(&draw(&logits, SampleOptions { topk: 2, ..ALL }, uniform)));
            assert_eq!(draw(&logits, SampleOptions { topp: 0.5, ..ALL }, uniform), 1);
        }
    }
}
