// The peaks of a device, for the roofline; `ENTRY` says which. `FMA` is multiply-adds in registers: eight independent
// chains of vectors in each invocation. `TRIAD` is `out = x + scale · y` over memory larger than caches (McCalpin,
// 1995).

struct Params {
    out0: u32, x0: u32, y0: u32,
    len: u32, iterations: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn peaks(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let i = folded(group, groups) * WG + index;
    if i >= p.len {
        return;
    }
    if ENTRY == TRIAD {
        out[i] = x[i] + p.scale * y[i];
        return;
    }
    let start = vec4(f32(i), f32(i) + 1.0, f32(i) + 2.0, f32(i) + 3.0);
    let factor = vec4(p.scale);
    var a = start; var b = start + 0.1; var c = start + 0.2; var d = start + 0.3;
    var e = start + 0.4; var f = start + 0.5; var g = start + 0.6; var h = start + 0.7;
    for (var n = 0u; n < p.iterations; n++) {
        a = fma(a, factor, start); b = fma(b, factor, start); c = fma(c, factor, start); d = fma(d, factor, start);
        e = fma(e, factor, start); f = fma(f, factor, start); g = fma(g, factor, start); h = fma(h, factor, start);
    }
    out[i] = ((a + b) + (c + d)) + ((e + f) + (g + h));
}
