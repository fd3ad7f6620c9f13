// Four consecutive elements of `NAME`. Only `left` of them belong to the row; the others read as 0.
fn load_NAME(at: u32, left: u32) -> vec4<f32> {
    let last = at + min(left, 4u) - 1u;
    let value = vec4(NAME[at], NAME[min(at + 1u, last)], NAME[min(at + 2u, last)], NAME[min(at + 3u, last)]);
    return select(vec4(0.0), value, vec4(0u, 1u, 2u, 3u) < vec4(left));
}
fn store_NAME(at: u32, left: u32, value: vec4<f32>) {
    NAME[at] = value.x;
    if left > 1u { NAME[at + 1u] = value.y; }
    if left > 2u { NAME[at + 2u] = value.z; }
    if left > 3u { NAME[at + 3u] = value.w; }
}
