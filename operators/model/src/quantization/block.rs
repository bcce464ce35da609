//! The block formats and their sizes.

use std::fmt;

use candle_core::quantized::GgmlDType;

/// Weights per scale in the 32-weight formats, fixed by GGUF.
pub(super) const BLOCK: usize = 32;

/// How the numbers of a tensor are stored. The first six are packed and unpacked by our own code, the others only unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Type, number in a file, name, weights per block, bytes per block.
const TABLE: [(BlockType, u32, &str, usize, usize); 13] = [
    (BlockType::F32, 0, "F32", 1, 4),
    (BlockType::F16, 1, "F16", 1, 2),
    (BlockType::BF16, 30, "BF16", 1, 2),
    (BlockType::Q8_0, 8, "Q8_0", BLOCK, 34),
    (BlockType::Q4_0, 2, "Q4_0", BLOCK, 18),
    (BlockType::Q4_1, 3, "Q4_1", BLOCK, 20),
    (BlockType::Q5_0, 6, "Q5_0", BLOCK, 22),
    (BlockType::Q5_1, 7, "Q5_1", BLOCK, 24),
    (BlockType::Q2K, 10, "Q2_K", 256, 84),
    (BlockType::Q3K, 11, "Q3_K", 256, 110),
    (BlockType::Q4K, 12, "Q4_K", 256, 144),
    (BlockType::Q5K, 13, "Q5_K", 256, 176),
    (BlockType::Q6K, 14, "Q6_K", 256, 210),
];

impl BlockType {
    fn row(self) -> &'static (BlockType, u32, &'static str, usize, usize) {
        TABLE.iter().find(|row| row.0 == self).expect("the table lists every type")
    }
    /// The type with this number in a GGUF file.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }
    /// Its number in a GGUF file.
    pub fn id(self) -> u32 {
        self.row().1
    }
    /// As llama.cpp writes it: `Q4_0`.
    pub fn name(self) -> &'static str {
        self.row().2
    }
    /// Every name, for messages.
    pub(crate) fn known() -> String {
        TABLE.map(|row| row.2).join(", ")
    }
    /// Weights that share a scale.
    pub fn block_len(self) -> usize {
        self.row().3
    }
    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.row().4
    }
    /// Bytes of a tensor; `None` if its rows are not whole blocks or it is too large to address.
    pub fn size_bytes(self, shape: &[usize]) -> Option<usize> {
        let columns = *shape.last()?;
        if columns % self.block_len() != 0 {
            return None;
        }
        let numbers = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
        (numbers / self.block_len()).checked_mul(self.block_bytes())
    }
    /// The value of `general.file_type` for a file whose matrices have this type.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
            Self::BF16 => 32,
            _ => 0,
        }
    }
    /// candle's name, for the formats that it unpacks.
    pub(super) fn in_candle(self) -> Option<GgmlDType> {
        Some(match self {
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            _ => return None,
        })
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
