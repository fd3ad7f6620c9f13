//! Linear layers: their products.

use alpha_tensor::op::{Linear, LinearBwdInput, LinearBwdWeight};

use super::{
    Lowering, LoweringError,
    matmul::{Epilogue, Product},
};

pub(super) fn linear(op: &Linear, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let epilogue = match (op.activation, op.residual) {
        (Some(activation), None) => Epilogue::Activate(activation, op.pre),
        (None, Some(residual)) => Epilogue::Residual(residual),
        (None, None) => Epilogue::Plain,
        (Some(_), Some(_)) => return Err(LoweringError::ActivationAndResidual),
    };
    Product { bias: op.bias, epilogue, ..Product::new((op.x, false), (op.weight, false), op.out) }.push(l)
}

pub(super) fn linear_bwd_input(op: &LinearBwdInput, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let epilogue = match op.activation {
        Some((activation, pre, post)) => Epilogue::Derivative { activation, pre, post },
        None => Epilogue::Plain,
    };
    Product { epilogue, ..Product::new((op.dy, false), (op.weight, true), op.dx) }.push(l)
}

pub(super) fn linear_bwd_weight(op: &LinearBwdWeight, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let epilogue = if op.accumulate { Epilogue::Accumulate } else { Epilogue::Plain };
    let product = Product::new((op.x, true), (op.dy, false), op.dweight);
    Product { epilogue, column_sums: op.dbias, ..product }.push(l)
}
