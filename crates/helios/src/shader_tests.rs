//! Every shader that a device can get compiles for every API, also if no software device has the features for it. With
//! `HELIOS_SPIRV_DIR` set, the SPIR-V stays in that folder for `spirv-val` (scripts/software-gpus.sh).

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::PathBuf,
};

use alpha_tensor::Program;
use naga::{
    back::{hlsl, msl, spv},
    valid::{Capabilities, ValidationFlags, Validator},
};

use crate::{
    device::profile::{SMALLEST, all_candidates},
    format16::Format16,
    kernels::{Lowering, Profile, shader::Shader},
    open::self_test,
    peaks,
};

/// Every profile that a device can get, in each format.
fn profiles() -> Vec<Profile> {
    let profile =
        |is_software, format16, matmul, matmul16| Profile::for_kind(is_software, [matmul, matmul16], format16, 1 << 24);
    let mut profiles = vec![profile(false, Format16::F16, SMALLEST, SMALLEST)];
    for (is_software, format16) in
        [(true, Format16::F16), (true, Format16::Bf16), (false, Format16::F16), (false, Format16::Bf16)]
    {
        for plain in all_candidates(is_software, None, [32; 2]) {
            profiles.push(profile(is_software, format16, plain, plain));
        }
    }
    for size in [8, 16] {
        for subgroup in [[8; 2], [32; 2], [64; 2], [32, 64]] {
            for coop in all_candidates(false, Some(size), subgroup) {
                profiles.push(profile(false, Format16::F16, SMALLEST, coop));
            }
        }
    }
    profiles
}

/// Every shader of the programs, by its number and name.
fn shaders(programs: &[Program]) -> BTreeMap<String, Shader> {
    let mut found = vec![peaks::shader("FMA"), peaks::shader("TRIAD")];
    let mut known: HashSet<Shader> = HashSet::new();
    for profile in &profiles() {
        for call in programs.iter().flat_map(alpha_tensor::Program::ops) {
            let lowering = Lowering::of(&call.op, profile).expect("it can be lowered");
            for dispatch in lowering.dispatches {
                if known.insert(dispatch.shader.clone()) {
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
        // DX12 has no cooperative matrices, and none of its devices lists them.
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
