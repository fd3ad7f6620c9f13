// Layer normalisation (Ba et al., 2016, equation 4); see `op::LayerNorm`. Each workgroup has one row.
// The variance is the mean square of the differences from the mean, where nothing cancels.

struct Params {
    x0: u32, weight0: u32, bias0: u32, y0: u32, mean0: u32, rstd0: u32,
    rows: u32, cols: u32, eps: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> x: array<x_type>;
@group(0) @binding(1) var<storage, read_write> weight: array<weight_type>;
@group(0) @binding(2) var<storage, read_write> bias: array<bias_type>;
@group(0) @binding(3) var<storage, read_write> y: array<y_type>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(WG)
fn layer_norm(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let row = folded(group, groups);
    if row >= p.rows {
        return;
    }
    let at = row * p.cols;
    var sum = vec4(0.0);
    for (var i = 4u * index; i < p.cols; i += 4u * WG) {
        sum += load_x(p.x0 + at + i, p.cols - i);
    }
    let row_mean = reduce_sum(index, total(sum)) / f32(p.cols);
    var squares = vec4(0.0);
    for (var i = 4u * index; i < p.cols; i += 4u * WG) {
        let left = p.cols - i;
        let d = inside(load_x(p.x0 + at + i, left) - row_mean, left);
        squares = fma(d, d, squares);
    }
    let row_rstd = 1.0 / sqrt(reduce_sum(index, total(squares)) / f32(p.cols) + p.eps);
    for (var i = 4u * index; i < p.cols; i += 4u * WG) {
        let left = p.cols - i;
        var value = (load_x(p.x0 + at + i, left) - row_mean) * row_rstd * load_weight(p.weight0 + i, left);
        if BIAS {
            value += load_bias(p.bias0 + i, left);
        }
        store_y(p.y0 + at + i, left, value);
    }
    if index == 0u {
        mean[p.mean0 + row] = row_mean;
        rstd[p.rstd0 + row] = row_rstd;
    }
}
