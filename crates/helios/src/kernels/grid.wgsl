// The number of a workgroup in a one-dimensional job, whose grid folds into a second dimension if one is too short.
fn folded(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.x + group.y * groups.x;
}
