//! Matrix products, all matrices row-major.

use super::{Float, Memory, activation};
use crate::op::{Linear, LinearBwdInput, LinearBwdWeight};

/// `to += factor · from`.
pub(super) fn add_scaled<F: Float>(to: &mut [F], factor: F, from: &[F]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

/// `a · b` for `a [m, k]`, `b [k, n]`.
pub(super) fn product<F: Float>(a: &[F], b: &[F], [m, k, n]: [usize; 3]) -> Vec<F> {
    let mut out = vec![F::ZERO; m * n];
    for i in 0..m {
        for l in 0..k {
            add_scaled(&mut out[i * n..][..n], a[i * k + l], &b[l * n..][..n]);
        }
    }
    out
}

/// The transpose `[cols, rows]` of `a [rows, cols]`.
pub(super) fn transpose<F: Float>(a: &[F], [rows, cols]: [usize; 2]) -> Vec<F> {
    let mut out = vec![F::ZERO; a.len()];
    for i in 0..rows {
        for j in 0..cols {
            out[j * rows + i] = a[i * cols + j];
        }
    }
    out
}

/// The sum over rows `[1, cols]` of `a [rows, cols]`.
pub(super) fn sum_rows<F: Float>(a: &[F], [rows, cols]: [usize; 2]) -> Vec<F> {
    let mut out = vec![F::ZERO; cols];
    for i in 0..rows {
        for j in 0..cols {
            out[j] += a[i * cols + j];
        }
    }
    out
}

pub(super) fn linear<F: Float>(op: &Linear, memory: &mut Memory<F>) {
    let [r, k, n] = [op.x.rows, op.x.cols, op.weight.cols];
    let mut out = product(&memory.load(&op.x), &memory.load(&op.weight), [r, k, n]);
    if let Some(bias) = &op.bias {
        let bias = memory.load(bias);
        for (index, value) in out.iter_mut().enumerate() {
            *value += bias[index % n];
        }
    }
    let residual = op.residual.as_ref().map(|residual| memory.load(residual));
    if let Some(pre) = &op.pre {
        memory.store(pre, &out);
    }
    if let Some(kind) = op.activation {
        for value in &mut out {
            *value = activation::value(kind, *value);
        }
    }
    if let Some(residual) = residual {
        for (value, residual) in out.iter_mut().zip(residual) {
            *value += residual;
        }
    }
    memory.store(&op.out, &out);
}

pub(super) fn linear_bwd_input<F: Float>(op: &LinearBwdInput, memory: &mut Memory<F>) {
    let [r, k, n] = [op.dy.rows, op.weight.rows, op.weight.cols];
    let weight_t = transpose(&memory.load(&op.weight), [k, n]);
    let mut dx = product(&memory.load(&op.dy), &weight_t, [r, n, k]);
    if let Some((kind, pre, post)) = &op.activation {
        let pre = memory.load(pre);
        for (dx, &pre) in dx.iter_mut().zip(&pre) {
            *dx = *dx * activation::derivative(*kind, pre);
        }
        let values: Vec<F> = pre.iter().map(|&pre| activation::value(*kind, pre)).collect();
        memory.store(post, &values);
    }
    memory.store(&op.dx, &dx);
}

pub(super) fn linear_bwd_weight<F: Float>(op: &LinearBwdWeight, memory: &mut Memory<F>) {
    let [r, k, n] = [op.x.rows, op.x.cols, op.dy.cols];
    let dy = memory.load(&op.dy);
    let dweight = product(&transpose(&memory.load(&op.x), [r, k]), &dy, [k, r, n]);
    memory.store_gradient(&op.dweight, &dweight, op.accumulate);
    if let Some(dbias) = &op.dbias {
        memory.store_gradient(dbias, &sum_rows(&dy, [r, n]), op.accumulate);
    }
}
