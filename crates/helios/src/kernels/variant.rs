//! Variants of the product kernel, and their names.

use std::{fmt, str::FromStr};

use super::shader::{Shader, ShaderBuilder};

/// How a product is cut into workgroups and invocations. All variants in f32 add along k in the same order, so the
/// choice between them changes no bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `matmul_direct.wgsl`: `width` by `height` invocations, each with `rows` (a multiple of 4) by `vectors` of C.
    Direct {
        /// TM.
        rows: u32,
        /// TN.
        vectors: u32,
        /// WX.
        width: u32,
        /// WY.
        height: u32,
    },
    /// `matmul_staged.wgsl`: the same, with `depth` steps of k at a time in workgroup memory.
    Staged {
        /// TM.
        rows: u32,
        /// TN.
        vectors: u32,
        /// WX.
        width: u32,
        /// WY.
        height: u32,
        /// TK, a multiple of 4.
        depth: u32,
    },
    /// `matmul_coop.wgsl`, for products with 16-bit operands: `waves` subgroups, each with `matrices` matrices of C.
    Coop {
        /// MAT, which is 8 or 16 and depends on the device.
        size: u32,
        /// `SUB_M`, `SUB_N`.
        matrices: [u32; 2],
        /// `WAVES_M`, `WAVES_N`.
        waves: [u32; 2],
        /// TK, a multiple of the size.
        depth: u32,
        /// Smallest and largest subgroup of the device.
        subgroup: [u32; 2],
    },
}

impl Variant {
    /// Rows and columns of a workgroup's tile of C.
    pub(super) fn tile(self) -> [usize; 2] {
        match self {
            Variant::Direct { rows, vectors, width, height } | Variant::Staged { rows, vectors, width, height, .. } => {
                [(rows * height) as usize, (vectors * width * 4) as usize]
            }
            Variant::Coop { size, matrices, waves, .. } => [0, 1].map(|i| (size * matrices[i] * waves[i]) as usize),
        }
    }

    /// Numbers of C that an invocation keeps in registers.
    fn accumulators(self) -> u32 {
        match self {
            Variant::Direct { rows, vectors, .. } | Variant::Staged { rows, vectors, .. } => 4 * rows * vectors,
            Variant::Coop { size, matrices: [m, n], subgroup, .. } => (m * n * size * size).div_ceil(subgroup[1]),
        }
    }

    /// Invocations in a workgroup.
    pub(crate) fn threads(self) -> u64 {
        match self {
            Variant::Direct { width, height, .. } | Variant::Staged { width, height, .. } => {
                u64::from(width) * u64::from(height)
            }
            Variant::Coop { waves, subgroup, .. } => [waves[0], waves[1], subgroup[1]].map(u64::from).iter().product(),
        }
    }

    /// Bytes of workgroup memory.
    pub(crate) fn workgroup_bytes(self) -> u64 {
        let [tile_m, tile_n] = self.tile().map(|len| len as u64);
        match self {
            Variant::Direct { .. } => 0,
            Variant::Staged { depth, .. } => 4 * u64::from(depth) * (tile_m + 1 + tile_n),
            Variant::Coop { size, depth, subgroup, .. } => {
                // A tile lies row after row or transposed: take the larger layout.
                let (depth, pad, size) = (u64::from(depth), u64::from(COOP_PAD), u64::from(size));
                let staged = |len: u64| 2 * (len * (depth + pad)).max(depth * (len + pad));
                staged(tile_m) + staged(tile_n) + 4 * size * size * self.threads() / u64::from(subgroup[0])
            }
        }
    }

    /// The kernel. The builder already has its operands and epilogue.
    pub(super) fn specialise(self, builder: ShaderBuilder, is_transposed: [bool; 2]) -> Shader {
        match self {
            Variant::Direct { rows, vectors, width, height } => {
                let builder = builder.number("TM", rows).number("TN", vectors).number("WX", width).number("WY", height);
                builder.part(include_str!("matmul_direct.wgsl")).build()
            }
            Variant::Staged { rows, vectors, width, height, depth } => {
                let builder = builder.number("TM", rows).number("TN", vectors).number("WX", width).number("WY", height);
                builder.number("TK", depth).part(include_str!("matmul_staged.wgsl")).part(TILES).build()
            }
            Variant::Coop { size, matrices, waves, depth, subgroup } => {
                let [load_a, load_b] = is_transposed.map(|is| if is { "coopLoad" } else { "coopLoadT" });
                let text = include_str!("matmul_coop.wgsl").replace("LOAD_A", load_a).replace("LOAD_B", load_b);
                builder
                    .enable(&["f16", "wgpu_cooperative_matrix"])
                    .part(&["a", "b", "c"].map(|role| matrix_alias(size, role)).concat())
                    .number("MAT", size)
                    .number("SUB_M", matrices[0])
                    .number("SUB_N", matrices[1])
                    .number("WAVES_M", waves[0])
                    .number("WAVES_N", waves[1])
                    .number("TK", depth)
                    .number("THREADS", self.threads() as u32)
                    .number("SLOTS", self.threads() as u32 / subgroup[0])
                    .part(&text)
                    .part(TILES)
                    .build()
            }
        }
    }
}

const TILES: &str = include_str!("matmul_tiles.wgsl");

/// No device has registers for more, and compilers would take minutes.
const MAX_ACCUMULATORS: u32 = 256;

