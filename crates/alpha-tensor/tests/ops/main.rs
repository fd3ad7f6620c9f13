//! Every operation on every backend against the f64 reference, and the reference's backward
//! against finite differences. One module for each operation family; `harness.rs` does the work.

#![expect(clippy::print_stdout, reason = "tests say which backends they skipped")]

mod harness;
mod backends;
mod linear;
mod activation;
mod layer_norm;
mod attention;
mod embedding;
mod head;
mod dropout;
mod optimizer;
mod sixteen;

use std::collections::BTreeSet;

use alpha_tensor::Op;

/// The cases that each family's `every_backend_agrees_with_the_reference` runs.
fn all_cases() -> Vec<harness::Case> {
    [
        linear::cases(),
        activation::cases(),
        layer_norm::cases(),
        attention::cases(),
        embedding::cases(),
        head::cases(),
        dropout::cases(),
        optimizer::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_operation_is_tested() {
    let tested: BTreeSet<&str> = all_cases().iter().flat_map(harness::Case::op_names).collect();
    let missing: Vec<_> = Op::NAMES.iter().filter(|name| !tested.contains(*name)).collect();
    assert!(missing.is_empty(), "no case in tests/ops exercises {missing:?}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    harness::check_same_bits(all_cases(), backends::cpu_by_threads());
}
