//! The text of a shader: constants that specialise it, then its parts.

use std::fmt::Write;

/// A kernel's source, specialised: two with the same text are the same pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shader {
    /// The entry point, which is also the name in labels.
    pub(crate) name: &'static str,
    /// WGSL.
    pub(crate) text: String,
    /// Storage buffers in its group 0.
    pub(crate) bindings: usize,
}

/// Collects a [`Shader`].
pub(crate) struct ShaderBuilder {
    name: &'static str,
    text: String,
    bindings: usize,
}

/// Smaller than every finite score: what a maximum begins with, and a masked score.
const LOWEST: &str = "const LOWEST: f32 = -3.4028234663852886e38;\n";

impl ShaderBuilder {
    pub(crate) fn new(name: &'static str, bindings: usize) -> ShaderBuilder {
        ShaderBuilder { name, text: LOWEST.to_owned(), bindings }
    }

    /// `const NAME: u32 = value;`
    pub(crate) fn number(self, name: &str, value: u32) -> ShaderBuilder {
        self.line(format_args!("const {name}: u32 = {value}u;"))
    }

    /// `const NAME: bool = value;`
    pub(crate) fn flag(self, name: &str, value: bool) -> ShaderBuilder {
        self.line(format_args!("const {name}: bool = {value};"))
    }

    /// One of several jobs of a source: `ENTRY` is the number of `chosen` among `all`.
    pub(crate) fn entry(mut self, all: &[&str], chosen: &str) -> ShaderBuilder {
        for (number, name) in all.iter().enumerate() {
            self = self.number(name, number as u32);
        }
        self.line(format_args!("const ENTRY: u32 = {chosen};"))
    }

    /// The element type `NAME_TYPE` of buffers, and loads and stores of four elements of each buffer in `buffers`.
    pub(crate) fn access(mut self, type_name: &str, is_vector: bool, buffers: &[&str]) -> ShaderBuilder {
        let element = if is_vector { "vec4<f32>" } else { "f32" };
        self = self.line(format_args!("alias {type_name} = {element};"));
        let template =
            if is_vector { include_str!("kernels/load_vec4.wgsl") } else { include_str!("kernels/load_scalar.wgsl") };
        for buffer in buffers {
            self.text.push_str(&template.replace("NAME", buffer));
        }
        self
    }

    /// A part of the source.
    pub(crate) fn part(mut self, text: &str) -> ShaderBuilder {
        self.text.push_str(text);
        self
    }

    pub(crate) fn finish(self) -> Shader {
        Shader { name: self.name, text: self.text, bindings: self.bindings }
    }

    fn line(mut self, line: std::fmt::Arguments<'_>) -> ShaderBuilder {
        self.text.write_fmt(line).expect("a string takes any text");
        self.text.push('\n');
        self
    }
}
