// Backward of attention (Dao et al., 2022, algorithm 4) in two dispatches; `ENTRY` says which. In `QUERIES` each
// invocation has one query, computes dq and writes Σ dout∘out to `mean_dp`. Then in `KEYS` each has one key and
// computes dk and dv. Probabilities are computed again from `qkv` and `lse`. The layout is that of `attention.wgsl`.

struct Params {
    qkv0: u32, out0: u32, lse0: u32, dout0: u32, dqkv0: u32, mean_dp0: u32,
    t: u32, c: u32, heads: u32, hd: u32, scale: f32,
    key0: u32, key1: u32, threshold: u32, keep_scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> qkv: array<qkv_type>;
@group(0) @binding(1) var<storage, read_write> out: array<out_type>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> dout: array<dout_type>;
@group(0) @binding(4) var<storage, read_write> dqkv: array<dqkv_type>;
@group(0) @binding(5) var<storage, read_write> mean_dp: array<f32>;

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn queries(i: u32, end: u32, b: u32, h: u32) {
    let row_len = 3u * p.c;
    let head = b * p.t * row_len + h * p.hd;
    let out_at = (b * p.t + i) * p.c + h * p.hd;
    let row = (b * p.heads + h) * p.t + i;
    var q: array<vec4<f32>, HD4>;
    var d_out: array<vec4<f32>, HD4>;
    var dq: array<vec4<f32>, HD4>;
    var mean = vec4(0.0);
    for (var d = 0u; d < HD4; d++) {
        let left = p.hd - 4u * d;
        q[d] = load_qkv(p.qkv0 + head + i * row_len + 4u * d, left) * p.scale;
        d_out[d] = load_dout(p.dout0 + out_at + 4u * d, left);
        mean = fma(d_out[d], load_out(p.out0 + out_at + 4u * d, left), mean);
        dq[d] = vec4(0.0);
    }
    let row_mean = total(mean);
    let row_lse = lse[p.lse0 + row];
    for (var j0 = 0u; j0 < end; j0++) {
        let j = min(j0, p.t - 1u);
        let at = p.qkv0 + head + j * row_len;
        var s = vec4(0.0);
        var dp = vec4(0.0);
        for (var d = 0u; d < HD4; d++) {
            let left = p.hd - 4u * d;
            s = fma(q[d], load_qkv(at + p.c + 4u * d, left), s);
            dp = fma(d_out[d], load_qkv(at + 2u * p.c + 4u * d, left), dp);
        }
        var dp_sum = total(dp);
        if DROPOUT {
            dp_sum *= dropout_factor(vec2(p.key0, p.key1), p.threshold, p.keep_scale, row, j);
        }
        let probability = select(0.0, exp(total(s) - row_lse), j <= i);
        let ds = probability * (dp_sum - row_mean) * p.scale;
        for (var d = 0u; d < HD4; d++) {
            dq[d] = fma(vec4(ds), load_qkv(at + p.c + 4u * d, p.hd - 4u * d), dq[d]);
        }
    }
    for (var d = 0u; d < HD4; d++) {
        store_dqkv(p.dqkv0 + head + i * row_len + 4u * d, p.hd - 4u * d, dq[d]);
    }
    mean_dp[p.mean_dp0 + row] = row_mean;
}

fn keys(j: u32, start: u32, b: u32, h: u32) {
    let row_len = 3u * p.c;
    let head = b * p.t * row_len + h * p.hd;
    let rows = (b * p.heads + h) * p.t;
    var k: array<vec4<f32>, HD4>;
    var v: array<vec4<f32>, HD4>;
    var dk: array<vec4<f32>, HD4>;
    var dv: array<vec4<f32>, HD4>;
    for (var d = 0u; d < HD4; d++) {
        let left = p.hd - 4u * d;
        k[d] = load_qkv(p.qkv0 + head + j * row_len + p.c + 4u * d, left) * p.scale;
        v[d] = load_qkv(p.qkv0 + head + j * row_len + 2u * p.c + 4u * d, left);
        dk[d] = vec4(0.0);
        dv[d] = vec4(0.0);
    }
    for (var i = start; i < p.t; i++) {
        let query = p.qkv0 + head + i * row_len;
        let out_at = p.dout0 + (b * p.t + i) * p.c + h * p.hd;
        var s = vec4(0.0);
        var dp = vec4(0.0);
        for (var d = 0u; d < HD4; d++) {
            let left = p.hd - 4u * d;
            s = fma(k[d], load_qkv(query + 4u * d, left), s);
            dp = fma(v[d], load_dout(out_at + 4u * d, left), dp);
        }
        let probability = select(0.0, exp(total(s) - lse[p.lse0 + rows + i]), j <= i);
        var factor = 1.0;
        if DROPOUT {
            factor = dropout_factor(vec2(p.key0, p.key1), p.threshold, p.keep_scale, rows + i, j);
        }
        let ds = probability * (factor * total(dp) - mean_dp[p.mean_dp0 + rows + i]) * p.scale;
        let kept = probability * factor;
        for (var d = 0u; d < HD4; d++) {
            let left = p.hd - 4u * d;
            dk[d] = fma(vec4(ds), load_qkv(query + 4u * d, left), dk[d]);
            dv[d] = fma(vec4(kept), load_dout(out_at + 4u * d, left), dv[d]);
        }
    }
    for (var d = 0u; d < HD4; d++) {
        let left = p.hd - 4u * d;
        store_dqkv(p.dqkv0 + head + j * row_len + p.c + 4u * d, left, dk[d]);
        store_dqkv(p.dqkv0 + head + j * row_len + 2u * p.c + 4u * d, left, dv[d]);
    }
}

@compute @workgroup_size(WG)
fn attention_bwd(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let at = group.x * WG + index;
    if at >= p.t {
        return;
    }
    // All invocations in a workgroup take the same steps, so that their loads are the same.
    if ENTRY == QUERIES {
        queries(at, min((group.x + 1u) * WG, p.t), group.y, group.z);
    } else {
        keys(at, group.x * WG, group.y, group.z);
    }
}
