//! The weights of a checkpoint, to and from the backend.
//!
//! Written as f32 under `transformer.…` names. Read with that prefix, without it, or with those that wrappers of PyTorch put
//! before it; as f32, f16 or bf16; from one file or from the shards of an index; `attn.bias` and `attn.masked_bias` (the
//! causal mask of old files) left out. Tied weights may be there under either name. Linear layers may be transposed, as
//! `nn.Linear` keeps them where GPT-2's own `Conv1D` does not: the shape of `attn.c_attn.weight`, which is never square, tells
//! for all. A model without biases has them in the file as zeros.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use alpha_nn::ParamLayout;
use alpha_tensor::{Backend, Region, Tensor};
use serde::Deserialize;

use super::safetensors::{CHUNK, SafetensorsFile, TensorSpec, write_f32};
use crate::{error::TrainError, inspect::nonfinite};

/// Name of the file that holds all weights.
pub const FILE_NAME: &str = "model.safetensors";

/// Name of the file that says which shard holds which weight.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// A tensor of the file.
struct Entry {
    spec: TensorSpec,
    /// Its place, or none for a bias that the model does not have: zeros in the file.
    place: Option<Tensor>,
}

impl Entry {
    fn len(&self) -> usize {
        self.spec.dims.iter().product()
    }
}

/// The tensors of the file, in order.
fn entries(layout: &ParamLayout) -> Vec<Entry> {
    let has_bias = layout.tensors.ln_f.bias.is_some();
    let mut entries = Vec::new();
    for param in &layout.params {
        let spec = TensorSpec { name: param.name.clone(), dims: param.dims.clone() };
        entries.push(Entry { spec, place: Some(param.tensor) });
        let prefix = param.name.strip_suffix(".weight").filter(|prefix| !is_embedding(prefix) && !has_bias);
        if let Some(prefix) = prefix {
            let spec = TensorSpec { name: format!("{prefix}.bias"), dims: vec![param.tensor.cols] };
            entries.push(Entry { spec, place: None });
        }
    }
    entries
}

/// Embeddings and the head have no bias in GPT-2.
fn is_embedding(prefix: &str) -> bool {
    matches!(bare(prefix), "wte" | "wpe" | "lm_head")
}

/// Prefixes of the names of GPT-2's tensors in some files: from `torch.compile`, from `DistributedDataParallel`, from a
/// module that holds the model as `model`, and from transformers.
const PREFIXES: [&str; 4] = ["_orig_mod.", "module.", "model.", "transformer."];

