//! Layer normalisation; mean and variance in two passes over the row.

use super::{Float, Memory};
use crate::op::{LayerNorm, LayerNormBwd};

pub(super) fn layer_norm<F: Float>(op: &LayerNorm, memory: &mut Memory<F>) {
    let [r, c] = [op.x.rows, op.x.cols];
    let count = F::from_f64(c as f64);
    let (x, weight) = (memory.load(&op.x), memory.load(&op.weight));
    let bias = op.bias.as_ref().map_or(vec![F::ZERO; c], |bias| memory.load(bias));
    let mut y = vec![F::ZERO; r * c];
    let mut means = vec![F::ZERO; r];
    let mut rstds = vec![F::ZERO; r];
    for i in 0..r {
        let row = &x[i * c..][..c];
        let mut mean = F::ZERO;
        for &x in row {
            mean += x / count;
        }
        let mut variance = F::ZERO;
        for &x in row {
            variance += (x - mean) * (x - mean) / count;
        }
        let rstd = F::ONE / (variance + F::from_f32(op.eps)).sqrt();
        for j in 0..c {
            y[i * c + j] = (row[j] - mean) * rstd * weight[j] + bias[j];
        }
        (means[i], rstds[i]) = (mean, rstd);
    }
    memory.store(&op.y, &y);
    memory.store(&op.mean, &means);
    memory.store(&op.rstd, &rstds);
}

pub(super) fn layer_norm_bwd<F: Float>(op: &LayerNormBwd, memory: &mut Memory<F>) {
    let [r, c] = [op.x.rows, op.x.cols];
    let count = F::from_f64(c as f64);
    let (x, weight, dy) = (memory.load(&op.x), memory.load(&op.weight), memory.load(&op.dy));
    let (mean, rstd) = (memory.load(&op.mean), memory.load(&op.rstd));
    let mut dx = vec![F::ZERO; r * c];
    let mut dweight = vec![F::ZERO; c];
    let mut dbias = vec![F::ZERO; c];
    for i in 0..r {
        let x_hat = |j: usize| (x[i * c + j] - mean[i]) * rstd[i];
        let g = |j: usize| dy[i * c + j] * weight[j];
        let mut mean_g = F::ZERO;
        let mut mean_g_x_hat = F::ZERO;
        for j in 0..c {
            mean_g += g(j) / count;
            mean_g_x_hat += g(j) * x_hat(j) / count;
        }
        for j in 0..c {
            dx[i * c + j] = rstd[i] * (g(j) - mean_g - x_hat(j) * mean_g_x_hat);
            dweight[j] += dy[i * c + j] * x_hat(j);
            dbias[j] += dy[i * c + j];
        }
    }
    memory.store_gradient(&op.dx, &dx, op.accumulate_dx);
    memory.store_gradient(&op.dweight, &dweight, op.accumulate);
    if let Some(tensor) = &op.dbias {
        memory.store_gradient(tensor, &dbias, op.accumulate);
    }
}
