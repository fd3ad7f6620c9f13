//! How far each tensor moved in a step: read from the weights before and after it, a chunk at a time.
//!
//! Δw is `after − before`, summed in f64 whatever the file's type. The ±1 signs of the projection depend on seed,
//! tensor and element alone, so the projections p and q of updates Δw and Δv of two trainers can be subtracted: over
//! random signs the mean of (p − q)² is ‖Δw − Δv‖² (Achlioptas, 2003), which a comparison of norms cannot show.

mod file;

use std::{ops::Range, path::Path};

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use self::file::WeightsFile;
use crate::LoopError;

/// The update of one tensor. Elements that are exempt or not finite are left out of all sums.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorUpdate {
    /// Its name in the file.
    pub name: String,
    /// Elements that are not exempt.
    pub len: u64,
    /// ‖Δw‖.
    pub norm: f64,
    /// ⟨Δw, w⟩, w the weights before.
    pub dot: f64,
    /// ‖w‖.
    pub weight_norm: f64,
    /// Σ ±Δw with signs drawn from the seed.
    pub projection: f64,
    /// max |Δw|.
    pub max_abs: f64,
    /// Whether all weights, before and after, are finite.
    pub is_finite: bool,
}

/// The updates of all tensors between two files, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateCheck {
    /// The seed of the projections' signs.
    pub seed: u64,
    /// Every tensor that is not completely exempt.
    pub tensors: Vec<TensorUpdate>,
}

impl UpdateCheck {
    /// Compares the weights before a step with those after it.
    pub fn between(before: &Path, after: &Path, seed: u64, exempt: &[Exempt]) -> Result<UpdateCheck, LoopError> {
        let (mut before, mut after) = (WeightsFile::open(before)?, WeightsFile::open(after)?);
        let names = |file: &WeightsFile| file.tensors.keys().cloned().collect::<Vec<_>>();
        let shared = names(&before);
        if let Some(name) = shared.iter().find(|name| !after.tensors.contains_key(*name)) {
            return Err(after.broken(&format!("has no tensor `{name}`, which `{}` has", before.path.display())));
        }
        if let Some(name) = names(&after).iter().find(|name| !before.tensors.contains_key(*name)) {
            return Err(before.broken(&format!("has no tensor `{name}`, which `{}` has", after.path.display())));
        }
        let mut tensors = Vec::new();
        for name in shared {
            let skipped = exempt_parts(&name, before.tensors[&name].len(), exempt)?;
            let update = tensor_update(&mut before, &mut after, &name, seed, &skipped)?;
            if update.len > 0 {
                tensors.push(update);
            }
        }
        Ok(UpdateCheck { seed, tensors })
    }
}

/// Elements in memory at a time. A multiple of 8: each byte of the signs serves 8 elements.
const CHUNK: usize = 1 << 16;

fn tensor_update(
    before: &mut WeightsFile,
    after: &mut WeightsFile,
    name: &str,
    seed: u64,
    skipped: &[Range<usize>],
) -> Result<TensorUpdate, LoopError> {
    let (old, new) = (before.tensors[name].clone(), after.tensors[name].clone());
    if (&old.shape, old.dtype) != (&new.shape, new.dtype) {
        return Err(after.broken(&format!(
            "tensor `{name}` is {} {:?}, before it was {} {:?}",
            new.dtype, new.shape, old.dtype, old.shape
        )));
    }
    let mut signs = signs(seed, name);
    let mut sign_bits = vec![0; CHUNK / 8];
    let (mut olds, mut news) = (Vec::new(), Vec::new());
    let mut update = TensorUpdate { name: name.into(), is_finite: true, ..TensorUpdate::default() };
    let (mut squares, mut weight_squares) = (0.0, 0.0);
    for first in (0..old.len()).step_by(CHUNK) {
        let count = CHUNK.min(old.len() - first);
        before.read(&old, first, count, &mut olds)?;
        after.read(&new, first, count, &mut news)?;
        signs.fill(&mut sign_bits);
        for (i, (&old, &new)) in olds.iter().zip(&news).enumerate() {
            let delta = new - old;
            if !delta.is_finite() {
                update.is_finite = false;
                continue;
            }
            if skipped.iter().any(|part| part.contains(&(first + i))) {
                continue;
            }
            update.len += 1;
            squares += delta * delta;
            weight_squares += old * old;
            update.dot += delta * old;
            update.projection += if sign_bits[i / 8] >> (i % 8) & 1 == 1 { delta } else { -delta };
            update.max_abs = update.max_abs.max(delta.abs());
        }
    }
    (update.norm, update.weight_norm) = (squares.sqrt(), weight_squares.sqrt());
    Ok(update)
}

