// Causal self-attention over whole sequences (Dao et al., 2022, algorithm 1). Each invocation has one query, which it
// keeps in registers with its output, and reads keys and values in tiles of `TILE`. See `op::Attention` for the layout.
// The head's dimension is padded to `HD4` vectors. If it is not a multiple of 4, it is read element by element.

struct Params {
    qkv0: u32, out0: u32, lse0: u32,
    t: u32, c: u32, heads: u32, hd: u32, scale: f32,
    key0: u32, key1: u32, threshold: u32, keep_scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> qkv: array<qkv_type>;
@group(0) @binding(1) var<storage, read_write> out: array<out_type>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

const TILE: u32 = 8u;

@compute @workgroup_size(WG)
fn attention(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let i = group.x * WG + index;
    let b = group.y;
    let h = group.z;
    if i >= p.t {
        return;
    }
    let row_len = 3u * p.c;
    let head = p.qkv0 + b * p.t * row_len + h * p.hd;
    var q: array<vec4<f32>, HD4>;
    var acc: array<vec4<f32>, HD4>;
    for (var d = 0u; d < HD4; d++) {
        q[d] = load_qkv(head + i * row_len + 4u * d, p.hd - 4u * d) * p.scale;
        acc[d] = vec4(0.0);
    }
    var largest = LOWEST;
    var sum = 0.0;
    let mask_row = (b * p.heads + h) * p.t + i;
    // All invocations in a workgroup go as far as its last query needs, so that their loads are the same.
    let end = min((group.x + 1u) * WG, p.t);
    for (var j0 = 0u; j0 < end; j0 += TILE) {
        var score: array<f32, TILE>;
        var tile_largest = LOWEST;
        for (var e = 0u; e < TILE; e++) {
            let j = min(j0 + e, p.t - 1u);
            let key = head + j * row_len + p.c;
            var s = vec4(0.0);
            for (var d = 0u; d < HD4; d++) {
                s = fma(q[d], load_qkv(key + 4u * d, p.hd - 4u * d), s);
            }
            score[e] = select(LOWEST, (s.x + s.y) + (s.z + s.w), j0 + e <= i);
            tile_largest = max(tile_largest, score[e]);
        }
        let new_largest = max(largest, tile_largest);
        let shrink = exp(largest - new_largest);
        sum *= shrink;
        for (var d = 0u; d < HD4; d++) {
            acc[d] *= shrink;
        }
        for (var e = 0u; e < TILE; e++) {
            let j = min(j0 + e, p.t - 1u);
            var probability = select(0.0, exp(score[e] - new_largest), j0 + e <= i);
            sum += probability;
            if DROPOUT {
                probability *= dropout_factor(vec2(p.key0, p.key1), p.threshold, p.keep_scale, mask_row, j0 + e);
            }
            let value = head + j * row_len + 2u * p.c;
            for (var d = 0u; d < HD4; d++) {
                acc[d] = fma(vec4(probability), load_qkv(value + 4u * d, p.hd - 4u * d), acc[d]);
            }
        }
        largest = new_largest;
    }
    let to = p.out0 + (b * p.t + i) * p.c + h * p.hd;
    for (var d = 0u; d < HD4; d++) {
        store_out(to + 4u * d, p.hd - 4u * d, acc[d] / sum);
    }
    lse[p.lse0 + mask_row] = largest + log(sum);
}
