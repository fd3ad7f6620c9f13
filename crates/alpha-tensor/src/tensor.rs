//! Memory of a backend: regions, tensors in them, and their sizes.
//!
//! A backend owns one flat buffer per [`Region`]. A [`Tensor`] is a contiguous,
//! row-major matrix inside a region; it names memory and does not own it.

/// Elements of [`Region::Results`].
pub const RESULTS_LEN: usize = 4;

/// Tensors begin at multiples of this many elements (64 bytes), so that
/// every row-major matrix starts on a cache line and a vector boundary.
pub const ALIGN_ELEMENTS: usize = 16;

/// One flat buffer of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Trainable parameters, f32.
    Params,
    /// Gradients, laid out exactly like [`Region::Params`].
    Grads,
    /// First moment of the optimiser, laid out like [`Region::Params`].
    Moment1,
    /// Second moment of the optimiser, laid out like [`Region::Params`].
    Moment2,
    /// Activations and everything else that lives within one program, f32.
    Activations,
    /// Token ids written by the host before a program runs, u32.
    Inputs,
    /// The few numbers a program hands back; see [`crate::backend::Results`].
    Results,
    /// Keys and values kept between decoding steps, f32.
    KvCache,
    /// Activations of 16 bits, in the format that the backend was opened with; rows are whole groups of four. Backends
    /// without such formats keep f32.
    Activations16,
}

impl Region {
    /// Every region, in the order of [`RegionSizes`].
    pub const ALL: [Region; 9] = [
        Region::Params,
        Region::Grads,
        Region::Moment1,
        Region::Moment2,
        Region::Activations,
        Region::Inputs,
        Region::Results,
        Region::KvCache,
        Region::Activations16,
    ];

    /// Bytes of an element, where the backend has 16-bit formats.
    pub fn element_bytes(self) -> usize {
        if self == Region::Activations16 { 2 } else { 4 }
    }

    /// Position in [`Region::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Elements of every region, indexed by [`Region::index`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionSizes(pub [usize; 9]);

impl RegionSizes {
    /// Elements of one region.
    pub fn get(&self, region: Region) -> usize {
        self.0[region.index()]
    }

    /// Sets the elements of one region.
    pub fn set(&mut self, region: Region, elements: usize) {
        self.0[region.index()] = elements;
    }

    /// Element-wise maximum: the sizes that two programs need if they share the regions.
    #[must_use]
    pub fn max(&self, other: &RegionSizes) -> RegionSizes {
        let mut sizes = *self;
        for (size, other) in sizes.0.iter_mut().zip(other.0) {
            *size = (*size).max(other);
        }
        sizes
    }

    /// Bytes of all regions together.
    pub fn total_bytes(&self) -> usize {
        Region::ALL.iter().map(|&region| self.get(region) * region.element_bytes()).sum()
    }
}

/// A contiguous row-major matrix `[rows, cols]` inside a region; vectors are `[1, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The buffer it lies in.
    pub region: Region,
    /// First element, counted from the start of the region.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Columns, contiguous in memory.
    pub cols: usize,
}

impl Tensor {
    /// A matrix at `offset` elements into `region`.
    pub fn new(region: Region, offset: usize, rows: usize, cols: usize) -> Tensor {
        Tensor { region, offset, rows, cols }
    }

    /// Number of elements. (A tensor may be empty.)
    #[expect(clippy::len_without_is_empty, reason = "a size, not a collection")]
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.len() * self.region.element_bytes()) as u64
    }

    /// The same matrix in another region: a parameter's gradient or moment.
    #[must_use]
    pub fn in_region(&self, region: Region) -> Tensor {
        Tensor { region, ..*self }
    }

    /// Rows `start..end` as a tensor of their own.
    #[must_use]
    pub fn row_range(&self, start: usize, end: usize) -> Tensor {
        debug_assert!(start <= end && end <= self.rows);
        Tensor { offset: self.offset + start * self.cols, rows: end - start, ..*self }
    }
}