/// An endless stream of bits, one per element.
fn signs(seed: u64, name: &str) -> blake3::OutputReader {
    blake3::Hasher::new().update(&seed.to_le_bytes()).update(name.as_bytes()).finalize_xof()
}

/// Tensors, or equal parts of them, whose update is meaningless because their gradient is zero except for rounding.
///
/// Read from `<glob>` or `<glob> part <i> of <n>`, counted from 1. The bias of the keys is such a tensor: softmax does
/// not change when all its inputs are shifted. Where query, key and value share one bias, it is
/// `*.attn.c_attn.bias part 2 of 3`.
#[derive(Clone, Debug)]
pub struct Exempt {
    tensor: GlobMatcher,
    part: usize,
    parts: usize,
}

impl Exempt {
    /// Reads the form above.
    pub fn parse(text: &str) -> Result<Exempt, LoopError> {
        let wrong = |why: &str| {
            LoopError::usage(format!("`{text}` exempts nothing: {why}"))
                .hint("write a glob of tensor names, or `<glob> part 2 of 3`")
        };
        let (glob, part, parts) = match text.split_whitespace().collect::<Vec<_>>()[..] {
            [glob] => (glob, Ok(1), Ok(1)),
            [glob, "part", part, "of", parts] => (glob, part.parse(), parts.parse()),
            _ => return Err(wrong("found other words than expected")),
        };
        let tensor = Glob::new(glob).map_err(|error| wrong(&error.to_string()))?.compile_matcher();
        match (part, parts) {
            (Ok(part), Ok(parts)) if 1 <= part && part <= parts => Ok(Exempt { tensor, part, parts }),
            _ => Err(wrong("parts are counted from 1")),
        }
    }
}

