// Threefry-2x32-20 (Salmon et al., SC 2011, section 4.2): the same bits as `alpha_tensor::rng`.

fn rotate_left(x: u32, by: u32) -> u32 {
    return (x << by) | (x >> (32u - by));
}

fn four_rounds(x: vec2<u32>, r0: u32, r1: u32, r2: u32, r3: u32) -> vec2<u32> {
    var y = x;
    y.x += y.y; y.y = rotate_left(y.y, r0) ^ y.x;
    y.x += y.y; y.y = rotate_left(y.y, r1) ^ y.x;
    y.x += y.y; y.y = rotate_left(y.y, r2) ^ y.x;
    y.x += y.y; y.y = rotate_left(y.y, r3) ^ y.x;
    return y;
}

fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let k2 = 0x1BD11BDAu ^ key.x ^ key.y;
    var x = counter + key;
    x = four_rounds(x, 13u, 15u, 26u, 6u) + vec2(key.y, k2 + 1u);
    x = four_rounds(x, 17u, 29u, 16u, 24u) + vec2(k2, key.x + 2u);
    x = four_rounds(x, 13u, 15u, 26u, 6u) + vec2(key.x, key.y + 3u);
    x = four_rounds(x, 17u, 29u, 16u, 24u) + vec2(key.y, k2 + 4u);
    x = four_rounds(x, 13u, 15u, 26u, 6u) + vec2(k2, key.x + 5u);
    return x;
}

// 0 or `scale`, for element (row, col) of a mask: word `col % 2` of counter `[col / 2, row]`.
fn dropout_factor(key: vec2<u32>, threshold: u32, scale: f32, row: u32, col: u32) -> f32 {
    let words = threefry(key, vec2(col / 2u, row));
    let word = select(words.x, words.y, (col & 1u) == 1u);
    return select(0.0, scale, word >= threshold);
}
