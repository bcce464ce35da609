//! A whole language model on disk: a Hugging Face folder or a GGUF file.

use std::path::Path;

use super::{
    Weights,
    gguf::{GgufFile, config_from, tensor_names, to_half_rotation},
};
use crate::{Config, Result, TextTokenizer};

/// How the model's makers sample from it (`generation_config.json`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u32>,
}

/// A whole language model: shape, weights, tokenizer.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub config: Config,
    pub weights: Weights,
    pub tokenizer: TextTokenizer,
    pub generation: Generation,
}

impl Checkpoint {
    /// Opens a Hugging Face folder, or else a GGUF file, and unpacks it to f32.
    ///
    /// Query and key rows of a GGUF file are put back into Hugging Face's order.
    ///
    /// # Errors
    /// [`crate::ModelError`]: a missing, truncated, malformed or unsupported file, a missing or misshapen tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let checkpoint =
            if path.is_dir() { super::folder::open(path)? } else { Self::from_gguf(&GgufFile::open(path)?)? };
        checkpoint.weights.check(&checkpoint.config)?;
        Ok(checkpoint)
    }

    fn from_gguf(file: &GgufFile) -> Result<Self> {
        let config = config_from(file)?;
        let tokenizer = TextTokenizer::from_gguf(file)?;
        let names = tensor_names(&config);
        let in_file = file.tensors().iter().map(|info| info.name.as_str());
        super::refuse_unknown(file.path(), names.iter().map(|(gguf, _)| gguf), in_file)?;
        let mut weights = Weights::new();
        for (gguf, name) in names {
            let Some(info) = file.tensors().iter().find(|info| info.name == gguf) else { continue };
            let expected = super::expected_shape(&name, &config);
            if info.shape != expected {
                return Err(crate::ModelError::Shape { name, expected, found: info.shape.clone() });
            }
            let tensor = file.tensor(info)?;
            let tensor = match gguf.rsplit('.').nth(1) {
                Some("attn_q") => to_half_rotation(&tensor, config.heads)?,
                Some("attn_k") => to_half_rotation(&tensor, config.kv_heads)?,
                _ => tensor,
            };
            weights.insert(name, tensor);
        }
        Ok(Self { config, weights, tokenizer, generation: Generation::default() })
    }
}
