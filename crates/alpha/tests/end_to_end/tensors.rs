//! Safetensors files, read and made by hand: 8 bytes of header length, a JSON header, the tensors' bytes.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

/// A file taken apart.
#[derive(Clone)]
pub(crate) struct Tensors {
    pub(crate) metadata: Value,
    /// Name, shape and f32 values as bytes, in the order of the file.
    pub(crate) tensors: Vec<(String, Vec<u64>, Vec<u8>)>,
}

impl Tensors {
    /// Reads a file of f32 tensors.
    #[track_caller]
    pub(crate) fn read(path: &Path) -> Tensors {
        let bytes = fs::read(path).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let metadata = header.remove("__metadata__").unwrap_or_default();
        let offset = |info: &Value, i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
        let mut tensors: Vec<_> = header
            .into_iter()
            .map(|(name, info)| {
                assert_eq!(info["dtype"], "F32");
                let shape = info["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap()).collect();
                (offset(&info, 0), (name, shape, data[offset(&info, 0)..offset(&info, 1)].to_vec()))
            })
            .collect();
        tensors.sort_by_key(|(start, _)| *start);
        Tensors { metadata, tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect() }
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) {
        let mut header = Map::new();
        if self.metadata.is_object() {
            header.insert("__metadata__".into(), self.metadata.clone());
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, shape, values) in &self.tensors {
            let offsets = [data.len(), data.len() + values.len()];
            header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
            data.extend(values);
        }
        let header = serde_json::to_vec(&header).unwrap();
        fs::write(path, [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat()).unwrap();
    }

    /// The first tensor whose name ends so.
    pub(crate) fn get_mut(&mut self, name: &str) -> &mut (String, Vec<u64>, Vec<u8>) {
        self.tensors.iter_mut().find(|(full, ..)| full.ends_with(name)).unwrap()
    }
}

/// The counters in a checkpoint's `training_state.safetensors`.
pub(crate) fn counters(checkpoint: &Path) -> Value {
    let state = Tensors::read(&checkpoint.join("training_state.safetensors"));
    serde_json::from_str(state.metadata["training_state"].as_str().unwrap()).unwrap()
}

/// Checks that two checkpoints hold the same model, moments and counters, bit for bit; only wall time may differ.
#[track_caller]
pub(crate) fn assert_same_checkpoint(a: &Path, b: &Path) {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert!(fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(), "{name} differs");
    }
    let [moments_a, moments_b] = [a, b].map(|dir| Tensors::read(&dir.join("training_state.safetensors")).tensors);
    assert!(moments_a == moments_b, "moments differ");
    let [counters_a, counters_b] = [a, b].map(|dir| {
        let mut counters = counters(dir);
        assert!(counters["elapsed_ms"].as_f64().unwrap() > 0.0);
        counters["elapsed_ms"] = Value::Null;
        counters
    });
    assert_eq!(counters_a, counters_b);
}
