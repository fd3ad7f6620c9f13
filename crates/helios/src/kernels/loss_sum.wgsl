// One workgroup adds the losses of all tokens into the results; see `op::LossSum`.

struct Params {
    loss0: u32, out0: u32,
    rows: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> loss: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn loss_sum(@builtin(local_invocation_index) index: u32) {
    var sum = 0.0;
    for (var i = index; i < p.rows; i += WG) {
        sum += loss[p.loss0 + i];
    }
    var total = reduce_sum(index, sum) * p.scale;
    if index == 0u {
        if ACCUMULATE {
            total += out[p.out0];
        }
        out[p.out0] = total;
    }
}
