// Softmax and cross-entropy. Each workgroup has one row of logits, and with `GRADIENT` replaces it by its gradient. See
// `op::CrossEntropy`.

struct Params {
    logits0: u32, targets0: u32, loss0: u32,
    rows: u32, vocab: u32, grad_scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> logits: array<logits_type>;
@group(0) @binding(1) var<storage, read_write> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;

const IGNORED: u32 = 0xffffffffu;

@compute @workgroup_size(WG)
fn cross_entropy(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let row = folded(group, groups);
    if row >= p.rows {
        return;
    }
    let at = p.logits0 + row * p.vocab;
    let chosen = targets[p.targets0 + row];
    var widest = vec4(LOWEST);
    for (var i = 4u * index; i < p.vocab; i += 4u * WG) {
        let left = p.vocab - i;
        widest = max(widest, select(vec4(LOWEST), load_logits(at + i, left), vec4(0u, 1u, 2u, 3u) < vec4(left)));
    }
    let largest = reduce_max(index, max(max(widest.x, widest.y), max(widest.z, widest.w)));
    var sums = vec4(0.0);
    for (var i = 4u * index; i < p.vocab; i += 4u * WG) {
        let left = p.vocab - i;
        sums += inside(exp(load_logits(at + i, left) - largest), left);
    }
    let sum = reduce_sum(index, total(sums));
    if index == 0u {
        var value = 0.0;
        if chosen != IGNORED {
            let group_at = min(chosen, p.vocab - 1u) & ~3u;
            value = log(sum) + (largest - load_logits(at + group_at, p.vocab - group_at)[chosen & 3u]);
        }
        loss[p.loss0 + row] = value;
    }
    if GRADIENT {
        workgroupBarrier();
        storageBarrier();
        let factor = select(p.grad_scale, 0.0, chosen == IGNORED);
        for (var i = 4u * index; i < p.vocab; i += 4u * WG) {
            let left = p.vocab - i;
            var value = exp(load_logits(at + i, left) - largest) / sum;
            value -= select(vec4(0.0), vec4(1.0), vec4(i, i + 1u, i + 2u, i + 3u) == vec4(chosen));
            store_logits(at + i, left, value * factor);
        }
    }
}
