// A matrix product without workgroup memory. An invocation keeps `TM` rows by `TN` vectors of C in registers and reads
// A and B from memory. For devices whose caches are as near as workgroup memory, such as software devices. Neighbouring
// invocations have neighbouring columns and the same rows.

@compute @workgroup_size(WX, WY)
fn matmul(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let row = (group.y * WY + local.y) * TM;
    let col = (group.x * WX * TN + local.x) * 4u;
    if row >= p.m || col >= p.n {
        return;
    }
    var acc: array<array<vec4<f32>, TN>, TM>;
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            acc[i][j] = vec4(0.0);
        }
    }
    for (var k = 0u; k < p.k; k += 4u) {
        // av[i] holds A[row + i, k..k+4], or with `TRANSPOSE_A` av[q·TM/4 + i] holds A[row + 4i.., k + q].
        var av: array<vec4<f32>, TM>;
        if TRANSPOSE_A {
            for (var q = 0u; q < 4u; q++) {
                for (var i = 0u; i < TM / 4u; i++) {
                    let at = min(row + 4u * i, last_group(p.m));
                    let value = load_a(p.a0 + p.skip_a + min(k + q, p.k - 1u) * p.lda + at, p.m - at);
                    av[q * (TM / 4u) + i] = select(vec4(0.0), value, k + q < p.k);
                }
            }
        } else {
            for (var i = 0u; i < TM; i++) {
                av[i] = load_a(p.a0 + p.skip_a + min(row + i, p.m - 1u) * p.lda + k, p.k - k);
            }
        }
        for (var j = 0u; j < TN; j++) {
            let at = min(col + j * 4u * WX, last_group(p.n));
            var bv: array<vec4<f32>, 4>;
            if TRANSPOSE_B {
                for (var e = 0u; e < 4u; e++) {
                    bv[e] = load_b(p.b0 + min(at + e, p.n - 1u) * p.ldb + k, p.k - k);
                }
            } else {
                for (var q = 0u; q < 4u; q++) {
                    bv[q] = load_b(p.b0 + min(k + q, p.k - 1u) * p.ldb + at, p.n - at);
                }
            }
            for (var q = 0u; q < 4u; q++) {
                var b_row = bv[q];
                if TRANSPOSE_B {
                    b_row = vec4(bv[0][q], bv[1][q], bv[2][q], bv[3][q]);
                }
                for (var i = 0u; i < TM; i++) {
                    var factor = av[i][q];
                    if TRANSPOSE_A {
                        factor = av[q * (TM / 4u) + i / 4u][i % 4u];
                    }
                    acc[i][j] = fma(vec4(factor), b_row, acc[i][j]);
                }
            }
        }
    }
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            let at = col + j * 4u * WX;
            if row + i < p.m && at < p.n {
                finish(row + i, at, acc[i][j]);
            }
        }
    }
    if COLUMN_SUMS && row == 0u {
        for (var j = 0u; j < TN; j++) {
            let at = col + j * 4u * WX;
            if at < p.n {
                finish_sums(at);
            }
        }
    }
}
