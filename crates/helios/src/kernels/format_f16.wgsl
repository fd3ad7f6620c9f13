// f16, rounded to nearest, ties to even, as in IEEE 754. The device decides how `pack2x16float` rounds, so it only gets
// numbers that f16 can hold. Every device has it, also those without f16 arithmetic.
fn unpack16(words: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(words.x), unpack2x16float(words.y));
}

// In f16, numbers below 2^-14 are multiples of 2^-24; adding and subtracting 0.5 rounds to one. The sum goes through an
// integer, so that compilers cannot reorder the two.
fn rounded16(value: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(value);
    let magnitude = bits & vec4(0x7fffffffu);
    let normal = bits + 0xfffu + ((bits >> vec4(13u)) & vec4(1u));
    let shifted = bitcast<vec4<u32>>(bitcast<vec4<f32>>(magnitude) + 0.5);
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(shifted) - 0.5) | (bits & vec4(0x80000000u));
    return bitcast<vec4<f32>>(select(normal & vec4(0xffffe000u), small, magnitude < vec4(0x38800000u)));
}
fn pack16(value: vec4<f32>) -> vec2<u32> {
    let rounded = rounded16(value);
    let magnitude = bitcast<vec4<u32>>(value) & vec4(0x7fffffffu);
    let sign = (bitcast<vec4<u32>>(value) >> vec4(16u)) & vec4(0x8000u);
    let words = vec2(pack2x16float(rounded.xy), pack2x16float(rounded.zw));
    let half = vec4(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
    // Numbers from 65520 round to infinity.
    let large = sign | select(vec4(0x7c00u), vec4(0x7e00u), magnitude > vec4(0x7f800000u));
    let checked = select(half, large, magnitude >= vec4(0x477ff000u));
    return checked.xz | (checked.yw << vec2(16u));
}
