// bf16: the upper half of an f32, rounded to nearest, ties to even. NaN stays NaN.
fn unpack16(words: vec2<u32>) -> vec4<f32> {
    let low = words << vec2(16u);
    let high = words & vec2(0xffff0000u);
    return bitcast<vec4<f32>>(vec4(low.x, high.x, low.y, high.y));
}
fn pack16(value: vec4<f32>) -> vec2<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let rounded = (bits + 0x7fffu + ((bits >> vec4(16u)) & vec4(1u))) >> vec4(16u);
    let is_nan = (bits & vec4(0x7fffffffu)) > vec4(0x7f800000u);
    let half = select(rounded, vec4(0x7fc0u), is_nan);
    return half.xz | (half.yw << vec2(16u));
}
