// Dropout and fill; `ENTRY` says which. See `op::Dropout` and `op::Fill`. Each invocation has one element. `x` and
// `out` may be the same memory.

struct Params {
    x0: u32, residual0: u32, out0: u32,
    len: u32, cols: u32, value: f32, key0: u32, key1: u32, threshold: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> residual: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

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
    } else {
        let factor = dropout_factor(vec2(p.key0, p.key1), p.threshold, p.scale, i / p.cols, i % p.cols);
        var value = x[p.x0 + i] * factor;
        if RESIDUAL {
            value += residual[p.residual0 + i];
        }
        out[p.out0 + i] = value;
    }
}
