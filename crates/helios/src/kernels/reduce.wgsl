// Sums and maxima over a workgroup of `WG` invocations, as a tree of fixed shape, so that the subgroup size changes no
// bit. Every invocation gets the result. Control flow must be uniform.

var<workgroup> reduce_values: array<f32, WG>;

fn reduce_sum(index: u32, value: f32) -> f32 {
    reduce_values[index] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if index < half {
            reduce_values[index] += reduce_values[index + half];
        }
        workgroupBarrier();
    }
    let total = reduce_values[0];
    workgroupBarrier();
    return total;
}

fn reduce_max(index: u32, value: f32) -> f32 {
    reduce_values[index] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if index < half {
            reduce_values[index] = max(reduce_values[index], reduce_values[index + half]);
        }
        workgroupBarrier();
    }
    let largest = reduce_values[0];
    workgroupBarrier();
    return largest;
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// The first `left` elements of a vector; the others are 0, because they are beyond the row.
fn inside(v: vec4<f32>, left: u32) -> vec4<f32> {
    return select(vec4(0.0), v, vec4(0u, 1u, 2u, 3u) < vec4(left));
}