/// The elements of a tensor that are exempt.
fn exempt_parts(name: &str, len: usize, exempt: &[Exempt]) -> Result<Vec<Range<usize>>, LoopError> {
    let matching = exempt.iter().filter(|exempt| exempt.tensor.is_match(name));
    let parts = matching.map(|&Exempt { part, parts, .. }| {
        if !len.is_multiple_of(parts) {
            return Err(LoopError::usage(format!(
                "tensor `{name}` has {len} elements, which is not a multiple of {parts}"
            ))
            .hint("correct what `loop.toml` exempts from the update check"));
        }
        Ok(len / parts * (part - 1)..len / parts * part)
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
    use std::path::PathBuf;
    use tempfile::TempDir;

    fn f32_file(folder: &TempDir, name: &str, tensors: &[(&str, &[f32])]) -> PathBuf {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let views = std::iter::zip(tensors, &bytes)
            .map(|((name, values), bytes)| (*name, TensorView::new(Dtype::F32, vec![values.len()], bytes).unwrap()));
        let path = folder.path().join(name);
        serialize_to_file(views, None, &path).unwrap();
        path
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "found {found}, expected {expected}");
    }

    #[test]
    fn sums_over_golden_weights_are_those_of_the_official_reader() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tied-gelu/model.safetensors");
        let bytes = std::fs::read(&golden).unwrap();
        let model = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |view: &TensorView<'_>| -> Vec<f32> {
            view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
        };
        let folder = tempfile::tempdir().unwrap();
        let after = folder.path().join("after");
        // Each number moves by something of either sign.
        let moved: Vec<(&str, Vec<usize>, Vec<u8>)> = model
            .iter()
            .map(|(name, view)| {
                let moved = numbers(&view).into_iter().map(|w| w + 0.1 * (40.0 * w).cos());
                (name, view.shape().to_vec(), moved.flat_map(f32::to_le_bytes).collect())
            })
            .collect();
        let views = moved
            .iter()
            .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        serialize_to_file(views, None, &after).unwrap();

        let check = UpdateCheck::between(&golden, &after, 1, &[]).unwrap();
        assert_eq!(check.tensors.len(), model.len());
        for update in &check.tensors {
            let old = numbers(&model.tensor(&update.name).unwrap());
            let pairs = || old.iter().map(|&w| (f64::from(w), f64::from(w + 0.1 * (40.0 * w).cos()) - f64::from(w)));
            assert_eq!((update.len, update.is_finite), (old.len() as u64, true));
            assert_near(update.norm, pairs().map(|(_, delta)| delta * delta).sum::<f64>().sqrt());
            assert_near(update.weight_norm, pairs().map(|(old, _)| old * old).sum::<f64>().sqrt());
            assert_near(update.dot, pairs().map(|(old, delta)| old * delta).sum());
            assert_near(update.max_abs, pairs().map(|(_, delta)| delta.abs()).fold(0.0, f64::max));
            assert!(update.projection.abs() <= pairs().map(|(_, delta)| delta.abs()).sum());
        }
        let unmoved = UpdateCheck::between(&golden, &golden, 1, &[]).unwrap();
        assert!(unmoved.tensors.iter().all(|t| t.norm == 0.0 && t.projection == 0.0 && t.max_abs == 0.0));
    }

    #[test]
    fn projections_of_two_arms_show_how_far_apart_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let len = CHUNK + 1001; // over the end of a chunk
        let w: Vec<f32> = (0..len).map(|_| random.f32()).collect();
        let one: Vec<f32> = w.iter().map(|w| w + 1e-3).collect();
        let other: Vec<f32> = w.iter().map(|w| w + if random.bool() { 1e-3 } else { -1e-3 }).collect();
        let paths = [("w", &w), ("one", &one), ("other", &other)].map(|(name, w)| f32_file(&folder, name, &[("t", w)]));
        let apart: f64 =
            std::iter::zip(&one, &other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
        let seeds = 300;
        let squares: f64 = (0..seeds)
            .map(|seed| {
                let check = |after| UpdateCheck::between(&paths[0], after, seed, &[]).unwrap().tensors[0].clone();
                let (one, other) = (check(&paths[1]), check(&paths[2]));
                assert!((one.norm / other.norm - 1.0).abs() < 1e-3, "norms do not tell them apart");
                (one.projection - other.projection).powi(2)
            })
            .sum();
        // A square of a normal number has relative deviation √2: 4 standard errors.
        let ratio = squares / seeds as f64 / apart;
        assert!((ratio - 1.0).abs() < 4.0 * (2.0 / seeds as f64).sqrt(), "{ratio}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_told_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let before = f32_file(&folder, "before", &[("a", &[1.0, 2.0, 3.0]), ("b", &[0.0])]);
        let after = f32_file(&folder, "after", &[("a", &[1.5, f32::NAN, f32::INFINITY]), ("b", &[1.0])]);
        let check = UpdateCheck::between(&before, &after, 0, &[]).unwrap();
        assert_eq!(
            check.tensors.iter().map(|t| (t.is_finite, t.norm, t.len)).collect::<Vec<_>>(),
            [(false, 0.5, 1), (true, 1.0, 1)]
        );
    }

    #[test]
    fn exempt_parts_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let before = f32_file(&folder, "before", &[("h.0.attn.bias", &[0.0; 6]), ("key", &[0.0])]);
        let after = f32_file(&folder, "after", &[("h.0.attn.bias", &[1.0, 1.0, 5.0, 5.0, 1.0, 1.0]), ("key", &[9.0])]);
        let exempt = ["h.*.attn.bias part 2 of 3", "k?y"].map(|text| Exempt::parse(text).unwrap());
        let check = UpdateCheck::between(&before, &after, 0, &exempt).unwrap();
        let [update] = &check.tensors[..] else { panic!("{check:?}") };
        assert_eq!((update.len, update.norm, update.max_abs), (4, 2.0, 1.0));
        let fifth = [Exempt::parse("*.bias part 2 of 5").unwrap()];
        let error = UpdateCheck::between(&before, &after, 0, &fifth).unwrap_err().to_string();
        assert!(error.contains("6 elements, which is not a multiple of 5"), "{error}");
        for text in ["", "a part 0 of 3", "a part 4 of 3", "a part 1 of 0", "a part x of 3", "a b", "[", "a part 1 of"]
        {
            assert_eq!(Exempt::parse(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn files_that_do_not_fit_together_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let one = f32_file(&folder, "one", &[("a", &[1.0])]);
        let two = f32_file(&folder, "two", &[("a", &[1.0]), ("b", &[1.0])]);
        for (before, after) in [(&one, &two), (&two, &one)] {
            let error = UpdateCheck::between(before, after, 0, &[]).unwrap_err().to_string();
            assert!(error.contains("one`: has no tensor `b`"), "{error}");
        }
        let cut = f32_file(&folder, "cut", &[("a", &[])]);
        let error = UpdateCheck::between(&one, &cut, 0, &[]).unwrap_err().to_string();
        assert!(error.contains("tensor `a` is F32 [0], before it was F32 [1]"), "{error}");
    }
}
