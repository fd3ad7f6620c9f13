//! How token ids are stored.

/// How a token id is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenDtype {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl TokenDtype {
    /// The narrowest type that holds all ids of a vocabulary.
    pub fn for_vocab(vocab: usize) -> TokenDtype {
        if vocab <= 1 << 16 { TokenDtype::U16 } else { TokenDtype::U32 }
    }

    /// Bytes per id.
    pub fn bytes(self) -> usize {
        match self {
            TokenDtype::U16 => 2,
            TokenDtype::U32 => 4,
        }
    }

    /// The value for `--tokenDtype`.
    pub fn name(self) -> &'static str {
        match self {
            TokenDtype::U16 => "u16",
            TokenDtype::U32 => "u32",
        }
    }
}
