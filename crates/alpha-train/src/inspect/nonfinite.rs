//! After a step whose loss or gradient is not finite: the first tensor that went bad, and the batch.
//!
//! The update was left out, so the parameters are those that the step began with; running its
//! operations again, one at a time, gives the same bits and shows the first tensor that a
//! NaN or an infinity enters.

use std::path::{Path, PathBuf};

use alpha_data::TrainLoader;
use alpha_nn::{Param, ParamLayout, TrainStep};
use alpha_tensor::{Backend, BackendError, OpCall, Phase, Region, RunArgs, Tensor, op::Access};
use serde_json::json;

use crate::{TrainError, config::TrainConfig, files};

/// Elements that are checked at a time.
const CHUNK: usize = 1 << 16;

/// Describes the first tensor that is not finite: a parameter, or an operation's result.
pub fn find(
    step: &TrainStep,
    loader: &TrainLoader,
    backend: &mut dyn Backend,
    args: RunArgs,
    layout: &ParamLayout,
) -> Result<String, TrainError> {
    if let Some(param) = first_bad_param(layout, backend)? {
        return Ok(format!("parameter `{}`", param.name));
    }
    let rows = step.inputs.tokens.len();
    let (mut tokens, mut targets) = (vec![0; rows], vec![0; rows]);
    for micro_step in 0..step.accum_steps() {
        loader.batch(args.step, micro_step as u32, &mut tokens, &mut targets)?;
        backend.write_tokens(step.inputs.tokens.offset, &tokens)?;
        backend.write_tokens(step.inputs.targets.offset, &targets)?;
        let program = step.program(micro_step);
        let args = RunArgs { micro_step: micro_step as u32, ..args };
        for (index, call) in program.ops().iter().enumerate().filter(|(_, call)| call.phase != Phase::Optimizer) {
            backend.run(&program.only(index), &args, None)?;
            let mut written = Vec::new();
            call.op.clone().visit(&mut |tensor, access| {
                if access != Access::Read {
                    written.push(*tensor);
                }
            });
            for tensor in written {
                if has_nonfinite(backend, &tensor)? {
                    return Ok(describe(call, &tensor, layout));
                }
            }
        }
    }
    Ok("no tensor when run again".to_owned())
}

/// The first parameter with a value that is not finite.
pub fn first_bad_param<'a>(
    layout: &'a ParamLayout,
    backend: &mut dyn Backend,
) -> Result<Option<&'a Param>, BackendError> {
    for param in &layout.params {
        if has_nonfinite(backend, &param.tensor)? {
            return Ok(Some(param));
        }
    }
    Ok(None)
}

fn describe(call: &OpCall, tensor: &Tensor, layout: &ParamLayout) -> String {
    let place = call.layer.map_or(String::new(), |layer| format!(" in layer {layer}"));
    match layout.param_at(tensor.offset).filter(|_| tensor.region == Region::Grads) {
        Some(param) => format!("the gradient of `{}`, written by `{}`", param.name, call.op.name()),
        None => format!("the result [{}, {}] of `{}`{place}", tensor.rows, tensor.cols, call.op.name()),
    }
}

fn has_nonfinite(backend: &mut dyn Backend, tensor: &Tensor) -> Result<bool, BackendError> {
    let mut values = vec![0.0; CHUNK.min(tensor.len())];
    for start in (0..tensor.len()).step_by(CHUNK) {
        let values = &mut values[..CHUNK.min(tensor.len() - start)];
        backend.read(tensor.region, tensor.offset + start, values)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes `nonfinite-<step>.json`: the step's tokens and targets, micro-batch by micro-batch,
/// for replay.
pub fn save_batch(
    run_dir: &Path,
    step: u64,
    loader: &TrainLoader,
    config: &TrainConfig,
    culprit: &str,
) -> Result<PathBuf, TrainError> {
    let rows = loader.shape().tokens();
    let (mut tokens, mut targets) = (vec![0; rows], vec![0; rows]);
    let mut micro_batches = Vec::new();
    for micro_step in 0..config.accum_steps {
        loader.batch(step, micro_step as u32, &mut tokens, &mut targets)?;
        micro_batches.push(json!({ "tokens": tokens, "targets": targets }));
    }
    let path = run_dir.join(format!("nonfinite-{step}.json"));
    let content = json!({
        "step": step,
        "culprit": culprit,
        "batch": config.batch,
        "block": config.block,
        "microBatches": micro_batches,
    });
    files::write_json_atomically(&path, &content)?;
    Ok(path)
}
