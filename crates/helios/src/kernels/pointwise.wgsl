// Swiglu forward and backward, dropout and fill: an invocation an element, `ENTRY` says which; see `op::Swiglu`,
// `op::SwigluBwd`, `op::Dropout`, `op::Fill`. `x` and `out` may be the same memory.

struct Params {
    x0: u32, other0: u32, out0: u32, out2_0: u32,
    len: u32, cols: u32, value: f32, key0: u32, key1: u32, threshold: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> other: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> out2: array<f32>;

fn silu_parts(gate: f32) -> vec2<f32> {
    let s = 1.0 / (1.0 + exp(-gate));
    return vec2(gate * s, s * (1.0 + gate * (1.0 - s)));
}

@compute @workgroup_size(WG)
fn pointwise(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let i = folded(group, groups) * WG + index;
    if i >= p.len {
        return;
    }
    if ENTRY == FILL {
        out[p.out0 + i] = p.value;
    } else if ENTRY == DROPOUT {
        let factor = dropout_factor(vec2(p.key0, p.key1), p.threshold, p.scale, i / p.cols, i % p.cols);
        var value = x[p.x0 + i] * factor;
        if RESIDUAL {
            value += other[p.other0 + i];
        }
        out[p.out0 + i] = value;
    } else {
        let gate_at = i / p.cols * 2u * p.cols + i % p.cols;
        let gate = x[p.x0 + gate_at];
        let up = x[p.x0 + gate_at + p.cols];
        let silu = silu_parts(gate);
        if ENTRY == SWIGLU {
            out[p.out0 + i] = silu.x * up;
        } else {
            let d = other[p.other0 + i];
            out[p.out0 + gate_at] = d * up * silu.y;
            out[p.out0 + gate_at + p.cols] = d * silu.x;
            out2[p.out2_0 + i] = silu.x * up;
        }
    }
}
