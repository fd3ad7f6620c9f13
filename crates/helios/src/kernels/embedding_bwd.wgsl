// Backward of the embedding; see `op::EmbeddingBwd`. No number is added with atomics, so that bits repeat: the
// workgroup of a token's first occurrence adds all rows of the token, in order. Each workgroup after `rows` has one
// position.

struct Params {
    tokens0: u32, dout0: u32, dwte0: u32, dwpe0: u32,
    rows: u32, cols: u32, block: u32, positions: u32, first: u32, count: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(1) var<storage, read_write> dout: array<dout_type>;
@group(0) @binding(2) var<storage, read_write> dwte: array<dwte_type>;
@group(0) @binding(3) var<storage, read_write> dwpe: array<dwpe_type>;

var<workgroup> is_repeated: atomic<u32>;

fn token_rows(index: u32, row: u32) {
    let token = tokens[p.tokens0 + row];
    if index == 0u {
        atomicStore(&is_repeated, 0u);
    }
    workgroupBarrier();
    for (var earlier = index; earlier < row; earlier += WG) {
        if tokens[p.tokens0 + earlier] == token {
            atomicStore(&is_repeated, 1u);
        }
    }
    workgroupBarrier();
    if atomicLoad(&is_repeated) == 1u || token - p.first >= p.count {
        return;
    }
    let to = p.dwte0 + (token - p.first) * p.cols;
    for (var i = 4u * index; i < p.cols; i += 4u * WG) {
        let left = p.cols - i;
        var sum = load_dwte(to + i, left);
        for (var other = row; other < p.rows; other++) {
            if tokens[p.tokens0 + other] == token {
                sum += load_dout(p.dout0 + other * p.cols + i, left);
            }
        }
        store_dwte(to + i, left, sum);
    }
}

fn position_rows(index: u32, position: u32) {
    for (var i = 4u * index; i < p.cols; i += 4u * WG) {
        let left = p.cols - i;
        let to = p.dwpe0 + position * p.cols + i;
        var sum = vec4(0.0);
        if ACCUMULATE {
            sum = load_dwpe(to, left);
        }
        if position < p.block {
            for (var row = position; row < p.rows; row += p.block) {
                sum += load_dout(p.dout0 + row * p.cols + i, left);
            }
        }
        store_dwpe(to, left, sum);
    }
}

@compute @workgroup_size(WG)
fn embedding_bwd(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let job = folded(group, groups);
    if job < p.rows {
        token_rows(index, job);
    } else if job < p.rows + p.positions {
        position_rows(index, job - p.rows);
    }
}
