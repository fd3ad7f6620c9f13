// Softmax and cross-entropy of one row of logits for each workgroup; turns the logits into their gradient in place
// where `GRADIENT`. See `op::CrossEntropy`.

struct Params {
    logits0: u32, targets0: u32, loss0: u32,
    rows: u32, vocab: u32, grad_scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
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
    var largest = LOWEST;
    for (var i = index; i < p.vocab; i += WG) {
        largest = max(largest, logits[at + i]);
    }
    largest = reduce_max(index, largest);
    var sum = 0.0;
    for (var i = index; i < p.vocab; i += WG) {
        sum += exp(logits[at + i] - largest);
    }
    sum = reduce_sum(index, sum);
    if index == 0u {
        var value = 0.0;
        if chosen != IGNORED {
            value = log(sum) + (largest - logits[at + min(chosen, p.vocab - 1u)]);
        }
        loss[p.loss0 + row] = value;
    }
    if GRADIENT {
        workgroupBarrier();
        storageBarrier();
        let factor = select(p.grad_scale, 0.0, chosen == IGNORED);
        for (var i = index; i < p.vocab; i += WG) {
            var value = exp(logits[at + i] - largest) / sum;
            if i == chosen {
                value -= 1.0;
            }
            logits[at + i] = value * factor;
        }
    }
}
