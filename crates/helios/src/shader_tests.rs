//! Every shader that any device can get, through the compilers of every API: also those for features that no software device
//! has. With `HELIOS_SPIRV_DIR` the SPIR-V is left there, for `spirv-val` (scripts/software-gpus.sh).

use std::{collections::BTreeMap, fs, path::PathBuf};

use alpha_tensor::Program;
use naga::{
    back::{hlsl, msl, spv},
    valid::{Capabilities, ValidationFlags, Validator},
};

use crate::{
    format16::Format16,
    kernels::{Lowering, Profile, Variant},
    self_test,
    shader::Shader,
};

const SOFTWARE: Variant = Variant::Direct { rows: 8, vectors: 4, width: 8, height: 1 };
const CARD: Variant = Variant::Staged { rows: 8, vectors: 2, width: 16, height: 16, depth: 8 };

fn coop(size: u32, matrices: [u32; 2], subgroup: [u32; 2]) -> Variant {
    Variant::Coop { size, matrices, waves: [2, 2], depth: 32, subgroup }
}

fn profile(reduce_width: u32, format16: Format16, matmul: Variant, matmul16: Variant) -> Profile {
    Profile {
        reduce_width,
        attention_width: reduce_width,
        flat_vectors: 4,
        parts: 16,
        matmul: [matmul; 3],
        matmul16: [matmul16; 3],
        format16,
        max_binding_len: 1 << 24,
    }
}

/// Every shader of the programs, by a number and its name.
fn shaders(programs: &[Program]) -> BTreeMap<String, Shader> {
    let profiles = [
        profile(8, Format16::F16, SOFTWARE, SOFTWARE),
        profile(8, Format16::Bf16, SOFTWARE, SOFTWARE),
        profile(128, Format16::Bf16, CARD, CARD),
        profile(128, Format16::F16, CARD, CARD),
        profile(128, Format16::F16, CARD, coop(8, [4, 4], [8, 8])),
        profile(128, Format16::F16, CARD, coop(8, [2, 2], [32, 32])),
        profile(128, Format16::F16, CARD, coop(16, [4, 4], [32, 32])),
        profile(128, Format16::F16, CARD, coop(16, [4, 2], [32, 64])),
    ];
    let mut found: Vec<Shader> = Vec::new();
    for profile in &profiles {
        for call in programs.iter().flat_map(|program| &program.ops) {
            let lowering = Lowering::of(&call.op, profile).expect("it can be lowered");
            for dispatch in lowering.dispatches {
                if !found.contains(&dispatch.shader) {
                    found.push(dispatch.shader);
                }
            }
        }
    }
    found.into_iter().enumerate().map(|(number, shader)| (format!("{number:03}-{}", shader.name), shader)).collect()
}

#[test]
fn every_shader_compiles_for_every_api() {
    let spirv_dir = std::env::var_os("HELIOS_SPIRV_DIR").map(PathBuf::from);
    let shaders = shaders(&self_test::programs());
    assert!(shaders.len() > 100, "only {} shaders", shaders.len());
    assert!(shaders.values().any(|shader| shader.text.contains("coop_mat16x16")));
    for (name, shader) in shaders {
        let module = naga::front::wgsl::parse_str(&shader.text)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&shader.text)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&shader.text)));
        let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
        let words = spv::write_vec(&module, &info, &options, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(dir) = &spirv_dir {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            fs::write(dir.join(format!("{name}.spv")), bytes).expect("the folder takes files");
        }
        let options = msl::Options { lang_version: (3, 1), fake_missing_bindings: true, ..msl::Options::default() };
        let pipeline = msl::PipelineOptions::default();
        msl::write_string(&module, &info, &options, &pipeline).unwrap_or_else(|error| panic!("{name}, Metal: {error}"));
        // DX12 has no cooperative matrices: no device there lists them.
        if !shader.text.contains("coop_mat") {
            let options = hlsl::Options {
                shader_model: hlsl::ShaderModel::V6_0,
                fake_missing_bindings: true,
                immediates_target: Some(hlsl::BindTarget::default()),
                ..hlsl::Options::default()
            };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
                .write(&module, &info, None)
                .unwrap_or_else(|error| panic!("{name}, DX12: {error}"));
        }
    }
}
