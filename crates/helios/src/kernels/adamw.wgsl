// One pass of AdamW over flat parameters, the clip coefficient applied on the way; see `op::AdamW`. An invocation takes
// four neighbours.

struct Params {
    params0: u32, grads0: u32, moment1_0: u32, moment2_0: u32, results0: u32, runs0: u32,
    len: u32, first: u32, runs: u32,
    lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32, correction1: f32, correction2: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> params: array<f32>;
@group(0) @binding(1) var<storage, read_write> grads: array<f32>;
@group(0) @binding(2) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(3) var<storage, read_write> moment2: array<f32>;
@group(0) @binding(4) var<storage, read_write> results: array<f32>;
// Pairs: the first element after a run, whether it is decayed.
@group(0) @binding(5) var<storage, read_write> runs: array<u32>;

// The first run that ends after element `at` of the region.
fn run_of(at: u32) -> u32 {
    var low = 0u;
    var high = p.runs - 1u;
    while low < high {
        let middle = (low + high) / 2u;
        if runs[p.runs0 + 2u * middle] <= at {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size(WG)
fn adamw(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let start = 4u * (folded(group, groups) * WG + index);
    if start >= p.len || results[p.results0 + 3u] == 0.0 {
        return;
    }
    let clip_coef = results[p.results0 + 2u];
    var run = run_of(p.first + start);
    for (var i = start; i < min(start + 4u, p.len); i++) {
        while runs[p.runs0 + 2u * run] <= p.first + i {
            run++;
        }
        let is_decayed = runs[p.runs0 + 2u * run + 1u] == 1u;
        let keep = 1.0 - select(0.0, p.lr * p.weight_decay, is_decayed);
        let g = clip_coef * grads[p.grads0 + i];
        let m = p.beta1 * moment1[p.moment1_0 + i] + (1.0 - p.beta1) * g;
        let v = p.beta2 * moment2[p.moment2_0 + i] + (1.0 - p.beta2) * g * g;
        moment1[p.moment1_0 + i] = m;
        moment2[p.moment2_0 + i] = v;
        let update = p.lr * (m / p.correction1) / (sqrt(v / p.correction2) + p.eps);
        params[p.params0 + i] = params[p.params0 + i] * keep - update;
    }
}
