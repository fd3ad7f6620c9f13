//! Matrix products: choosing the kernel, and cutting a product if an operand is larger than a binding.

use alpha_tensor::{Region, Tensor, op::Activation};

use super::shader::{Shader, ShaderBuilder};
use super::{Lowering, LoweringError, Operand, Params, Variant, activation::activation_number};

/// What happens to the product. `matmul_operands.wgsl` numbers the cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Epilogue {
    Plain,
    /// Applies an activation. If there is a tensor, it gets the value before.
    Activate(Activation, Option<Tensor>),
    /// Adds a residual.
    Residual(Tensor),
    /// Multiplies by the activation's derivative at `pre`, and writes the activation's value to `post`.
    Derivative {
        activation: Activation,
        pre: Tensor,
        post: Tensor,
    },
    /// Adds to C.
    Accumulate,
}

/// C = epilogue(A·B). The sizes m, n and k follow from C and A. A and C may be columns of a wider matrix, which begin
/// `skip` columns from its left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// `[m, k]`, or `[k, m]` if transposed.
    pub(super) a: Tensor,
    pub(super) transpose_a: bool,
    /// `[k, n]`, or `[n, k]` if transposed.
    pub(super) b: Tensor,
    pub(super) transpose_b: bool,
    pub(super) c: Tensor,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) skip_a: usize,
    pub(super) skip_c: usize,
    pub(super) bias: Option<Tensor>,
    pub(super) epilogue: Epilogue,
    /// Gets the sums of B's columns.
    pub(super) column_sums: Option<Tensor>,
}

impl Product {
    /// A product of whole matrices.
    pub(super) fn new((a, transpose_a): (Tensor, bool), (b, transpose_b): (Tensor, bool), c: Tensor) -> Product {
        Product {
            a,
            transpose_a,
            b,
            transpose_b,
            c,
            m: c.rows,
            n: c.cols,
            k: if transpose_a { a.rows } else { a.cols },
            skip_a: 0,
            skip_c: 0,
            bias: None,
            epilogue: Epilogue::Plain,
            column_sums: None,
        }
    }

    /// Appends the dispatches: only one if no operand is larger than a binding.
    pub(super) fn push(self, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
        let is_large = |tensor: &Tensor| tensor.len() > l.profile.max_binding_len;
        if is_large(&self.c) || (is_large(&self.a) && !self.transpose_a) {
            let rows = l.pieces(self.m, self.c.cols.max(self.a.cols * usize::from(!self.transpose_a)), 4)?;
            return rows.into_iter().try_for_each(|(start, end)| self.rows_of_c(start, end).push(l));
        }
        if is_large(&self.a) || (is_large(&self.b) && !self.transpose_b) {
            let widest =
                if self.transpose_a { self.a.cols } else { 0 }.max(if self.transpose_b { 0 } else { self.b.cols });
            let pieces = l.pieces(self.k, widest, 4)?;
            return pieces.into_iter().try_for_each(|(start, end)| self.part_of_k(start, end)?.push(l));
        }
        if is_large(&self.b) {
            let pieces = l.pieces(self.n, self.b.cols, 4)?;
            return pieces.into_iter().try_for_each(|(start, end)| self.columns_of_c(start, end)?.push(l));
        }
        self.push_whole(l)
    }

    fn rows_of_c(self, start: usize, end: usize) -> Product {
        let rows = |tensor: Tensor| tensor.row_range(start, end);
        let epilogue = match self.epilogue {
            Epilogue::Activate(activation, pre) => Epilogue::Activate(activation, pre.map(rows)),
            Epilogue::Residual(residual) => Epilogue::Residual(rows(residual)),
            Epilogue::Derivative { activation, pre, post } => {
                Epilogue::Derivative { activation, pre: rows(pre), post: rows(post) }
            }
            other @ (Epilogue::Plain | Epilogue::Accumulate) => other,
        };
        let (a, skip_a) = if self.transpose_a { (self.a, self.skip_a + start) } else { (rows(self.a), self.skip_a) };
        // The first piece makes the sums over all of B.
        let column_sums = self.column_sums.filter(|_| start == 0);
        Product { a, skip_a, c: rows(self.c), m: end - start, epilogue, column_sums, ..self }
    }

