// Adds the parts that `layer_norm_bwd` wrote. Each invocation has one column of the weight's or the bias's gradient.

struct Params {
    partial0: u32, dweight0: u32, dbias0: u32,
    cols: u32, parts: u32, stride: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(2) var<storage, read_write> dbias: array<f32>;

@compute @workgroup_size(WG)
fn layer_norm_bwd_params(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= 2u * p.cols {
        return;
    }
    // The bias's gradient begins `stride` after the weight's.
    let at = select(i, i - p.cols + p.stride, i >= p.cols);
    var total = 0.0;
    for (var part = 0u; part < p.parts; part++) {
        total += partial[p.partial0 + part * 2u * p.stride + at];
    }
    if i < p.cols {
        if ACCUMULATE {
            total += dweight[p.dweight0 + i];
        }
        dweight[p.dweight0 + i] = total;
    } else if BIAS {
        if ACCUMULATE {
            total += dbias[p.dbias0 + i - p.cols];
        }
        dbias[p.dbias0 + i - p.cols] = total;
    }
}
