//! f32 to blocks, with the reference's rounding.
//!
//! No fused multiply-add: Rust never contracts `a * b + c`, which matches the reference's x86-64 default build.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{BlockType, block::BLOCK};
use crate::{ModelError, Result};

/// Blocks handed to one thread at a time.
const CHUNK: usize = 4096;

impl BlockType {
    /// Packs numbers to whole blocks, in order.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if they are not whole blocks, or for a format that is only read.
    pub fn pack(self, numbers: &[f32]) -> Result<Vec<u8>> {
        let pack: fn(&[f32], &mut [u8]) = match self {
            Self::F32 => |from, block| block.copy_from_slice(&from[0].to_le_bytes()),
            Self::F16 => |from, block| block.copy_from_slice(&f16::from_f32(from[0]).to_le_bytes()),
            Self::BF16 => |from, block| block.copy_from_slice(&bf16::from_f32(from[0]).to_le_bytes()),
            Self::Q8_0 => pack_q8_0,
            Self::Q4_0 => pack_q4_0,
            Self::Q4_1 => pack_q4_1,
            _ => return Err(ModelError::Invalid(format!("{self} is only read, not written"))),
        };
        let (size, len) = (self.block_bytes(), self.block_len());
        if !numbers.len().is_multiple_of(len) {
            return Err(ModelError::Invalid(format!("{} numbers are not whole {self} blocks", numbers.len())));
        }
        let mut bytes = vec![0u8; numbers.len() / len * size];
        bytes.par_chunks_mut(CHUNK * size).zip(numbers.par_chunks(CHUNK * len)).for_each(|(to, from)| {
            to.chunks_exact_mut(size).zip(from.chunks_exact(len)).for_each(|(block, from)| pack(from, block));
        });
        Ok(bytes)
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Scale = largest magnitude / 127; halves round away from zero; the f16 scale is stored after the f32 one was used.
fn pack_q8_0(from: &[f32], block: &mut [u8]) {
    let largest = from.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (quant, value) in block[2..].iter_mut().zip(from) {
        *quant = (value * inverse).round() as i8 as u8;
    }
}

/// Scale = the signed value of largest magnitude (the first, on ties) / -8; truncates after adding 8.5.
fn pack_q4_0(from: &[f32], block: &mut [u8]) {
    let mut largest = 0f32;
    for value in from {
        if value.abs() > largest.abs() {
            largest = *value;
        }
    }
    let scale = largest / -8.0;
    let inverse = inverse(scale);
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    let quant = |value: f32| ((value * inverse + 8.5) as i8).min(15) as u8;
    for (index, byte) in block[2..].iter_mut().enumerate() {
        *byte = quant(from[index]) | (quant(from[index + BLOCK / 2]) << 4);
    }
}

/// Scale = range / 15 above the minimum; truncates after adding 0.5.
fn pack_q4_1(from: &[f32], block: &mut [u8]) {
    let least = from.iter().copied().fold(f32::MAX, f32::min);
    let most = from.iter().copied().fold(f32::MIN, f32::max);
    let scale = (most - least) / 15.0;
    let inverse = inverse(scale);
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    block[2..4].copy_from_slice(&f16::from_f32(least).to_le_bytes());
    let quant = |value: f32| (((value - least) * inverse + 0.5) as i8).min(15) as u8;
    for (index, byte) in block[4..].iter_mut().enumerate() {
        *byte = quant(from[index]) | (quant(from[index + BLOCK / 2]) << 4);
    }
}
