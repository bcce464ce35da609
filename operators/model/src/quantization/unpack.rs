//! Blocks to f32.

use candle_core::{Device, Tensor, quantized::ggml_file::qtensor_from_ggml};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{BlockType, block::BLOCK};
use crate::{ModelError, Result};

/// Blocks handed to one thread at a time; each output number has one block as its source, so threads cannot change it.
const CHUNK: usize = 4096;

impl BlockType {
    /// Unpacks a tensor's blocks to f32.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if `bytes` is not what `shape` takes.
    pub fn unpack(self, bytes: &[u8], shape: &[usize], device: &Device) -> Result<Tensor> {
        if self.size_bytes(shape) != Some(bytes.len()) {
            return Err(ModelError::Invalid(format!("{} bytes are no {self} tensor of {shape:?}", bytes.len())));
        }
        if let Some(kind) = self.in_candle() {
            return Ok(qtensor_from_ggml(kind, bytes, shape.to_vec(), &Device::Cpu)?.dequantize(device)?);
        }
        Ok(Tensor::from_vec(self.unpack_numbers(bytes)?, shape, device)?)
    }

    /// Unpacks whole blocks to f32, in order.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for a format that only [`Self::unpack`] reads, or a broken block.
    pub fn unpack_numbers(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let unpack: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => |block, to| to[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => |block, to| to[0] = f16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::BF16 => |block, to| to[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q8_0 => unpack_q8_0,
            Self::Q4_0 => unpack_q4_0,
            Self::Q4_1 => unpack_q4_1,
            _ => return Err(ModelError::Invalid(format!("{self} has no plain unpacking"))),
        };
        let (size, len) = (self.block_bytes(), self.block_len());
        if !bytes.len().is_multiple_of(size) {
            return Err(ModelError::Invalid(format!("{} bytes are not whole {self} blocks", bytes.len())));
        }
        let mut numbers = vec![0f32; bytes.len() / size * len];
        numbers.par_chunks_mut(CHUNK * len).zip(bytes.par_chunks(CHUNK * size)).for_each(|(to, from)| {
            to.chunks_exact_mut(len).zip(from.chunks_exact(size)).for_each(|(to, block)| unpack(block, to));
        });
        Ok(numbers)
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Layout: f16 scale, 32 × i8.
fn unpack_q8_0(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    for (to, quant) in to.iter_mut().zip(&block[2..]) {
        *to = f32::from(*quant as i8) * scale;
    }
}

/// Layout: f16 scale, 16 bytes; the low nibble is weight `j`, the high one weight `j + 16`.
fn unpack_q4_0(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    for (index, byte) in block[2..].iter().enumerate() {
        to[index] = (i32::from(byte & 15) - 8) as f32 * scale;
        to[index + BLOCK / 2] = (i32::from(byte >> 4) - 8) as f32 * scale;
    }
}

/// Layout: f16 scale, f16 minimum, nibbles as in Q4_0.
fn unpack_q4_1(block: &[u8], to: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (index, byte) in block[4..].iter().enumerate() {
        to[index] = f32::from(byte & 15) * scale + least;
        to[index + BLOCK / 2] = f32::from(byte >> 4) * scale + least;
    }
}