/// `PAD` of `matmul_coop.wgsl`.
const COOP_PAD: u32 = 8;

fn matrix_alias(size: u32, role: &str) -> String {
    let element = if role == "c" { "f32" } else { "f16" };
    format!("alias matrix_{role} = coop_mat{size}x{size}<{element}, {}>;\n", role.to_uppercase())
}

/// `direct:8x4:8x1` is TM × TN and WX × WY; `staged:4x1:16x16:16` also has TK; `coop:16:2x2:2x2:32` is MAT,
/// `SUB_M` × `SUB_N`, `WAVES_M` × `WAVES_N` and TK.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Variant::Direct { rows, vectors, width, height } => write!(f, "direct:{rows}x{vectors}:{width}x{height}"),
            Variant::Staged { rows, vectors, width, height, depth } => {
                write!(f, "staged:{rows}x{vectors}:{width}x{height}:{depth}")
            }
            Variant::Coop { size, matrices: [m, n], waves: [wave_m, wave_n], depth, .. } => {
                write!(f, "coop:{size}:{m}x{n}:{wave_m}x{wave_n}:{depth}")
            }
        }
    }
}

/// Why a name is not a variant, or why a device cannot run one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariantError {
    /// A text that is not a variant's name.
    #[error(
        "found `{found}`, expected a name such as `direct:8x4:8x1`, `staged:4x1:16x16:16` or `coop:16:2x2:2x2:32`, \
         as `alpha devices` prints them"
    )]
    Name {
        /// The text.
        found: String,
    },
    /// A variant that needs more registers than a device has.
    #[error("`{name}`: an invocation would keep {found} numbers of C, at most {MAX_ACCUMULATORS} are sensible")]
    Registers {
        /// Its name.
        name: String,
        /// The numbers that an invocation would keep.
        found: u32,
    },
    /// A limit of the device.
    #[error("it needs {needed} {what}, the device has {limit}")]
    Limit {
        /// The limited thing, as a plural.
        what: &'static str,
        /// How many the variant needs.
        needed: u64,
        /// How many the device has.
        limit: u32,
    },
    /// The device does not have the matrices, or was opened without them.
    #[error(
        "it needs `--dtype=f16` and cooperative matrices of {size} × {size}, the device has {}",
        device_size.map_or("none".to_owned(), |size| format!("{size} × {size}"))
    )]
    Matrices {
        /// Rows and columns of the variant's matrices.
        size: u32,
        /// Rows and columns of the device's matrices.
        device_size: Option<u32>,
    },
}

/// Reads a variant's name. Subgroups count as 32 until the device is known.
impl FromStr for Variant {
    type Err = VariantError;

    fn from_str(name: &str) -> Result<Variant, VariantError> {
        let wrong = || VariantError::Name { found: name.to_owned() };
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|number| (1..=1024).contains(number)).ok_or_else(wrong);
        let pair = |text: &str| {
            let (a, b) = text.split_once('x').ok_or_else(wrong)?;
            Ok::<_, VariantError>([number(a)?, number(b)?])
        };
        let variant = match name.split(':').collect::<Vec<_>>()[..] {
            ["direct", tile, group] => {
                let ([rows, vectors], [width, height]) = (pair(tile)?, pair(group)?);
                Variant::Direct { rows, vectors, width, height }
            }
            ["staged", tile, group, depth] => {
                let ([rows, vectors], [width, height]) = (pair(tile)?, pair(group)?);
                Variant::Staged { rows, vectors, width, height, depth: number(depth)? }
            }
            ["coop", size, matrices, waves, depth] => Variant::Coop {
                size: number(size)?,
                matrices: pair(matrices)?,
                waves: pair(waves)?,
                depth: number(depth)?,
                subgroup: [32; 2],
            },
            _ => return Err(wrong()),
        };
        let steps_fit = match variant {
            Variant::Direct { rows, .. } => rows.is_multiple_of(4),
            // Where A is stored transposed, its rows are read four at a time.
            Variant::Staged { rows, height, depth, .. } => depth.is_multiple_of(4) && (rows * height).is_multiple_of(4),
            Variant::Coop { size, depth, .. } => matches!(size, 8 | 16) && depth.is_multiple_of(size),
        };
        if !steps_fit {
            return Err(wrong());
        }
        match variant.accumulators() {
            found if found > MAX_ACCUMULATORS => Err(VariantError::Registers { name: name.to_owned(), found }),
            _ => Ok(variant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in ["direct:8x4:8x1", "staged:4x1:16x16:16", "coop:16:4x2:2x2:32", "coop:8:2x2:1x4:16"] {
            assert_eq!(name.parse::<Variant>().expect(name).to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "fast",
            "direct",
            "direct:8x4",
            "direct:6x4:8x1",
            "direct:8x4:8x1:2",
            "staged:4x1:16x16:6",
            "coop:4:2x2:2x2:32",
            "coop:16:2x2:2x2:24",
            "direct:0x4:8x1",
            "direct:-8x4:8x1",
            "direct:8x4:8x99999",
            "direct:64x64:8x1",
            "staged:8x9:16x16:16",
            "coop:16:8x8:2x2:32",
            "staged:5x1:8x3:16",
        ] {
            assert!(name.parse::<Variant>().is_err(), "{name}");
        }
    }
}
