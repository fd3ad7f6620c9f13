// One pass of AdamW over flat parameters, which also applies the clip coefficient; see `op::AdamW`. A workgroup updates
// `ITEMS` stretches of vectors, and an invocation one vector of each. With `ALIKE` a vector lies in one decay run. An
// invocation looks up the run of its first vector, and goes on from there for the others.

struct Params {
    params0: u32, grads0: u32, moment1_0: u32, moment2_0: u32, results0: u32, runs0: u32,
    len: u32, first: u32, runs: u32,
    lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32, correction1: f32, correction2: f32, inverse_scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> params: array<params_type>;
@group(0) @binding(1) var<storage, read_write> grads: array<grads_type>;
@group(0) @binding(2) var<storage, read_write> moment1: array<moment1_type>;
@group(0) @binding(3) var<storage, read_write> moment2: array<moment2_type>;
@group(0) @binding(4) var<storage, read_write> results: array<f32>;
// Pairs: the first element after a run, and whether the run is decayed.
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

// The run of element `at`, from the run of an earlier element.
fn run_from(run: u32, at: u32) -> u32 {
    var here = run;
    while here + 1u < p.runs && runs[p.runs0 + 2u * here] <= p.first + at {
        here++;
    }
    return here;
}

// The factor of a parameter: less than 1 if it is decayed.
fn kept(run: u32) -> f32 {
    let is_decayed = runs[p.runs0 + 2u * run + 1u] == 1u;
    return 1.0 - select(0.0, p.lr * p.weight_decay, is_decayed);
}

@compute @workgroup_size(WG)
fn adamw(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let first = 4u * (folded(group, groups) * ITEMS * WG + index);
    if first >= p.len || results[p.results0 + 3u] == 0.0 {
        return;
    }
    let grad_coef = results[p.results0 + 2u] * p.inverse_scale;
    var run = run_of(p.first + first);
    for (var i = first; i < min(first + 4u * ITEMS * WG, p.len); i += 4u * WG) {
        let left = p.len - i;
        run = run_from(run, i);
        var keep = vec4(kept(run));
        if !ALIKE {
            for (var e = 1u; e < min(left, 4u); e++) {
                keep[e] = kept(run_from(run, i + e));
            }
        }
        let g = grad_coef * load_grads(p.grads0 + i, left);
        let m = p.beta1 * load_moment1(p.moment1_0 + i, left) + (1.0 - p.beta1) * g;
        let v = p.beta2 * load_moment2(p.moment2_0 + i, left) + (1.0 - p.beta2) * g * g;
        store_moment1(p.moment1_0 + i, left, m);
        store_moment2(p.moment2_0 + i, left, v);
        let update = p.lr * (m / p.correction1) / (sqrt(v / p.correction2) + p.eps);
        store_params(p.params0 + i, left, load_params(p.params0 + i, left) * keep - update);
    }
}
