// Four consecutive elements of `NAME` with 16 bits, from a multiple of 4 on. `left` is not used.
fn load_NAME(at: u32, left: u32) -> vec4<f32> {
    return unpack16(NAME[at >> 2u]);
}
fn store_NAME(at: u32, left: u32, value: vec4<f32>) {
    NAME[at >> 2u] = pack16(value);
}