/// A name without the prefixes that some files have.
fn bare(mut name: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// Whether a tensor is the matrix of a linear layer, by its bare name.
fn is_linear(bare: &str) -> bool {
    bare.starts_with("h.") && [".c_attn.weight", ".c_proj.weight", ".c_fc.weight"].iter().any(|end| bare.ends_with(end))
}

/// Writes `model.safetensors`.
pub fn write_params(out: &mut dyn io::Write, layout: &ParamLayout, backend: &mut dyn Backend) -> io::Result<()> {
    let (specs, places): (Vec<TensorSpec>, Vec<Option<Tensor>>) =
        entries(layout).into_iter().map(|entry| (entry.spec, entry.place)).unzip();
    let metadata = BTreeMap::from([("format".into(), "pt".into())]);
    write_f32(out, metadata, &specs, |index, first, values| {
        let Some(place) = places[index] else {
            values.fill(0.0);
            return Ok(());
        };
        backend.read(Region::Params, place.offset + first, values).map_err(io::Error::other)
    })
}

/// Reads the weights of a folder in Hugging Face's GPT-2 layout into [`Region::Params`]. `layout`
/// is that of the folder's `config.json`; its block may be smaller than the file's. Everything is
/// checked by name and shape before the first weight is written.
pub fn load_params(dir: &Path, layout: &ParamLayout, backend: &mut dyn Backend) -> Result<(), TrainError> {
    let mut source = Source::open(dir)?;
    let entries = entries(layout);
    let plan = source.plan(&entries, dir)?;
    for (entry, found) in entries.iter().zip(plan) {
        match (entry.place, found) {
            (Some(place), Some(found)) if found.is_transposed => {
                let [rows, cols] = [place.rows, place.cols];
                let mut content = vec![0.0; entry.len()];
                source.files[found.file].read_f32(&found.name, entry.len(), |first, values| {
                    for (index, value) in (first..).zip(values) {
                        content[index % rows * cols + index / rows] = *value;
                    }
                    Ok(())
                })?;
                backend.write(Region::Params, place.offset, &content)?;
            }
            (Some(place), Some(found)) => {
                source.files[found.file].read_f32(&found.name, entry.len(), |first, values| {
                    Ok(backend.write(Region::Params, place.offset + first, values)?)
                })?;
            }
            (None, Some(found)) => {
                let fault = |path, tensor| {
                    let why = "is not zero, but `config.json` says `\"alpha_bias\": false`";
                    TrainError::TensorValues { path, tensor, why, hint: None }
                };
                let is_zero = |_, values: &[f32]| Ok(values.iter().all(|&value| value == 0.0));
                source.check_values(&found, entry.len(), fault, is_zero)?;
            }
            (_, None) => {}
        }
    }
    source.check_head(layout, backend)
}

/// [`load_params`] for callers that only use the model: values that are not finite are an error. (A run that leaves such
/// updates out may go on from them.)
pub fn load_finite_params(dir: &Path, layout: &ParamLayout, backend: &mut dyn Backend) -> Result<(), TrainError> {
    load_params(dir, layout, backend)?;
    match nonfinite::first_bad_param(layout, backend)? {
        None => Ok(()),
        Some(param) => Err(TrainError::TensorValues {
            path: dir.into(),
            tensor: param.name.clone(),
            why: "has values that are not finite",
            hint: Some("use a checkpoint from before the training went wrong"),
        }),
    }
}

/// A tensor in one of the source's files.
#[derive(Clone, Debug)]
struct Found {
    file: usize,
    name: String,
    /// Its rows are the model's columns.
    is_transposed: bool,
}

/// All files of a folder's weights.
struct Source {
    files: Vec<SafetensorsFile>,
    /// By bare name.
    tensors: BTreeMap<String, Found>,
}

impl Source {
    fn open(dir: &Path) -> Result<Source, TrainError> {
        let (whole, index) = (dir.join(FILE_NAME), dir.join(INDEX_NAME));
        let mut source = Source { files: Vec::new(), tensors: BTreeMap::new() };
        if whole.exists() {
            source.add(&whole, None)?;
        } else if index.exists() {
            source.add_shards(dir, &index)?;
        } else {
            let is_pickled = dir.join("pytorch_model.bin").exists();
            let hint = if is_pickled {
                "only safetensors is read: save the model again with `save_pretrained` of transformers"
            } else {
                "give a folder in Hugging Face layout: `config.json` and `model.safetensors`"
            };
            return Err(TrainError::MissingFile { path: whole, hint });
        }
        Ok(source)
    }

    /// Adds a file's tensors; with an index, only those that it places in this file.
    fn add(&mut self, path: &Path, index: Option<(&BTreeMap<String, String>, &str)>) -> Result<(), TrainError> {
        let file = SafetensorsFile::open(path)?;
        let is_taken = |name: &&String| index.is_none_or(|(map, shard)| map.get(*name).is_some_and(|of| of == shard));
        for name in file.header().tensors.keys().filter(|name| !is_mask(name)).filter(is_taken) {
            let found = Found { file: self.files.len(), name: name.clone(), is_transposed: false };
            if self.tensors.insert(bare(name).into(), found).is_some() {
                return Err(TrainError::broken(path, format!("tensor `{name}` is there twice")));
            }
        }
        self.files.push(file);
        Ok(())
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), TrainError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let bytes = fs::read(index).map_err(|source| TrainError::io("read", index, source))?;
        let Index { weight_map } = serde_json::from_slice(&bytes).map_err(|error| TrainError::broken(index, error))?;
        let mut opened: HashMap<&str, usize> = HashMap::new();
        for (tensor, shard) in &weight_map {
            if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
                return Err(TrainError::broken(index, format!("shard `{shard}` is not a plain file name")));
            }
            let file = if let Some(&file) = opened.get(shard.as_str()) {
                file
            } else {
                let path = dir.join(shard);
                if !path.exists() {
                    return Err(TrainError::MissingFile { path, hint: "copy or download every shard of the index" });
                }
                self.add(&path, Some((&weight_map, shard)))?;
                opened.insert(shard, self.files.len() - 1);
                self.files.len() - 1
            };
            if !self.files[file].header().tensors.contains_key(tensor) {
                let path = self.files[file].path();
                return Err(TrainError::broken(path, format!("it has no tensor `{tensor}`, the index says it has")));
            }
        }
        Ok(())
    }

    /// Finds every entry and checks shapes; nothing is left over.
    fn plan(&self, entries: &[Entry], dir: &Path) -> Result<Vec<Option<Found>>, TrainError> {
        let mut rest = self.tensors.clone();
        let mut plan = Vec::with_capacity(entries.len());
        let path = || if let [file] = &self.files[..] { file.path().into() } else { dir.into() };
        let are_transposed = self.are_linear_transposed(entries);
        let is_tied = !entries.iter().any(|entry| bare(&entry.spec.name) == HEAD);
        for Entry { spec, place } in entries {
            let name = bare(&spec.name);
            let mut found = rest.remove(name);
            if name == EMBEDDING && is_tied && found.is_none() {
                found = rest.remove(HEAD);
            }
            if let Some(found) = &mut found {
                found.is_transposed = are_transposed && is_linear(name);
                self.check_shape(found, spec)?;
            } else if place.is_some() {
                let (tensor, expected) = (spec.name.clone(), spec.dims.clone());
                let there = self.tensors.values().map(|found| found.name.clone()).collect();
                return Err(TrainError::MissingTensor { path: path(), tensor, expected, there });
            }
            plan.push(found);
        }
        if let Some(head) = rest.remove(HEAD) {
            let wte = entries.iter().find(|entry| bare(&entry.spec.name) == EMBEDDING);
            wte.map_or(Ok(()), |wte| self.check_shape(&head, &wte.spec))?;
        }
        if let Some(extra) = rest.into_values().next() {
            return Err(TrainError::ExtraTensor { path: self.files[extra.file].path().into(), tensor: extra.name });
        }
        Ok(plan)
    }

    /// Whether linear layers lie in the file as `nn.Linear` keeps them.
    fn are_linear_transposed(&self, entries: &[Entry]) -> bool {
        entries.iter().find(|entry| bare(&entry.spec.name).ends_with(".attn.c_attn.weight")).is_some_and(|entry| {
            self.tensors.get(bare(&entry.spec.name)).is_some_and(|found| {
                let shape = &self.files[found.file].header().tensors[&found.name].shape;
                shape.iter().eq(entry.spec.dims.iter().rev())
            })
        })
    }

    fn check_shape(&self, found: &Found, spec: &TensorSpec) -> Result<(), TrainError> {
        let file = &self.files[found.file];
        let shape = &file.header().tensors[&found.name].shape;
        let is_longer_positions = bare(&spec.name) == "wpe.weight"
            && matches!((&shape[..], &spec.dims[..]), ([rows, cols], [block, dim]) if rows >= block && cols == dim);
        let mut expected = spec.dims.clone();
        if found.is_transposed {
            expected.reverse();
        }
        if *shape != expected && !is_longer_positions {
            return Err(TrainError::TensorShape {
                path: file.path().into(),
                tensor: found.name.clone(),
                found: shape.clone(),
                expected,
            });
        }
        Ok(())
    }

    /// Reads a tensor in chunks; one that is not right is a `fault` of this file and tensor.
    fn check_values(
        &mut self,
        found: &Found,
        len: usize,
        fault: impl Fn(PathBuf, String) -> TrainError,
        mut is_right: impl FnMut(usize, &[f32]) -> Result<bool, TrainError>,
    ) -> Result<(), TrainError> {
        let file = &mut self.files[found.file];
        let path = file.path().to_path_buf();
        file.read_f32(&found.name, len, |first, values| {
            if is_right(first, values)? {
                return Ok(());
            }
            Err(fault(path.clone(), found.name.clone()))
        })
    }

    /// A head in the file of a tied model must be the token embedding.
    fn check_head(&mut self, layout: &ParamLayout, backend: &mut dyn Backend) -> Result<(), TrainError> {
        let (head, wte) = (layout.tensors.head, layout.tensors.wte);
        let has_both = self.tensors.contains_key(EMBEDDING);
        let Some(found) = self.tensors.get(HEAD).filter(|_| head == wte && has_both).cloned() else {
            return Ok(());
        };
        let fault = |path, tensor| TrainError::TensorValues {
            path,
            tensor,
            why: "differs from `wte.weight`, but `config.json` says that the two are tied",
            hint: Some("set `\"tie_word_embeddings\": false` in `config.json`"),
        };
        let mut embedding = vec![0.0; CHUNK.min(wte.len())];
        self.check_values(&found, wte.len(), fault, |first, values| {
            let embedding = &mut embedding[..values.len()];
            backend.read(Region::Params, wte.offset + first, embedding)?;
            Ok(embedding.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()))
        })
    }
}

/// Bare names of the two weights that may be tied.
const EMBEDDING: &str = "wte.weight";
const HEAD: &str = "lm_head.weight";

/// The causal mask that old files carry as a buffer.
fn is_mask(name: &str) -> bool {
    bare(name).starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
}
