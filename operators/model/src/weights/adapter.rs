//! LoRA adapters in PEFT's files, and merging them into weights.

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;
use serde_json::json;

use super::{
    Weights,
    folder::{read_json, write_json},
    safetensors_file,
};
use crate::{ModelError, Result, quantization::BlockType};

/// What PEFT puts before a module's path.
const PREFIX: &str = "base_model.model.";

/// The settings an adapter was trained with.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    /// Whether the scale is α/√r rather than α/r.
    pub rank_stabilized: bool,
    /// Last parts of the adapted modules' paths, such as `q_proj`.
    pub target_modules: Vec<String>,
    /// Where the base comes from; for people.
    pub base: String,
}

/// Small matrices beside frozen ones: `y = x Wᵀ + scale · (x Aᵀ) Bᵀ`.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub config: AdapterConfig,
    /// By module path (`model.layers.0.self_attn.q_proj`): A `[rank, in]`, B `[out, rank]`.
    pub modules: BTreeMap<String, (Tensor, Tensor)>,
}

impl AdapterConfig {
    /// The factor on the product.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] for another kind of adapter than plain LoRA, or an A without its B.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("adapter_config.json");
        let json = read_json(&path)?;
        let malformed = |reason: String| ModelError::malformed(&path, reason);
        if json["peft_type"] != "LORA" || json["use_dora"] == true {
            return Err(malformed("it is no plain LoRA adapter".into()));
        }
        for name in ["rank_pattern", "alpha_pattern", "modules_to_save"] {
            let value = &json[name];
            if value.as_object().is_some_and(|map| !map.is_empty())
                || value.as_array().is_some_and(|list| !list.is_empty())
            {
                return Err(malformed(format!("`{name}` is not supported")));
            }
        }
        let rank = json["r"].as_u64().filter(|rank| (1..=1 << 16).contains(rank));
        let targets = json["target_modules"].as_array().into_iter().flatten();
        let config = AdapterConfig {
            rank: rank.ok_or_else(|| malformed("`r` is no rank".into()))? as usize,
            alpha: json["lora_alpha"].as_f64().ok_or_else(|| malformed("`lora_alpha` is no number".into()))?,
            dropout: json["lora_dropout"].as_f64().unwrap_or(0.0),
            rank_stabilized: json["use_rslora"].as_bool().unwrap_or(false),
            target_modules: targets.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
            base: json["base_model_name_or_path"].as_str().unwrap_or_default().to_owned(),
        };
        let file = folder.join("adapter_model.safetensors");
        let mut tensors = Weights::new();
        safetensors_file::read(&file, &mut tensors)?;
        let mut modules = BTreeMap::new();
        for (key, a) in tensors.iter() {
            let Some(module) = key.strip_prefix(PREFIX).and_then(|key| key.strip_suffix(".lora_A.weight")) else {
                continue;
            };
            let b = tensors.get(&format!("{PREFIX}{module}.lora_B.weight"))?;
            modules.insert(module.to_owned(), (a.clone(), b.clone()));
        }
        if modules.len() * 2 != tensors.len() {
            return Err(ModelError::malformed(&file, "it holds tensors that are no pair of LoRA matrices"));
        }
        Ok(Self { config, modules })
    }

    /// Writes a folder that PEFT loads.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save_folder(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(ModelError::io("creating", folder))?;
        let mut targets = self.config.target_modules.clone();
        targets.sort();
        let json = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": true, "bias": "none",
            "base_model_name_or_path": self.config.base,
            "r": self.config.rank,
            "lora_alpha": self.config.alpha,
            "lora_dropout": self.config.dropout,
            "use_rslora": self.config.rank_stabilized,
            "use_dora": false, "fan_in_fan_out": false, "init_lora_weights": true,
            "target_modules": targets,
            "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
        });
        write_json(&folder.join("adapter_config.json"), &json)?;
        let mut tensors = Weights::new();
        for (module, (a, b)) in &self.modules {
            tensors.insert(format!("{PREFIX}{module}.lora_A.weight"), a.clone());
            tensors.insert(format!("{PREFIX}{module}.lora_B.weight"), b.clone());
        }
        safetensors_file::write(&folder.join("adapter_model.safetensors"), tensors.iter(), BlockType::F32)
    }

    /// Adds `scale · B A` to each adapted matrix.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] if the base lacks a module; [`ModelError::Shape`] if the adapter fits another base.
    pub fn merge_into(&self, weights: &mut Weights) -> Result<()> {
        for (module, (a, b)) in &self.modules {
            let name = format!("{module}.weight");
            let weight = weights.get(&name)?;
            let ((rank, columns), (rows, rank_b)) = (a.dims2()?, b.dims2()?);
            if weight.dims() != [rows, columns] || rank != rank_b {
                return Err(ModelError::Shape { name, expected: vec![rows, columns], found: weight.dims().to_vec() });
            }
            let delta = (b.matmul(a)? * self.config.scale())?; // [out, in]
            let merged = (weight + delta)?;
            weights.insert(name, merged);
        }
        Ok(())
    }
}
