// Workgroups of a one-dimensional job: the grid folds into a second dimension where one is too short.
fn folded(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.x + group.y * groups.x;
}
