// Swiglu, and with `BACKWARD` its gradient; see `op::Swiglu` and `op::SwigluBwd`. Each invocation has four columns of a
// row. A row of `pre` and `dpre` holds the gate, then the value.

struct Params {
    pre0: u32, dout0: u32, dpre0: u32, out0: u32,
    rows: u32, cols: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> pre: array<pre_type>;
@group(0) @binding(1) var<storage, read_write> dout: array<dout_type>;
@group(0) @binding(2) var<storage, read_write> dpre: array<dpre_type>;
@group(0) @binding(3) var<storage, read_write> out: array<out_type>;

@compute @workgroup_size(WG)
fn swiglu(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let i = folded(group, groups) * WG + index;
    let groups_a_row = (p.cols + 3u) / 4u;
    let row = i / groups_a_row;
    let col = i % groups_a_row * 4u;
    if row >= p.rows {
        return;
    }
    let left = p.cols - col;
    let at = row * 2u * p.cols + col;
    let gate = load_pre(p.pre0 + at, left);
    let value = load_pre(p.pre0 + at + p.cols, left);
    let s = 1.0 / (1.0 + exp(-gate));
    let silu = gate * s;
    store_out(p.out0 + row * p.cols + col, left, silu * value);
    if BACKWARD {
        let d = load_dout(p.dout0 + row * p.cols + col, left);
        store_dpre(p.dpre0 + at, left, d * value * s * (1.0 + gate * (1.0 - s)));
        store_dpre(p.dpre0 + at + p.cols, left, d * silu);
    }
}
