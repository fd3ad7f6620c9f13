// Backward of layer normalisation in two dispatches; see `op::LayerNormBwd`.
//
// In the first, each workgroup goes through `rows_a_part` rows. It writes their dx, and adds up its part of the
// gradients of weight and bias in `partial` [parts, 2·stride]. The second adds each column over the parts, in order.

struct Params {
    x0: u32, weight0: u32, mean0: u32, rstd0: u32, dy0: u32, dx0: u32, partial0: u32,
    rows: u32, cols: u32, rows_a_part: u32, stride: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> x: array<x_type>;
@group(0) @binding(1) var<storage, read_write> weight: array<weight_type>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> dy: array<dy_type>;
@group(0) @binding(5) var<storage, read_write> dx: array<dx_type>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn layer_norm_bwd(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let part = (p.partial0 + group.x * 2u * p.stride) / 4u;
    let first = group.x * p.rows_a_part;
    for (var row = first; row < min(first + p.rows_a_part, p.rows); row++) {
        let at = row * p.cols;
        let row_mean = mean[p.mean0 + row];
        let row_rstd = rstd[p.rstd0 + row];
        var sum_g = vec4(0.0);
        var sum_gx = vec4(0.0);
        for (var i = 4u * index; i < p.cols; i += 4u * WG) {
            let left = p.cols - i;
            let x_hat = (load_x(p.x0 + at + i, left) - row_mean) * row_rstd;
            let d = load_dy(p.dy0 + at + i, left);
            let g = d * load_weight(p.weight0 + i, left);
            sum_g += g;
            sum_gx = fma(g, x_hat, sum_gx);
            // Only one invocation writes each column.
            let to = part + i / 4u;
            if row == first {
                partial[to] = d * x_hat;
                partial[to + p.stride / 4u] = d;
            } else {
                partial[to] += d * x_hat;
                partial[to + p.stride / 4u] += d;
            }
        }
        let mean_g = reduce_sum(index, total(sum_g)) / f32(p.cols);
        let mean_gx = reduce_sum(index, total(sum_gx)) / f32(p.cols);
        for (var i = 4u * index; i < p.cols; i += 4u * WG) {
            let left = p.cols - i;
            let x_hat = (load_x(p.x0 + at + i, left) - row_mean) * row_rstd;
            let g = load_dy(p.dy0 + at + i, left) * load_weight(p.weight0 + i, left);
            var value = row_rstd * (g - mean_g - x_hat * mean_gx);
            if ACCUMULATE_DX {
                value += load_dx(p.dx0 + at + i, left);
            }
            store_dx(p.dx0 + at + i, left, value);
        }
    }
}
