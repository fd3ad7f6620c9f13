//! A checksum of everything that a run has trained on. It shows whether two runs consumed the same tokens.
//!
//! Each pair of a token and its target is mixed into the value of all pairs before it, in the order of the micro-batches, on
//! one thread. Mixing is a bijection of the value and of the pair, so sequences that differ in one pair always have different
//! checksums, and others collide only by chance (2⁻⁶⁴). It detects accidents, not attacks: whoever chooses the tokens freely
//! can make two sequences collide.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The checksum; as text, 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHash(u64);

/// The checksum of no tokens: any number but 0, because pairs of zeros would not change 0.
const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Odd, so that multiplying is a bijection; 2⁶⁴ divided by the golden ratio, as in Fibonacci hashing (Knuth, "The Art of
/// Computer Programming", volume 3, section 6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl DataHash {
    /// Takes in a micro-batch: tokens and, for each, its target.
    pub fn update(&mut self, tokens: &[u32], targets: &[u32]) {
        debug_assert_eq!(tokens.len(), targets.len());
        for (&token, &target) in tokens.iter().zip(targets) {
            let pair = u64::from(token) | u64::from(target) << 32;
            let product = (self.0 ^ pair).wrapping_mul(MULTIPLIER);
            // The high half depends on all bits, the low half only on the low bits: mix the high half in.
            self.0 = product ^ (product >> 32);
        }
    }
}

impl Default for DataHash {
    fn default() -> DataHash {
        DataHash(START)
    }
}

impl fmt::Display for DataHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for DataHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DataHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let value = u64::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        let value = value.ok_or_else(|| D::Error::custom(format!("found `{text}`, expected 16 hexadecimal digits")));
        value.map(DataHash)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash(tokens: &[u32], targets: &[u32]) -> DataHash {
        let mut hash = DataHash::default();
        hash.update(tokens, targets);
        hash
    }

    /// The same formula in Python's integers:
    /// `for a, b in pairs: h = (h ^ (a | b << 32)) * 0x9e3779b97f4a7c15 % 2**64; h ^= h >> 32`.
    #[test]
    fn values_are_those_of_the_formula() {
        for (tokens, targets, expected) in [
            (&[][..], &[][..], "cbf29ce484222325"),
            (&[0], &[0], "f8bb92c91b3f5cc0"),
            (&[1, 2, 3], &[2, 3, 4], "83dbb42c523ec66a"),
            (&[50_256, u32::MAX], &[u32::MAX, 0], "9a1f85ba72b5e4f1"),
        ] {
            assert_eq!(hash(tokens, targets).to_string(), expected);
        }
    }

    #[test]
    fn batches_may_be_cut_anywhere_and_every_change_shows() {
        let tokens: Vec<u32> = (0..200).map(|i| i * 7919 % 50_257).collect();
        let targets: Vec<u32> = tokens.iter().map(|token| token + 1).collect();
        let whole = hash(&tokens, &targets);
        for cut in 0..=tokens.len() {
            let mut parts = hash(&tokens[..cut], &targets[..cut]);
            parts.update(&tokens[cut..], &targets[cut..]);
            assert_eq!(parts, whole);
        }
        let mut seen = HashSet::from([whole.to_string()]);
        for index in 0..tokens.len() {
            for bit in 0..32 {
                for is_target in [false, true] {
                    let (mut tokens, mut targets) = (tokens.clone(), targets.clone());
                    (if is_target { &mut targets } else { &mut tokens })[index] ^= 1 << bit;
                    assert!(seen.insert(hash(&tokens, &targets).to_string()), "token {index}, bit {bit}");
                }
            }
            // Exchanged with the next, and left out.
            let (mut swapped, mut swapped_targets) = (tokens.clone(), targets.clone());
            let next = (index + 1) % tokens.len();
            swapped.swap(index, next);
            swapped_targets.swap(index, next);
            assert!(seen.insert(hash(&swapped, &swapped_targets).to_string()), "token {index} exchanged");
            swapped.remove(next);
            swapped_targets.remove(next);
            assert!(seen.insert(hash(&swapped, &swapped_targets).to_string()), "token {index} left out");
        }
    }

    #[test]
    fn text_comes_back() {
        let hash = hash(&[5], &[6]);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(text, format!("\"{hash}\""));
        assert_eq!(serde_json::from_str::<DataHash>(&text).unwrap(), hash);
        for bad in ["\"\"", "\"+123456789abcdef\"", "\"123\"", "\"000000000000000G\"", "\"ABCDEF0123456789\"", "7"] {
            assert!(serde_json::from_str::<DataHash>(bad).is_err(), "{bad}");
        }
    }
}
