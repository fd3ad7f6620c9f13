// A matrix product staged in workgroup memory. `WX`·`WY` invocations compute a tile of 4·`WX`·`TN` columns and
// `WY`·`TM` rows of C. They load `TK` columns of A and rows of B at a time. For devices whose workgroup memory is much
// nearer than their caches: discrete and integrated GPUs.

const TILE_M: u32 = WY * TM;
const TILE_N: u32 = WX * TN * 4u;
const THREADS: u32 = WX * WY;
// One column of padding, so that writes of A's transpose go to different banks.
const STRIDE_A: u32 = TILE_M + 1u;

var<workgroup> tile_a: array<f32, TK * STRIDE_A>;
var<workgroup> tile_b: array<f32, TK * TILE_N>;

fn keep_a(i: u32, q: u32, value: vec4<f32>) {
    for (var e = 0u; e < 4u; e++) {
        if TRANSPOSE_A {
            tile_a[q * STRIDE_A + i + e] = value[e];
        } else {
            tile_a[(q + e) * STRIDE_A + i] = value[e];
        }
    }
}

fn keep_b(q: u32, j: u32, value: vec4<f32>) {
    for (var e = 0u; e < 4u; e++) {
        if TRANSPOSE_B {
            tile_b[(q + e) * TILE_N + j] = value[e];
        } else {
            tile_b[q * TILE_N + j + e] = value[e];
        }
    }
}

@compute @workgroup_size(WX, WY)
fn matmul(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
) {
    let row0 = group.y * TILE_M;
    let col0 = group.x * TILE_N;
    var acc: array<array<vec4<f32>, TN>, TM>;
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            acc[i][j] = vec4(0.0);
        }
    }
    for (var k0 = 0u; k0 < p.k; k0 += TK) {
        stage_a(index, row0, k0);
        stage_b(index, col0, k0);
        workgroupBarrier();
        for (var k = 0u; k < TK; k++) {
            var bv: array<vec4<f32>, TN>;
            for (var j = 0u; j < TN; j++) {
                let at = k * TILE_N + (local.x + j * WX) * 4u;
                bv[j] = vec4(tile_b[at], tile_b[at + 1u], tile_b[at + 2u], tile_b[at + 3u]);
            }
            for (var i = 0u; i < TM; i++) {
                let factor = vec4(tile_a[k * STRIDE_A + local.y * TM + i]);
                for (var j = 0u; j < TN; j++) {
                    acc[i][j] = fma(factor, bv[j], acc[i][j]);
                }
            }
        }
        workgroupBarrier();
    }
    let row = row0 + local.y * TM;
    for (var j = 0u; j < TN; j++) {
        let at = col0 + (local.x + j * WX) * 4u;
        if at < p.n {
            for (var i = 0u; i < TM; i++) {
                if row + i < p.m {
                    finish(row + i, at, acc[i][j]);
                }
            }
            if COLUMN_SUMS && row == 0u {
                finish_sums(at);
            }
        }
    }
}
