//! Weights and training state, checked against the official safetensors crate.

use std::{collections::HashMap, fs, path::Path};

use alpha_data::DataHash;
use alpha_nn::{FeedForward, ModelConfig, ParamLayout};
use alpha_tensor::Region;
use alpha_train::{
    TrainError,
    checkpoint::{TrainingState, load_params, load_training_state, read_config, read_training_state},
};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

use crate::{filled_backend, memory_backend::MemoryBackend, save, small_config, state};

fn is_bias(name: &str) -> bool {
    name.rsplit('.').next() == Some("bias")
}

fn values(view: &TensorView<'_>) -> Vec<f32> {
    view.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Tensors by name, as bytes; files as other programs write them are made from these.
#[derive(Clone)]
struct Tensors(HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    fn read(path: &Path) -> Tensors {
        let bytes = fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let read = |(name, view): (&str, TensorView<'_>)| {
            (name.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        Tensors(tensors.iter().map(read).collect())
    }

    fn write(&self, path: &Path) {
        let views: Vec<(&String, TensorView<'_>)> = self
            .0
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()))
            .collect();
        fs::write(path, serialize(views, None).unwrap()).unwrap();
    }

    fn renamed(&self, rename: impl Fn(&str) -> String) -> Tensors {
        Tensors(self.0.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect())
    }

    fn insert(&mut self, name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) {
        self.0.insert(name.into(), (dtype, shape.to_vec(), data));
    }

    /// Keeps the upper half of each number: bf16 by truncation.
    fn to_bf16(&self) -> Tensors {
        let narrow = |data: &[u8]| data.chunks(4).flat_map(|bytes| [bytes[2], bytes[3]]).collect();
        let convert = |(name, (_, shape, data)): (&String, &(Dtype, Vec<usize>, Vec<u8>))| {
            (name.clone(), (Dtype::BF16, shape.clone(), narrow(data)))
        };
        Tensors(self.0.iter().map(convert).collect())
    }
}

struct Case {
    _dir: tempfile::TempDir,
    folder: std::path::PathBuf,
    config: ModelConfig,
    saved: MemoryBackend,
    tensors: Tensors,
}

impl Case {
    fn new(config: ModelConfig) -> Case {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = filled_backend(&ParamLayout::new(&config));
        let folder = save(dir.path(), &config, &mut saved, &state(3));
        let tensors = Tensors::read(&folder.join("model.safetensors"));
        Case { _dir: dir, folder, config, saved, tensors }
    }

    fn replace(&self, tensors: &Tensors) {
        tensors.write(&self.folder.join("model.safetensors"));
    }

    fn load(&self) -> Result<MemoryBackend, TrainError> {
        let layout = ParamLayout::new(&self.config);
        let mut backend = MemoryBackend::new(&layout);
        load_params(&self.folder, &layout, &mut backend).map(|()| backend)
    }

    #[track_caller]
    fn check_loads(&self) {
        assert_eq!(self.load().unwrap().region(Region::Params), self.saved.region(Region::Params));
    }

    #[track_caller]
    fn check_error(&self, expected: &[&str]) {
        let message = words(&self.load().map(|_| ()).unwrap_err());
        for part in expected {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

/// Message and hint.
fn words(error: &impl miette::Diagnostic) -> String {
    error.help().map_or(error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

#[test]
fn everything_comes_back() {
    for (is_tied, has_bias) in [(true, true), (false, true), (true, false), (false, false)] {
        let config = ModelConfig { is_tied, has_bias, ..small_config() };
        let case = Case::new(config.clone());
        assert_eq!(read_config(&case.folder).unwrap(), config);
        let layout = ParamLayout::new(&config);
        let mut backend = case.load().unwrap();
        let loaded = load_training_state(&case.folder, &layout, &mut backend).unwrap();
        assert_eq!(loaded, state(3));
        for region in [Region::Params, Region::Moment1, Region::Moment2] {
            assert_eq!(backend.region(region), case.saved.region(region));
        }
    }
}

#[test]
fn tensors_longer_than_a_chunk_come_back() {
    Case::new(ModelConfig { vocab: 9001, ..small_config() }).check_loads();
}

#[test]
fn names_and_shapes_are_those_of_gpt2() {
    let case = Case::new(ModelConfig { layers: 1, ..small_config() });
    let mut found: Vec<String> =
        case.tensors.0.iter().map(|(name, (_, shape, _))| format!("{name} {shape:?}")).collect();
    found.sort();
    let expected = [
        "transformer.h.0.attn.c_attn.bias [36]",
        "transformer.h.0.attn.c_attn.weight [12, 36]",
        "transformer.h.0.attn.c_proj.bias [12]",
        "transformer.h.0.attn.c_proj.weight [12, 12]",
        "transformer.h.0.ln_1.bias [12]",
        "transformer.h.0.ln_1.weight [12]",
        "transformer.h.0.ln_2.bias [12]",
        "transformer.h.0.ln_2.weight [12]",
        "transformer.h.0.mlp.c_fc.bias [48]",
        "transformer.h.0.mlp.c_fc.weight [12, 48]",
        "transformer.h.0.mlp.c_proj.bias [12]",
        "transformer.h.0.mlp.c_proj.weight [48, 12]",
        "transformer.ln_f.bias [12]",
        "transformer.ln_f.weight [12]",
        "transformer.wpe.weight [7, 12]",
        "transformer.wte.weight [11, 12]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_official_reader_sees_the_same_numbers() {
    let case = Case::new(ModelConfig { is_tied: false, ..small_config() });
    let bytes = fs::read(case.folder.join("model.safetensors")).unwrap();
    let (header_bytes, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header_bytes % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let layout = ParamLayout::new(&case.config);
    assert_eq!(tensors.len(), layout.params.len());
    for param in &layout.params {
        let expected = &case.saved.region(Region::Params)[param.tensor.offset..][..param.tensor.len()];
        assert_eq!(values(&tensors.tensor(&param.name).unwrap()), expected);
    }
}

#[test]
fn a_model_without_biases_is_written_with_zeros() {
    let case = Case::new(ModelConfig { has_bias: false, ..small_config() });
    let with_biases = Case::new(small_config());
    let sorted = |tensors: &Tensors| {
        let mut names: Vec<String> = tensors.0.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&case.tensors), sorted(&with_biases.tensors));
    let biases: Vec<_> = case.tensors.0.iter().filter(|(name, _)| is_bias(name)).collect();
    assert_eq!(biases.len(), 2 * 6 + 1);
    assert!(biases.iter().all(|(_, (_, _, data))| data.iter().all(|&byte| byte == 0)));
}

#[test]
fn biases_of_a_model_without_them_may_be_missing_but_not_set() {
    let case = Case::new(ModelConfig { has_bias: false, ..small_config() });
    let mut tensors = case.tensors.clone();
    tensors.0.retain(|name, _| !is_bias(name));
    case.replace(&tensors);
    case.check_loads();
    tensors.insert("transformer.ln_f.bias", Dtype::F32, &[12], 1f32.to_le_bytes().repeat(12));
    case.replace(&tensors);
    case.check_error(&["transformer.ln_f.bias", "not zero", "alpha_bias"]);
}

#[test]
fn swiglu_comes_back() {
    let config = ModelConfig { feed_forward: FeedForward::Swiglu, ffn_dim: 64, has_bias: false, ..small_config() };
    let case = Case::new(config.clone());
    assert_eq!(read_config(&case.folder).unwrap(), config);
    case.check_loads();
}

#[test]
fn names_without_prefix_and_mask_buffers_are_read() {
    let case = Case::new(small_config());
    let mut tensors = case.tensors.renamed(|name| name.trim_start_matches("transformer.").into());
    tensors.insert("h.0.attn.bias", Dtype::U8, &[1, 1, 7, 7], vec![1; 49]);
    tensors.insert("h.1.attn.masked_bias", Dtype::F32, &[], (-1e4f32).to_le_bytes().into());
    case.replace(&tensors);
    case.check_loads();
}

#[test]
fn half_precision_is_read() {
    let mut case = Case::new(small_config());
    case.replace(&case.tensors.to_bf16());
    for value in case.saved.region_mut(Region::Params) {
        *value = f32::from_bits(value.to_bits() & 0xffff_0000);
    }
    case.check_loads();
    // The same value everywhere in f16: 1.5 = 0x3e00.
    let f16 = |(_, shape, _): &(Dtype, Vec<usize>, Vec<u8>)| {
        (Dtype::F16, shape.clone(), [0x00, 0x3e].repeat(shape.iter().product()))
    };
    let tensors = Tensors(case.tensors.0.iter().map(|(name, tensor)| (name.clone(), f16(tensor))).collect());
    case.replace(&tensors);
    for param in ParamLayout::new(&case.config).params {
        case.saved.region_mut(Region::Params)[param.tensor.offset..][..param.tensor.len()].fill(1.5);
    }
    case.check_loads();
}

#[test]
fn other_dtypes_are_refused() {
    let case = Case::new(small_config());
    let mut tensors = case.tensors.clone();
    tensors.insert("transformer.ln_f.bias", Dtype::F64, &[12], vec![0; 96]);
    case.replace(&tensors);
    case.check_error(&["transformer.ln_f.bias", "`F64`", "`F32`, `F16` or `BF16`"]);
}

#[test]
fn shards_are_read() {
    let case = Case::new(small_config());
    let (mut one, mut two) = (case.tensors.clone(), case.tensors.clone());
    one.0.retain(|name, _| name.contains(".h."));
    two.0.retain(|name, _| !name.contains(".h."));
    one.write(&case.folder.join("model-00001-of-00002.safetensors"));
    two.write(&case.folder.join("model-00002-of-00002.safetensors"));
    fs::remove_file(case.folder.join("model.safetensors")).unwrap();
    let map: HashMap<&String, &str> = case
        .tensors
        .0
        .keys()
        .map(|name| {
            (
                name,
                if name.contains(".h.") {
                    "model-00001-of-00002.safetensors"
                } else {
                    "model-00002-of-00002.safetensors"
                },
            )
        })
        .collect();
    let index = case.folder.join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    case.check_loads();

    two.0.remove("transformer.wpe.weight");
    two.write(&case.folder.join("model-00002-of-00002.safetensors"));
    case.check_error(&["model-00002-of-00002.safetensors", "transformer.wpe.weight"]);
    fs::remove_file(case.folder.join("model-00002-of-00002.safetensors")).unwrap();
    case.check_error(&["model-00002-of-00002.safetensors` does not exist", "hint:"]);
    fs::write(&index, r#"{"weight_map": {"a": "../a.safetensors"}}"#).unwrap();
    case.check_error(&["not a plain file name"]);
    fs::write(&index, "{}").unwrap();
    case.check_error(&["model.safetensors.index.json", "weight_map"]);
}

#[test]
fn a_tied_head_must_be_the_embedding() {
    let case = Case::new(small_config());
    let mut tensors = case.tensors.clone();
    let (dtype, shape, mut data) = tensors.0["transformer.wte.weight"].clone();
    tensors.insert("lm_head.weight", dtype, &shape, data.clone());
    case.replace(&tensors);
    case.check_loads();
    data[100] ^= 1;
    tensors.insert("lm_head.weight", dtype, &shape, data);
    case.replace(&tensors);
    case.check_error(&["lm_head.weight", "wte.weight", "tie_word_embeddings"]);
}

#[test]
fn a_smaller_block_takes_the_first_positions() {
    let mut case = Case::new(small_config());
    case.config.block = 3;
    let layout = ParamLayout::new(&case.config);
    let loaded = case.load().unwrap();
    let wpe = layout.tensors.wpe;
    let saved_wpe = ParamLayout::new(&small_config()).tensors.wpe;
    let expected = &case.saved.region(Region::Params)[saved_wpe.offset..][..wpe.len()];
    assert_eq!(&loaded.region(Region::Params)[wpe.offset..][..wpe.len()], expected);
    case.config.block = 8;
    case.check_error(&["transformer.wpe.weight", "[7, 12]", "[8, 12]"]);
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named() {
    let case = Case::new(small_config());
    let mut tensors = case.tensors.clone();
    tensors.0.remove("transformer.h.1.mlp.c_fc.weight");
    case.replace(&tensors);
    case.check_error(&["model.safetensors", "no tensor `transformer.h.1.mlp.c_fc.weight`", "[12, 48]", "hint:"]);

    let mut tensors = case.tensors.clone();
    tensors.insert("transformer.h.2.ln_1.weight", Dtype::F32, &[12], vec![0; 48]);
    case.replace(&tensors);
    case.check_error(&["model.safetensors", "`transformer.h.2.ln_1.weight` that the model has no place for"]);

    let mut tensors = case.tensors.clone();
    tensors.insert("transformer.h.0.ln_1.weight", Dtype::F32, &[6], vec![0; 24]);
    case.replace(&tensors);
    case.check_error(&["transformer.h.0.ln_1.weight", "[6]", "[12]"]);
}

#[test]
fn a_folder_without_weights_says_what_to_do() {
    let case = Case::new(small_config());
    fs::remove_file(case.folder.join("model.safetensors")).unwrap();
    case.check_error(&["model.safetensors` does not exist", "hint:"]);
    fs::write(case.folder.join("pytorch_model.bin"), "").unwrap();
    case.check_error(&["save_pretrained"]);
}

#[test]
fn training_state_keeps_every_counter() {
    let dir = tempfile::tempdir().unwrap();
    let mut saved = state(7);
    saved.updates = 5;
    saved.seed = u64::MAX;
    saved.spikes_skipped = 1;
    saved.nonfinite_skipped = 1;
    saved.best_val_loss = Some(0.1 + 0.2);
    saved.best_step = Some(4);
    saved.elapsed_ms = 1_234.567_890_123;
    saved.data_hash = Some(DataHash::default());
    saved.more.insert("note".into(), "kept".into());
    let mut backend = filled_backend(&ParamLayout::new(&small_config()));
    let folder = save(dir.path(), &small_config(), &mut backend, &saved);
    assert_eq!(read_training_state(&folder).unwrap(), saved);
}

#[test]
fn a_broken_training_state_is_named() {
    let case = Case::new(small_config());
    let path = case.folder.join("training_state.safetensors");
    let layout = ParamLayout::new(&case.config);
    let check = |parts: &[&str]| {
        let mut backend = MemoryBackend::new(&layout);
        let message = words(&load_training_state(&case.folder, &layout, &mut backend).unwrap_err());
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert!(backend.region(Region::Moment1).iter().all(|&value| value == 0.0));
    };
    let tensors = Tensors::read(&path);
    let write = |tensors: &Tensors, json: &str| {
        let views: Vec<(&String, TensorView<'_>)> = tensors
            .0
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()))
            .collect();
        let metadata = HashMap::from([("training_state".to_string(), json.to_string())]);
        fs::write(&path, serialize(views, Some(metadata)).unwrap()).unwrap();
    };
    let json = serde_json::to_string(&TrainingState::default()).unwrap();
    let mut changed = tensors.clone();
    changed.0.remove("exp_avg_sq.transformer.ln_f.weight");
    write(&changed, &json);
    check(&["no tensor `exp_avg_sq.transformer.ln_f.weight`"]);
    let mut changed = tensors.clone();
    changed.insert("exp_avg.more", Dtype::F32, &[1], vec![0; 4]);
    write(&changed, &json);
    check(&["`exp_avg.more` that the model has no place for"]);
    write(&tensors.to_bf16(), &json);
    check(&["dtype `BF16`", "expected `F32`"]);
    write(&tensors, "{}");
    check(&["training_state.safetensors", "missing field `step`"]);
    tensors.write(&path);
    check(&["has no `training_state`"]);
    fs::remove_file(&path).unwrap();
    check(&["training_state.safetensors` does not exist", "--init"]);
}
