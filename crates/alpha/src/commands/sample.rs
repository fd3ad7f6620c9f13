//! `alpha sample`: continues a prompt.

use std::path::PathBuf;

use alpha_data::Progress as _;
use alpha_nn::programs::decode_program;
use alpha_train::{
    TrainError, checkpoint,
    inspect::sampler::{Sample, SampleOptions, Sampler, decode, prompt_ids},
};
use clap::Args;

use super::model::{Model, choose_backend, open_backend};
use crate::{
    exit::Failure,
    flags::{
        train::BackendFlags,
        value::{count, number, path, size},
    },
    output,
    progress::Progress,
    resolve::in_range,
};

/// The flags of `alpha sample`.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase")]
pub(crate) struct Flags {
    /// Folder of the model: a checkpoint, or any in Hugging Face layout
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub(crate) checkpoint: PathBuf,
    /// Start of the text; token ids where the model has no tokenizer
    #[arg(long, value_name = "TEXT", default_value = "The ", allow_hyphen_values = true)]
    pub(crate) prompt: String,
    /// Tokens to generate at most; the end-of-text token ends earlier
    #[arg(long, value_name = "N", value_parser = size, default_value = "200")]
    pub(crate) steps: usize,
    /// Temperature; 0 takes the likeliest token
    #[arg(long, value_name = "X", value_parser = number, default_value = "0.8")]
    pub(crate) temp: f64,
    /// Choose among this many likeliest tokens; 0: among all
    #[arg(long, value_name = "N", value_parser = count, default_value = "40")]
    pub(crate) topk: u64,
    /// Choose among the likeliest tokens with this probability together
    #[arg(long, value_name = "P", value_parser = number, default_value = "1")]
    pub(crate) topp: f64,
    /// Seed of the random stream
    #[arg(long, value_name = "N", value_parser = count, default_value = "1")]
    pub(crate) seed: u64,
    /// Print one JSON object, with the tokens and how far each choice was from another
    #[arg(long, action = clap::ArgAction::Set, default_value = "false")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) backend: BackendFlags,
}

/// Version of the object that `--json` prints.
const SCHEMA: &str = "alpha.sample/1";

/// Checks the flags and samples.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    in_range("temp", flags.temp, 0.0.., "at least 0")?;
    in_range("topp", flags.topp, f64::MIN_POSITIVE..=1.0, "above 0 and at most 1")?;
    let choice = choose_backend(&flags.backend)?;
    let progress = Progress::new(0);
    progress.watch();
    let model = Model::open(&flags.checkpoint)?;
    let mut backend = open_backend(&choice)?;
    let tokenizer = model.tokenizer.as_ref();
    let prompt = prompt_ids(&flags.prompt, tokenizer, model.config.vocab).map_err(|error| {
        let failure = Failure::from(error);
        // The tokenizer only knows that some text is not in its vocabulary.
        if tokenizer.is_some() { failure.hint("give a prompt that the model knows with `--prompt`") } else { failure }
    })?;
    if prompt.len() > model.config.block {
        output::note(&format!(
            "warning: the prompt has {} tokens, and the model reads {} at a time: it sees only the last of them",
            prompt.len(),
            model.config.block
        ));
    }
    let programs = [model.config.block, 1].map(|rows| decode_program(&model.config, &model.layout, rows).0);
    let sizes = programs[0].sizes().max(programs[1].sizes());
    backend.prepare(&sizes, &[&programs[0], &programs[1]]).map_err(TrainError::from)?;
    checkpoint::load_finite_params(&flags.checkpoint, &model.layout, &mut *backend)?;
    let options = SampleOptions {
        steps: flags.steps,
        temp: flags.temp as f32,
        topk: flags.topk as usize,
        topp: flags.topp as f32,
        seed: flags.seed,
    };
    let is_end = |token| tokenizer.is_some_and(|tokenizer| tokenizer.is_end(token));
    let mut sampler = Sampler::new(&model.config, &model.layout, tokenizer);
    let Sample { tokens, margins, prefill_tok_s, decode_tok_s } =
        sampler.sample(&mut *backend, &prompt, &options, &is_end, &|done| {
            progress.update("sampling", done as u64, options.steps as u64);
            true
        })?;
    progress.finish();
    let written = match tokens.split_last() {
        Some((last, before)) if is_end(*last) => before,
        _ => &tokens,
    };
    let text = decode(&prompt, written, tokenizer)?;
    if flags.json {
        // The end-of-text token was chosen, so it is one of the tokens, but it is not in the text.
        let object = serde_json::json!({
            "schema": SCHEMA, "prompt": flags.prompt, "text": text, "tokens": tokens, "margins": margins,
            "prefill_tok_s": prefill_tok_s, "decode_tok_s": decode_tok_s,
        });
        output::print(&format!("{object}\n"))?;
    } else {
        output::print(&output::printable(&format!("{}{text}\n", flags.prompt)))?;
    }
    let count = written.len();
    output::note(&format!("{count} tokens | prefill {prefill_tok_s:.0} tok/s | decode {decode_tok_s:.0} tok/s"));
    Ok(())
}
