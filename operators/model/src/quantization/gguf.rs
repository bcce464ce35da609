//! Writes a whole model as one GGUF file.

use std::path::Path;

use candle_core::Tensor;

use super::BlockType;
use crate::{
    Checkpoint, ModelError, Result,
    weights::gguf::{GgufWriter, TensorPlan, Value, metadata_of, tensor_names, to_interleaved_rotation},
};

/// What became of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Hugging Face name.
    pub name: String,
    pub block_type: BlockType,
    pub numbers: u64,
    pub size_bytes: u64,
    /// ‖unpacked − original‖ / ‖original‖, summed in f64; 0 for a tensor of zeros.
    pub relative_error: f64,
}

/// A written file.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    pub size_bytes: u64,
    pub tensors: Vec<TensorReport>,
}

/// Writes a model as GGUF v3, matrices in `block_type`, with tokenizer and chat template.
///
/// Norms stay F32. A matrix whose rows are not whole blocks is written as F16. Where the output head is the embedding,
/// it is kept at Q8_0 even in a Q4_0 file: it is read for every token, and Q6_K, which llama.cpp prefers there, is not
/// written here. `on_tensor` hears how many of all tensors are done and may say `false` to stop.
///
/// # Errors
/// [`ModelError::Invalid`] for a type that is only read; [`ModelError::Cancelled`] if told to stop;
/// [`ModelError::MissingTensor`], [`ModelError::Io`].
pub fn write_gguf(
    path: &Path,
    checkpoint: &Checkpoint,
    block_type: BlockType,
    on_tensor: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Quantized> {
    let config = &checkpoint.config;
    let names = tensor_names(config);
    let plans = names
        .iter()
        .map(|(gguf, name)| {
            let shape = checkpoint.weights.get(name)?.dims().to_vec();
            let block_type = type_of(gguf, &shape, block_type, config.tie_embeddings);
            Ok(TensorPlan { name: gguf.clone(), shape, block_type })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut metadata = metadata_of(config);
    metadata.extend([
        ("general.type".to_owned(), Value::Text("model".into())),
        ("general.name".to_owned(), Value::Text("llmflow model".into())),
        ("general.file_type".to_owned(), Value::U32(block_type.file_type())),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ]);
    metadata.extend(checkpoint.tokenizer.to_gguf(config)?);
    let mut writer = GgufWriter::create(path, &metadata, &plans)?;
    let mut tensors = Vec::with_capacity(plans.len());
    for (index, (plan, (_, name))) in plans.iter().zip(&names).enumerate() {
        if !on_tensor(index, plans.len()) {
            return Err(ModelError::Cancelled);
        }
        let numbers = numbers_of(checkpoint, &plan.name, name)?;
        let blocks = plan.block_type.pack(&numbers)?;
        writer.tensor(&blocks)?;
        tensors.push(TensorReport {
            name: name.clone(),
            block_type: plan.block_type,
            numbers: numbers.len() as u64,
            size_bytes: blocks.len() as u64,
            relative_error: relative_error(&numbers, &plan.block_type.unpack_numbers(&blocks)?),
        });
    }
    Ok(Quantized { size_bytes: writer.finish()?, tensors })
}

fn type_of(name: &str, shape: &[usize], wanted: BlockType, tied: bool) -> BlockType {
    if shape.len() < 2 || name.contains("_norm.") {
        return BlockType::F32;
    }
    let wanted = match wanted {
        BlockType::Q4_0 | BlockType::Q4_1 if tied && name == "token_embd.weight" => BlockType::Q8_0,
        wanted => wanted,
    };
    if wanted.size_bytes(shape).is_some() { wanted } else { BlockType::F16 }
}

fn numbers_of(checkpoint: &Checkpoint, gguf: &str, name: &str) -> Result<Vec<f32>> {
    let tensor: &Tensor = checkpoint.weights.get(name)?;
    let config = &checkpoint.config;
    let tensor = match gguf.rsplit('.').nth(1) {
        Some("attn_q") if !config.rope_interleaved => to_interleaved_rotation(tensor, config.heads)?,
        Some("attn_k") if !config.rope_interleaved => to_interleaved_rotation(tensor, config.kv_heads)?,
        _ => tensor.clone(),
    };
    Ok(tensor.flatten_all()?.to_vec1()?)
}

fn relative_error(original: &[f32], unpacked: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let (mut error, mut norm) = (0f64, 0f64);
    for (original, unpacked) in original.iter().zip(unpacked) {
        error += square(f64::from(*unpacked) - f64::from(*original));
        norm += square(f64::from(*original));
    }
    if norm == 0.0 { 0.0 } else { (error / norm).sqrt() }
}
