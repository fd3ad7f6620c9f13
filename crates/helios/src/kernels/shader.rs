//! The text of a shader: constants that specialise it, then parts of the source.

use std::fmt::Write;

use crate::format16::Format16;

/// A kernel's specialised source. Two with the same text are the same pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shader {
    /// The entry point, which is also the name in labels.
    pub(crate) name: &'static str,
    /// WGSL.
    pub(crate) text: String,
    /// The number of storage buffers in its group 0.
    pub(crate) bindings: usize,
}

/// Collects a [`Shader`].
pub(crate) struct ShaderBuilder {
    name: &'static str,
    text: String,
    bindings: usize,
    format: Option<Format16>,
    enabled: String,
}

/// How the elements of a buffer are stored. Its loads and stores of four elements convert to and from f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// f32, rows of any length.
    Scalar,
    /// f32, rows of whole vectors of four.
    Vector,
    /// 16 bits, rows of whole vectors of four.
    Half(Format16),
}

/// No finite score is smaller: a maximum begins with it, and a masked score is it.
const LOWEST: &str = "const LOWEST: f32 = -3.4028234663852886e38;\n";

impl ShaderBuilder {
    pub(crate) fn new(name: &'static str, bindings: usize) -> ShaderBuilder {
        ShaderBuilder { name, text: LOWEST.to_owned(), bindings, format: None, enabled: String::new() }
    }

    /// `const NAME: u32 = value;`
    pub(crate) fn number(self, name: &str, value: u32) -> ShaderBuilder {
        self.line(format_args!("const {name}: u32 = {value}u;"))
    }

    /// `const NAME: bool = value;`
    pub(crate) fn flag(self, name: &str, value: bool) -> ShaderBuilder {
        self.line(format_args!("const {name}: bool = {value};"))
    }

    /// Chooses one of several jobs of a source: `ENTRY` is the number of `chosen` in `all`.
    pub(crate) fn entry(mut self, all: &[&str], chosen: &str) -> ShaderBuilder {
        for (number, name) in all.iter().enumerate() {
            self = self.number(name, number as u32);
        }
        self.line(format_args!("const ENTRY: u32 = {chosen};"))
    }

    /// The element type `NAME_type` of each buffer, and its loads and stores of four elements.
    pub(crate) fn access(mut self, buffers: &[(&str, Storage)]) -> ShaderBuilder {
        for &(buffer, storage) in buffers {
            let (element, template) = match storage {
                Storage::Scalar => ("f32", include_str!("load_scalar.wgsl")),
                Storage::Vector => ("vec4<f32>", include_str!("load_vec4.wgsl")),
                Storage::Half(_) => ("vec2<u32>", include_str!("load_16.wgsl")),
            };
            if let Storage::Half(format) = storage
                && self.format.replace(format).is_none()
            {
                self = self.part(match format {
                    Format16::F16 => include_str!("format_f16.wgsl"),
                    Format16::Bf16 => include_str!("format_bf16.wgsl"),
                });
            }
            self = self.line(format_args!("alias {buffer}_type = {element};"));
            self.text.push_str(&template.replace("NAME", buffer));
        }
        self
    }

    /// Language extensions, which a module must name first.
    pub(crate) fn enable(mut self, extensions: &[&str]) -> ShaderBuilder {
        for extension in extensions {
            self.enabled += &format!("enable {extension};\n");
        }
        self
    }

    /// A part of the source.
    pub(crate) fn part(mut self, text: &str) -> ShaderBuilder {
        self.text.push_str(text);
        self
    }

    pub(crate) fn build(self) -> Shader {
        Shader { name: self.name, text: self.enabled + &self.text, bindings: self.bindings }
    }

    fn line(mut self, line: std::fmt::Arguments<'_>) -> ShaderBuilder {
        self.text.write_fmt(line).expect("a string takes any text");
        self.text.push('\n');
        self
    }
}
