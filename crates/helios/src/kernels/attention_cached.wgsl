// Attention of `n` new tokens against a key-value cache, in two dispatches; `ENTRY` says which. See
// `op::AttentionCached`. `STORE` writes the new keys and values to the cache. `ATTEND` has a workgroup for each token
// and head, which goes over the keys in tiles of `WG`: first each invocation has one key, then each has one column.

struct Params {
    qkv0: u32, k_cache0: u32, v_cache0: u32, out0: u32,
    n: u32, c: u32, heads: u32, hd: u32, scale: f32, position: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(1) var<storage, read_write> k_cache: array<f32>;
@group(0) @binding(2) var<storage, read_write> v_cache: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> probabilities: array<f32, WG>;

fn store(index: u32, row: u32) {
    let source = p.qkv0 + row * 3u * p.c;
    let to = (p.position + row) * p.c;
    for (var i = index; i < p.c; i += WG) {
        k_cache[p.k_cache0 + to + i] = qkv[source + p.c + i];
        v_cache[p.v_cache0 + to + i] = qkv[source + 2u * p.c + i];
    }
}

fn attend(index: u32, row: u32, h: u32) {
    let query = p.qkv0 + row * 3u * p.c + h * p.hd;
    let to = p.out0 + row * p.c + h * p.hd;
    let end = p.position + row + 1u;
    for (var i = index; i < p.hd; i += WG) {
        out[to + i] = 0.0;
    }
    var largest = LOWEST;
    var sum = 0.0;
    for (var j0 = 0u; j0 < end; j0 += WG) {
        let j = j0 + index;
        var score = LOWEST;
        if j < end {
            score = 0.0;
            for (var d = 0u; d < p.hd; d++) {
                score = fma(qkv[query + d], k_cache[p.k_cache0 + j * p.c + h * p.hd + d], score);
            }
            score *= p.scale;
        }
        let new_largest = max(largest, reduce_max(index, score));
        let probability = select(0.0, exp(score - new_largest), j < end);
        let shrink = exp(largest - new_largest);
        sum = sum * shrink + reduce_sum(index, probability);
        probabilities[index] = probability;
        workgroupBarrier();
        let count = min(WG, end - j0);
        for (var i = index; i < p.hd; i += WG) {
            var value = out[to + i] * shrink;
            for (var e = 0u; e < count; e++) {
                value = fma(probabilities[e], v_cache[p.v_cache0 + (j0 + e) * p.c + h * p.hd + i], value);
            }
            out[to + i] = value;
        }
        workgroupBarrier();
        largest = new_largest;
    }
    for (var i = index; i < p.hd; i += WG) {
        out[to + i] /= sum;
    }
}

@compute @workgroup_size(WG)
fn attention_cached(@builtin(local_invocation_index) index: u32, @builtin(workgroup_id) group: vec3<u32>) {
    if ENTRY == STORE {
        store(index, group.x);
    } else {
        attend(index, group.x, group.y);
    }
}