    fn part_of_k(self, start: usize, end: usize) -> Result<Product, LoweringError> {
        let epilogue = match self.epilogue {
            Epilogue::Plain if start == 0 => Epilogue::Plain,
            Epilogue::Plain | Epilogue::Accumulate if self.bias.is_none() => Epilogue::Accumulate,
            _ => return Err(LoweringError::LargeWeight),
        };
        let (a, skip_a) =
            if self.transpose_a { (self.a.row_range(start, end), self.skip_a) } else { (self.a, self.skip_a + start) };
        if self.transpose_b {
            return Err(LoweringError::LargeWeight);
        }
        Ok(Product { a, skip_a, b: self.b.row_range(start, end), k: end - start, epilogue, ..self })
    }

    fn columns_of_c(self, start: usize, end: usize) -> Result<Product, LoweringError> {
        if self.epilogue != Epilogue::Plain || self.bias.is_some() || self.column_sums.is_some() {
            return Err(LoweringError::LargeWeight);
        }
        Ok(Product { b: self.b.row_range(start, end), n: end - start, skip_c: self.skip_c + start, ..self })
    }

    fn push_whole(self, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        let has_16_bits = [self.a, self.b, self.c].iter().any(|tensor| tensor.region == Region::Activations16);
        let variants = if has_16_bits { l.profile.matmul16 } else { l.profile.matmul };
        let variant = match (self.transpose_a, self.transpose_b) {
            (false, false) => variants[0],
            (false, true) => variants[1],
            (true, _) => variants[2],
        };
        let (extra, post) = self.extra_and_post();
        let operands = vec![
            Operand::from(self.a),
            self.b.into(),
            self.c.into(),
            self.bias.into(),
            extra.into(),
            post.into(),
            self.column_sums.into(),
        ];
        let [tile_m, tile_n] = variant.tile();
        let words = [self.m, self.n, self.k, self.a.cols, self.b.cols, self.c.cols, self.skip_a, self.skip_c];
        let groups = [self.n.div_ceil(tile_n), self.m.div_ceil(tile_m), 1];
        let shader = self.shader(variant, l)?;
        l.push(shader, operands, Params::fixed(words.map(|word| word as u32)), groups)
    }

    /// The operands that depend on the epilogue.
    fn extra_and_post(&self) -> (Option<Tensor>, Option<Tensor>) {
        match self.epilogue {
            Epilogue::Plain | Epilogue::Accumulate => (None, None),
            Epilogue::Activate(_, pre) => (pre, None),
            Epilogue::Residual(residual) => (Some(residual), None),
            Epilogue::Derivative { pre, post, .. } => (Some(pre), Some(post)),
        }
    }

    fn shader(&self, variant: Variant, l: &Lowering<'_>) -> Result<Shader, LoweringError> {
        let (epilogue, activation) = match self.epilogue {
            Epilogue::Plain => (0, None),
            // Without a tensor for it, the value before the activation is not stored.
            Epilogue::Activate(activation, pre) => (if pre.is_some() { 1 } else { 5 }, Some(activation)),
            Epilogue::Residual(_) => (2, None),
            Epilogue::Derivative { activation, .. } => (3, Some(activation)),
            Epilogue::Accumulate => (4, None),
        };
        let (extra, post) = self.extra_and_post();
        let is_vector_a = self.skip_a.is_multiple_of(4);
        let is_vector_c = self.skip_c.is_multiple_of(4);
        let access = [
            ("a", l.storage(&self.a, is_vector_a)?),
            ("b", l.storage(&self.b, true)?),
            ("c", l.storage(&self.c, is_vector_c)?),
            ("bias", l.optional_storage(self.bias.as_ref(), true)?),
            ("extra", l.optional_storage(extra.as_ref(), is_vector_c)?),
            ("post", l.optional_storage(post.as_ref(), is_vector_c)?),
            ("sums", l.optional_storage(self.column_sums.as_ref(), true)?),
        ];
        let builder = ShaderBuilder::new("matmul", 7)
            .flag("TRANSPOSE_A", self.transpose_a)
            .flag("TRANSPOSE_B", self.transpose_b)
            .flag("BIAS", self.bias.is_some())
            .flag("COLUMN_SUMS", self.column_sums.is_some())
            .number("EPILOGUE", epilogue)
            .number("ACTIVATION", activation_number(activation))
            .access(&access)
            .part(include_str!("activation.wgsl"))
            .part(include_str!("matmul_operands.wgsl"));
        Ok(variant.specialise(builder, [self.transpose_a, self.transpose_b]))
    }
}
