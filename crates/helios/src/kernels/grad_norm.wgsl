// Global gradient norm, clip coefficient and whether the update applies; see `op::GradNorm`. In two dispatches; `ENTRY`
// says which. In `PARTS` each workgroup adds one part of the gradients. In `WHOLE` one workgroup adds the parts' sums.

struct Params {
    grads0: u32, partial0: u32, results0: u32,
    len: u32, part_len: u32, first_part: u32, parts: u32,
    grad_clip: f32, spike_threshold: f32, needs_previous: u32, inverse_scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> grads: array<grads_type>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> results: array<f32>;

// Not a comparison: compilers may assume that numbers are finite.
fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

fn parts(index: u32, part: u32) {
    let start = part * p.part_len;
    let end = min(start + p.part_len, p.len);
    var sum = vec4(0.0);
    for (var i = start + 4u * index; i < end; i += 4u * WG) {
        let g = load_grads(p.grads0 + i, end - i);
        sum = fma(g, g, sum);
    }
    let squares = reduce_sum(index, total(sum));
    if index == 0u {
        partial[p.partial0 + p.first_part + part] = squares;
    }
}

fn whole(index: u32) {
    var squares = 0.0;
    for (var i = index; i < p.parts; i += WG) {
        squares += partial[p.partial0 + i];
    }
    squares = reduce_sum(index, squares);
    if index == 0u {
        let norm = sqrt(squares) * p.inverse_scale;
        let loss = results[p.results0];
        let previous = results[p.results0 + 3u];
        let coef = p.grad_clip / (norm + 1e-6);
        var clip_coef = 1.0;
        if p.grad_clip > 0.0 && coef < 1.0 {
            clip_coef = coef;
        }
        let is_spike = p.spike_threshold > 0.0 && norm > p.spike_threshold;
        let is_held = p.needs_previous == 1u && previous == 0.0;
        let is_applied = is_finite(norm) && is_finite(loss) && !is_spike && !is_held;
        results[p.results0 + 1u] = norm;
        results[p.results0 + 2u] = clip_coef;
        results[p.results0 + 3u] = select(0.0, 1.0, is_applied);
    }
}

@compute @workgroup_size(WG)
fn grad_norm(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
) {
    if ENTRY == PARTS {
        parts(index, group.x);
    } else {
        whole(index);
    }
}
