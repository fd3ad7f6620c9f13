// Loads a tile of A [`TILE_M`, `TK`] and one of B [`TK`, `TILE_N`] into workgroup memory, four numbers at a time: along
// the dimension in which A or B is contiguous. Numbers of A beyond k are 0. The kernel's `keep_a(i, q, four)` and
// `keep_b(q, j, four)` store the numbers.

fn stage_a(index: u32, row0: u32, k0: u32) {
    if TRANSPOSE_A {
        for (var t = index; t < TK * TILE_M / 4u; t += THREADS) {
            let q = t / (TILE_M / 4u);
            let i = t % (TILE_M / 4u) * 4u;
            let at = min(row0 + i, last_group(p.m));
            var value = load_a(p.a0 + p.skip_a + min(k0 + q, p.k - 1u) * p.lda + at, p.m - at);
            value = select(vec4(0.0), value, k0 + q < p.k);
            keep_a(i, q, value);
        }
    } else {
        for (var t = index; t < TK / 4u * TILE_M; t += THREADS) {
            let i = t / (TK / 4u);
            let q = t % (TK / 4u) * 4u;
            let at = min(k0 + q, last_group(p.k));
            var value = load_a(p.a0 + p.skip_a + min(row0 + i, p.m - 1u) * p.lda + at, p.k - at);
            value = select(vec4(0.0), value, k0 + q < p.k);
            keep_a(i, q, value);
        }
    }
}

fn stage_b(index: u32, col0: u32, k0: u32) {
    if TRANSPOSE_B {
        for (var t = index; t < TK / 4u * TILE_N; t += THREADS) {
            let j = t / (TK / 4u);
            let q = t % (TK / 4u) * 4u;
            let at = min(k0 + q, last_group(p.k));
            let value = load_b(p.b0 + min(col0 + j, p.n - 1u) * p.ldb + at, p.k - at);
            keep_b(q, j, value);
        }
    } else {
        for (var t = index; t < TK * TILE_N / 4u; t += THREADS) {
            let q = t / (TILE_N / 4u);
            let j = t % (TILE_N / 4u) * 4u;
            let at = min(col0 + j, last_group(p.n));
            let value = load_b(p.b0 + min(k0 + q, p.k - 1u) * p.ldb + at, p.n - at);
            keep_b(q, j, value);
        }
    }
}
