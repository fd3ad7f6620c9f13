// A matrix product on cooperative matrices of `MAT`·`MAT`, f16 with sums in f32. A workgroup of `WAVES_M`·`WAVES_N`
// waves (subgroups) computes a tile of C. It loads `TK` columns of A and rows of B at a time into workgroup memory,
// rounded to f16. A wave has `SUB_M`·`SUB_N` matrices of C. If subgroups are smaller than the device's largest, there
// are more waves. Matrix operations need uniform control flow, so these repeat the work of the last wave, and their
// results are not used.
//
// `LOAD_A` and `LOAD_B` depend on the tiles' layout: row after row, or transposed if A or B is stored so.

const TILE_M: u32 = WAVES_M * SUB_M * MAT;
const TILE_N: u32 = WAVES_N * SUB_N * MAT;
const WAVES: u32 = WAVES_M * WAVES_N;
// Elements of padding, so that the rows of a matrix lie in different banks and begin at multiples of 16 bytes.
const PAD: u32 = 8u;
const STRIDE_A: u32 = select(TK, TILE_M, TRANSPOSE_A) + PAD;
const STRIDE_B: u32 = select(TILE_N, TK, TRANSPOSE_B) + PAD;

var<workgroup> tile_a: array<f16, select(TILE_M, TK, TRANSPOSE_A) * STRIDE_A>;
var<workgroup> tile_b: array<f16, select(TK, TILE_N, TRANSPOSE_B) * STRIDE_B>;
var<workgroup> tile_c: array<f32, SLOTS * MAT * MAT>;

fn keep_a(i: u32, q: u32, value: vec4<f32>) {
    let at = select(i * STRIDE_A + q, q * STRIDE_A + i, TRANSPOSE_A);
    for (var e = 0u; e < 4u; e++) {
        tile_a[at + e] = f16(value[e]);
    }
}

fn keep_b(q: u32, j: u32, value: vec4<f32>) {
    let at = select(q * STRIDE_B + j, j * STRIDE_B + q, TRANSPOSE_B);
    for (var e = 0u; e < 4u; e++) {
        tile_b[at + e] = f16(value[e]);
    }
}

@compute @workgroup_size(THREADS)
fn matmul(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
) {
    let row0 = group.y * TILE_M;
    let col0 = group.x * TILE_N;
    let wave = min(subgroup, WAVES - 1u);
    let wave_row = wave / WAVES_N * SUB_M * MAT;
    let wave_col = wave % WAVES_N * SUB_N * MAT;
    var acc: array<array<matrix_c, SUB_N>, SUB_M>;
    for (var i = 0u; i < SUB_M; i++) {
        for (var j = 0u; j < SUB_N; j++) {
            acc[i][j] = matrix_c();
        }
    }
    let stride_a = STRIDE_A;
    let stride_b = STRIDE_B;
    for (var k0 = 0u; k0 < p.k; k0 += TK) {
        stage_a(index, row0, k0);
        stage_b(index, col0, k0);
        workgroupBarrier();
        for (var k = 0u; k < TK; k += MAT) {
            var b_row: array<matrix_b, SUB_N>;
            for (var j = 0u; j < SUB_N; j++) {
                let col = wave_col + j * MAT;
                let at = select(k * STRIDE_B + col, col * STRIDE_B + k, TRANSPOSE_B);
                b_row[j] = LOAD_B<matrix_b>(&tile_b[at], stride_b);
            }
            for (var i = 0u; i < SUB_M; i++) {
                let row = wave_row + i * MAT;
                let at = select(row * STRIDE_A + k, k * STRIDE_A + row, TRANSPOSE_A);
                let a_row = LOAD_A<matrix_a>(&tile_a[at], stride_a);
                for (var j = 0u; j < SUB_N; j++) {
                    acc[i][j] = coopMultiplyAdd(a_row, b_row[j], acc[i][j]);
                }
            }
        }
        workgroupBarrier();
    }
    let slot = subgroup * MAT * MAT;
    let stride_c = MAT;
    for (var i = 0u; i < SUB_M; i++) {
        for (var j = 0u; j < SUB_N; j++) {
            coopStoreT(acc[i][j], &tile_c[slot], stride_c);
            workgroupBarrier();
            for (var t = index; t < WAVES * MAT * MAT / 4u; t += THREADS) {
                let from_wave = t / (MAT * MAT / 4u);
                let within = t % (MAT * MAT / 4u) * 4u;
                let row = row0 + (from_wave / WAVES_N * SUB_M + i) * MAT + within / MAT;
                let col = col0 + (from_wave % WAVES_N * SUB_N + j) * MAT + within % MAT;
                if row < p.m && col < p.n {
                    let at = t * 4u;
                    finish(row, col, vec4(tile_c[at], tile_c[at + 1u], tile_c[at + 2u], tile_c[at + 3u]));
                }
            }
            workgroupBarrier();
        }
    }
    if COLUMN_SUMS && row0 == 0u {
        for (var t = index; t < TILE_N / 4u; t += THREADS) {
            if col0 + 4u * t < p.n {
                finish_sums(col0 + 4u * t);
            }
        }
    }
}
