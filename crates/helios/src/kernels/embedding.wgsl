// Sum of token and position embedding; see `op::Embedding`. Each workgroup has one token.
// The bound window of `wte` holds rows `first..first + count`. Other dispatches handle other tokens.

struct Params {
    tokens0: u32, wte0: u32, wpe0: u32, out0: u32,
    rows: u32, cols: u32, block: u32, first: u32, count: u32, position: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(1) var<storage, read_write> wte: array<f32>;
@group(0) @binding(2) var<storage, read_write> wpe: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn embedding(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let row = folded(group, groups);
    if row >= p.rows {
        return;
    }
    let token = tokens[p.tokens0 + row] - p.first;
    if token >= p.count {
        return;
    }
    let from_token = p.wte0 + token * p.cols;
    let from_position = p.wpe0 + (p.position + row % p.block) * p.cols;
    for (var i = index; i < p.cols; i += WG) {
        out[p.out0 + row * p.cols + i] = wte[from_token + i] + wpe[from_position + i];
    }
}
