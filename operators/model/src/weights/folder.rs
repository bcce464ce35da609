//! Hugging Face folders: `config.json`, safetensors, tokenizer files, model card.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use super::{Checkpoint, Generation, Weights, gguf::tensor_names, refuse_unknown, safetensors_file};
use crate::{
    Config, ModelError, Result, TextTokenizer,
    config::{tokens, tokens_json},
    quantization::BlockType,
};

/// Largest JSON file read, in bytes; a tokenizer of 256,000 tokens has 30 MB.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// How saved weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaveType {
    #[default]
    F32,
    BF16,
}

impl SaveType {
    /// As `config.json` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::BF16 => "bfloat16",
        }
    }
}

pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    let path = folder.join("config.json");
    let mut config =
        Config::from_json(&read_json(&path)?).map_err(|error| ModelError::malformed(&path, error.to_string()))?;
    let generation_path = folder.join("generation_config.json");
    let mut generation = Generation::default();
    if generation_path.exists() {
        let json = read_json(&generation_path)?;
        for token in tokens(&json["eos_token_id"]) {
            if !config.eos.contains(&token) {
                config.eos.push(token);
            }
        }
        generation.temperature = json["temperature"].as_f64();
        generation.top_p = json["top_p"].as_f64();
        generation.top_k = json["top_k"].as_u64().and_then(|value| u32::try_from(value).ok());
    }
    let mut weights = Weights::new();
    let (whole, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    // Beside the whole file an index does not count: transformers does not read it either.
    if index.exists() && !whole.exists() {
        for name in shards(&index)? {
            safetensors_file::read(&folder.join(name), &mut weights)?;
        }
    } else {
        safetensors_file::read(&whole, &mut weights)?;
    }
    weights.drop_needless(&config);
    let names = tensor_names(&config);
    refuse_unknown(folder, names.iter().map(|(_, name)| name), weights.iter().map(|(name, _)| name))?;
    Ok(Checkpoint { config, weights, tokenizer: TextTokenizer::from_folder(folder)?, generation })
}

/// The shard files an index names; a name may not leave the folder.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let json = read_json(index)?;
    let map = json["weight_map"].as_object().ok_or_else(|| ModelError::malformed(index, "it has no `weight_map`"))?;
    map.values()
        .map(|name| match name.as_str() {
            Some(name) if !name.contains(['/', '\\']) && name.ends_with(".safetensors") => Ok(name.to_owned()),
            _ => Err(ModelError::malformed(index, format!("{name} is no name of a shard"))),
        })
        .collect()
}

impl Checkpoint {
    /// Writes a folder that transformers loads, weights in f32.
    pub fn save_folder(&self, folder: &Path) -> Result<()> {
        self.save_folder_as(folder, SaveType::F32)
    }

    /// Writes a folder that transformers loads, weights stored as asked.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for interleaved rotation, which the format cannot say; [`ModelError::Io`].
    pub fn save_folder_as(&self, folder: &Path, save_type: SaveType) -> Result<()> {
        if self.config.rope_interleaved {
            return Err(ModelError::Invalid("a folder cannot say that rotation is interleaved".into()));
        }
        fs::create_dir_all(folder).map_err(ModelError::io("creating", folder))?;
        write_json(&folder.join("config.json"), &self.config.to_json(save_type.name()))?;
        let mut generation = json!({ "bos_token_id": self.config.bos, "eos_token_id": tokens_json(&self.config.eos) });
        let Generation { temperature, top_p, top_k } = self.generation;
        for (name, value) in [("temperature", json!(temperature)), ("top_p", json!(top_p)), ("top_k", json!(top_k))] {
            if !value.is_null() {
                generation["do_sample"] = json!(true);
                generation[name] = value;
            }
        }
        write_json(&folder.join("generation_config.json"), &generation)?;
        self.tokenizer.save_folder(folder)?;
        let block_type = if save_type == SaveType::BF16 { BlockType::BF16 } else { BlockType::F32 };
        safetensors_file::write(&folder.join("model.safetensors"), self.weights.iter(), block_type)?;
        let card = format!(
            "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# Model\n\nA Llama-architecture language \
             model of {} parameters ({} layers, width {}, vocabulary {}, context {}), written by LLMflow.\n",
            self.weights.parameters(),
            self.config.layers,
            self.config.hidden,
            self.config.vocab,
            self.config.context,
        );
        write_text(&folder.join("README.md"), &card)
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    let size = fs::metadata(path).map_err(ModelError::io("opening", path))?.len();
    if size > MAX_JSON_BYTES {
        return Err(ModelError::malformed(path, format!("{size} bytes are more than {MAX_JSON_BYTES}")));
    }
    fs::read_to_string(path).map_err(ModelError::io("reading", path))
}

pub(crate) fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_str(&read_text(path)?).map_err(|error| ModelError::malformed(path, error.to_string()))
}

pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(ModelError::io("writing", path))
}

pub(crate) fn write_json(path: &Path, json: &Value) -> Result<()> {
    write_text(path, &format!("{json:#}\n"))
}
