// Operands and epilogue of every matrix product C[m, n] = epilogue(A·B), four numbers at a time.
//
// A is stored as [m, k], or as [k, m] with `TRANSPOSE_A`, from column `skip_a` on. B is stored as [k, n], or as [n, k]
// with `TRANSPOSE_B`. Each buffer's loads and stores come from a template for its storage: `load_vec4.wgsl`,
// `load_scalar.wgsl` or `load_16.wgsl`.
//
// `EPILOGUE`: 0 stores the product; 1 activates it and stores the value before in `extra`; 5 only activates it; 2 adds
// `extra`, a residual; 3 multiplies by the activation's derivative at `extra` and stores the activation's value in
// `post`; 4 adds to `c`. With `COLUMN_SUMS` the sums over B's rows (a bias gradient) go to `sums`, and are added there
// with `EPILOGUE` 4.

struct Params {
    a0: u32, b0: u32, c0: u32, bias0: u32, extra0: u32, post0: u32, sums0: u32,
    m: u32, n: u32, k: u32, lda: u32, ldb: u32, ldc: u32, skip_a: u32, skip_c: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> a: array<a_type>;
@group(0) @binding(1) var<storage, read_write> b: array<b_type>;
@group(0) @binding(2) var<storage, read_write> c: array<c_type>;
@group(0) @binding(3) var<storage, read_write> bias: array<bias_type>;
@group(0) @binding(4) var<storage, read_write> extra: array<extra_type>;
@group(0) @binding(5) var<storage, read_write> post: array<post_type>;
@group(0) @binding(6) var<storage, read_write> sums: array<sums_type>;

// The last multiple of 4 below `len`. A load that must stay inside begins no later.
fn last_group(len: u32) -> u32 {
    return (len - 1u) & ~3u;
}

fn finish(row: u32, col: u32, product: vec4<f32>) {
    let at = row * p.ldc + p.skip_c + col;
    let left = p.n - col;
    var value = product;
    if BIAS {
        value += load_bias(p.bias0 + col, left);
    }
    if EPILOGUE == 1u {
        store_extra(p.extra0 + at, left, value);
        value = activate(value);
    } else if EPILOGUE == 5u {
        value = activate(value);
    } else if EPILOGUE == 2u {
        value += load_extra(p.extra0 + at, left);
    } else if EPILOGUE == 3u {
        let pre = load_extra(p.extra0 + at, left);
        value *= activate_derivative(pre);
        store_post(p.post0 + at, left, activate(pre));
    } else if EPILOGUE == 4u {
        value += load_c(p.c0 + at, left);
    }
    store_c(p.c0 + at, left, value);
}

// Sums of B's columns `col..col + 4`, row after row.
fn finish_sums(col: u32) {
    let left = p.n - col;
    var total = vec4(0.0);
    for (var row = 0u; row < p.k; row++) {
        total += load_b(p.b0 + row * p.ldb + col, left);
    }
    if EPILOGUE == 4u {
        total += load_sums(p.sums0 + col, left);
    }
    store_sums(p.sums0 + col, left, total);
}
