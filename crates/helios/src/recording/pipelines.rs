//! Compiled kernels: one for each different [`Shader`], until the device is closed.

use std::collections::HashMap;

use alpha_tensor::BackendError;

use crate::{
    device::{Gpu, IMMEDIATE_BYTES},
    kernels::shader::Shader,
};

/// Pipelines, and the layouts that they share.
#[derive(Default)]
pub(crate) struct Pipelines {
    made: HashMap<Shader, wgpu::ComputePipeline>,
    /// By number of storage buffers.
    layouts: HashMap<usize, wgpu::BindGroupLayout>,
    /// The driver's own cache, if it has one.
    cache: Option<wgpu::PipelineCache>,
    has_new: bool,
    #[cfg(test)]
    pub(crate) sabotage: Option<(&'static str, &'static str)>,
}

impl Pipelines {
    pub(crate) fn new(cache: Option<wgpu::PipelineCache>) -> Pipelines {
        Pipelines { cache, ..Pipelines::default() }
    }

    /// The content of the driver's cache, if something was compiled since the last call.
    pub(crate) fn take_new(&mut self) -> Option<Vec<u8>> {
        let cache = self.cache.as_ref().filter(|_| std::mem::take(&mut self.has_new));
        cache.and_then(wgpu::PipelineCache::get_data)
    }

    /// The layout of a group of this many storage buffers.
    pub(crate) fn layout(&mut self, gpu: &Gpu, bindings: usize) -> wgpu::BindGroupLayout {
        let make = || {
            // All are writable: a kernel may read and write parts of one region, which is one buffer, and a buffer can
            // have only one use in a dispatch.
            let entry = |binding| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: false },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            };
            let entries: Vec<_> = (0..bindings as u32).map(entry).collect();
            gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
        };
        self.layouts.entry(bindings).or_insert_with(make).clone()
    }

    /// The pipeline of a shader. Its first use compiles it.
    pub(crate) fn get(&mut self, gpu: &Gpu, shader: &Shader) -> Result<wgpu::ComputePipeline, BackendError> {
        if let Some(pipeline) = self.made.get(shader) {
            return Ok(pipeline.clone());
        }
        let layout = self.layout(gpu, shader.bindings);
        let text = self.text(shader);
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(shader.name), source: wgpu::ShaderSource::Wgsl(text.into()) };
        let module = if gpu.checked {
            gpu.device.create_shader_module(descriptor)
        } else {
            // SAFETY: the kernels index within their operands' windows, which a verified `Program` and the windows keep
            // inside the regions; they never divide by zero and have no endless loop. Tests run every kernel with the
            // checks on, on odd shapes.
            unsafe { gpu.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: IMMEDIATE_BYTES,
        });
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(shader.name),
            // Kernels write workgroup memory before they read it.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: self.cache.as_ref(),
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(gpu.failed(format!("kernel `{}` does not compile: {error}", shader.name)));
        }
        self.made.insert(shader.clone(), pipeline.clone());
        self.has_new = true;
        Ok(pipeline)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests break kernels on purpose")]
    fn text<'a>(&self, shader: &'a Shader) -> &'a str {
        &shader.text
    }

    #[cfg(test)]
    fn text(&self, shader: &Shader) -> String {
        self.sabotage.map_or(shader.text.clone(), |(right, wrong)| shader.text.replace(right, wrong))
    }
}
