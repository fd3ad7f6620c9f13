//! `alpha check`: gradients on this machine, for a given model.
//!
//! Three computations of one step's gradient are compared: the backend's in f32, the
//! reference's in f64 by the same backward formulas, and slopes of the f64 loss along random
//! directions, which depend on no backward formula.

use std::ops::Range;

use alpha_nn::{ModelConfig, Param, ParamLayout, StepConfig, TrainStep};
use alpha_tensor::{
    Backend, Program, Region, RunArgs,
    cpu_ref::RefBackend,
    rng::{Key, Purpose},
};

use crate::TrainError;

/// Relative L2 distance between the backend's gradient of a tensor and the reference's.
pub const BACKEND_TOLERANCE: f64 = 1e-4;
/// Relative distance between a slope and the reference's gradient along the same direction.
pub const SLOPE_TOLERANCE: f64 = 1e-5;

/// The comparison for one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamCheck {
    /// Its name.
    pub name: String,
    /// ‖backend − reference‖ / ‖reference‖.
    pub backend_error: f64,
    /// |slope − reference| / |reference| along one random direction.
    pub slope_error: f64,
}

impl ParamCheck {
    /// Within both tolerances.
    pub fn is_ok(&self) -> bool {
        self.backend_error <= BACKEND_TOLERANCE && self.slope_error <= SLOPE_TOLERANCE
    }
}

/// Compares the gradients of every parameter. `load` writes the parameters into a backend.
pub fn check(
    backend: &mut dyn Backend,
    config: &ModelConfig,
    batch: usize,
    seed: u64,
    mut load: impl FnMut(&mut dyn Backend, &ParamLayout) -> Result<(), TrainError>,
) -> Result<Vec<ParamCheck>, TrainError> {
    let layout = ParamLayout::new(config);
    let train = TrainStep::new(config, &layout, &step_config(config, batch));
    let program = train.program(0);
    let args = RunArgs { seed, step: 1, update: 1, ..RunArgs::default() };
    let key = Key::new(seed, Purpose::Synthetic);
    let rows = (batch * config.block) as u64;
    let ids = |stream: u64| -> Vec<u32> {
        (0..rows).map(|row| key.fold(stream).below(row, config.vocab as u64) as u32).collect()
    };
    let (tokens, targets) = (ids(0), ids(1));
    let mut set_up = |backend: &mut dyn Backend| -> Result<(), TrainError> {
        backend.prepare(program.sizes(), &[program])?;
        load(backend, &layout)?;
        backend.write_tokens(train.inputs.tokens.offset, &tokens)?;
        backend.write_tokens(train.inputs.targets.offset, &targets)?;
        backend.run(program, &args, None)?;
        Ok(())
    };
    set_up(backend)?;
    let mut reference = RefBackend::<f64>::default();
    set_up(&mut reference)?;
    let gradients = reference.region(Region::Grads).to_vec();
    let mut loss = Loss { parameters: reference.region(Region::Params).to_vec(), reference, program, args };
    // A gradient that is zero but for rounding (the key bias) is measured against all gradients.
    let least = 1e-4 * norm(gradients.iter().copied());
    let check = |(index, param): (usize, &Param)| {
        let range = param.tensor.offset..param.tensor.offset + param.tensor.len();
        let expected = &gradients[range.clone()];
        let mut found = vec![0.0f32; param.tensor.len()];
        backend.read(Region::Grads, param.tensor.offset, &mut found)?;
        let scale = norm(expected.iter().copied()).max(least);
        let backend_error = norm(found.iter().zip(expected).map(|(&f, e)| f64::from(f) - e)) / scale;

        let direction: Vec<f64> =
            (0..expected.len() as u64).map(|i| key.fold(2 + index as u64).normal_pair(i)[0]).collect();
        let along: f64 = direction.iter().zip(expected).map(|(d, g)| d * g).sum();
        let slope = loss.slope(&range, &direction)?;
        let slope_error = (slope - along).abs() / along.abs().max(least);
        Ok(ParamCheck { name: param.name.clone(), backend_error, slope_error })
    };
    layout.params.iter().enumerate().map(check).collect()
}

/// A step that leaves the parameters as they are: learning rate and decay are 0.
fn step_config(config: &ModelConfig, batch: usize) -> StepConfig {
    StepConfig {
        batch,
        block: config.block,
        accum_steps: 1,
        recompute: false,
        grad_clip: 0.0,
        spike_threshold: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.0,
        activations16: false,
    }
}

/// The loss in f64, as a function of the parameters.
struct Loss<'a> {
    reference: RefBackend<f64>,
    parameters: Vec<f64>,
    program: &'a Program,
    args: RunArgs,
}

impl Loss<'_> {
    /// The slope at the parameters along `direction`, which changes those in `range`. Central differences at two widths are
    /// extrapolated (Richardson): the error is of fourth order.
    fn slope(&mut self, range: &Range<usize>, direction: &[f64]) -> Result<f64, TrainError> {
        let mut slope = |width: f64| -> Result<f64, TrainError> {
            let mut losses = [0.0; 2];
            for (loss, sign) in losses.iter_mut().zip([1.0, -1.0]) {
                let params = self.reference.region_mut(Region::Params);
                params.copy_from_slice(&self.parameters);
                for (value, d) in params[range.clone()].iter_mut().zip(direction) {
                    *value += sign * width * d;
                }
                self.reference.run(self.program, &self.args, None)?;
                *loss = self.reference.region(Region::Results)[0];
            }
            Ok((losses[0] - losses[1]) / (2.0 * width))
        };
        let (wide, narrow) = (slope(2e-4)?, slope(1e-4)?);
        Ok((4.0 * narrow - wide) / 3.0)
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}
