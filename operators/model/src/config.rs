//! The shape of a decoder, and its Hugging Face form `config.json`.
//!
//! Owns: [`Config`], its limits, its JSON.
//! Must not know: tensors, tokens.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ModelError, Result};

/// The shape and constants of a Llama-family decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Rows of the embedding, in tokens.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in every RMSNorm.
    pub rms_eps: f64,
    /// Whether the output head is the embedding.
    pub tie_embeddings: bool,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Token that opens a sequence, if the model uses one.
    pub bos: Option<u32>,
    /// Tokens that end a sequence or a turn.
    pub eos: Vec<u32>,
    /// Whether rotation pairs adjacent dimensions (`2i`, `2i + 1`) rather than halves (`i`, `i + head_dim / 2`).
    /// [`crate::Checkpoint::open`] always gives halves.
    pub rope_interleaved: bool,
}

/// The architecture this crate computes.
pub const ARCHITECTURE: &str = "LlamaForCausalLM";
/// Most layers believed; guards what is allocated for a file that lies.
const MAX_LAYERS: usize = 1024;
/// Widest axis believed.
const MAX_WIDTH: usize = 1 << 24;

impl Config {
    /// Checks that the numbers can describe a model.
    ///
    /// # Errors
    /// [`ModelError::Heads`], [`ModelError::Invalid`].
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("layers", self.layers, MAX_LAYERS),
            ("vocab", self.vocab, MAX_WIDTH),
            ("hidden", self.hidden, MAX_WIDTH),
            ("intermediate", self.intermediate, MAX_WIDTH),
            ("heads", self.heads, MAX_WIDTH),
            ("kv_heads", self.kv_heads, MAX_WIDTH),
            ("head_dim", self.head_dim, MAX_WIDTH),
            ("context", self.context, usize::MAX),
        ] {
            if value == 0 || value > most {
                return Err(ModelError::Invalid(format!("the configuration says {name} = {value}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ModelError::Heads { heads: self.heads, kv_heads: self.kv_heads });
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ModelError::Invalid(format!("a head of {} dimensions cannot be rotated", self.head_dim)));
        }
        Ok(())
    }

    /// Numbers in a model of this shape.
    pub fn parameters(&self) -> u64 {
        let attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads);
        let layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden;
        let embeddings = self.vocab * self.hidden * if self.tie_embeddings { 1 } else { 2 };
        (embeddings + self.layers * layer + self.hidden) as u64
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] with what is missing, unsupported or contradictory.
    pub fn from_json(json: &Value) -> Result<Self> {
        let architecture = json["architectures"][0].as_str().unwrap_or_default();
        if architecture != ARCHITECTURE {
            return Err(ModelError::Invalid(format!(
                "architecture `{architecture}` is not supported; known: {ARCHITECTURE}"
            )));
        }
        let rope = if json["rope_parameters"].is_object() { &json["rope_parameters"] } else { &json["rope_scaling"] };
        let scaling = rope["rope_type"].as_str().or(rope["type"].as_str()).unwrap_or("default");
        if scaling != "default" {
            return Err(ModelError::Invalid(format!("rotary scaling `{scaling}` is not supported; known: default")));
        }
        for flag in ["attention_bias", "mlp_bias"] {
            if json[flag] == true {
                return Err(ModelError::Invalid(format!("`{flag}` is not supported")));
            }
        }
        let activation = &json["hidden_act"];
        if !activation.is_null() && !matches!(activation.as_str(), Some("silu" | "swish")) {
            return Err(ModelError::Invalid(format!("`hidden_act` {activation} is not supported; known: silu")));
        }
        let size = |name: &str| -> Result<usize> {
            let value = json[name].as_u64().and_then(|value| usize::try_from(value).ok());
            value.ok_or_else(|| ModelError::Invalid(format!("it has no whole number `{name}`")))
        };
        let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let config = Self {
            vocab: size("vocab_size")?,
            hidden,
            intermediate: size("intermediate_size")?,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads: size("num_key_value_heads").unwrap_or(heads),
            head_dim: size("head_dim").unwrap_or(hidden / heads.max(1)),
            rope_theta: json["rope_theta"].as_f64().or(rope["rope_theta"].as_f64()).unwrap_or(10_000.0),
            rms_eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            tie_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
            context: size("max_position_embeddings").unwrap_or(2048),
            bos: tokens(&json["bos_token_id"]).first().copied(),
            eos: tokens(&json["eos_token_id"]),
            rope_interleaved: false,
        };
        config.check()?;
        Ok(config)
    }

    /// The Hugging Face `config.json` of this shape; `dtype` is that of the tensors beside it.
    pub fn to_json(&self, dtype: &str) -> Value {
        json!({
            "architectures": [ARCHITECTURE],
            "model_type": "llama",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.rms_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "max_position_embeddings": self.context,
            "bos_token_id": self.bos,
            "eos_token_id": tokens_json(&self.eos),
            "torch_dtype": dtype,
        })
    }
}

/// One token, a list, or null: `config.json` allows all three.
pub(crate) fn tokens(json: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    json.as_array().map_or_else(|| one(json).into_iter().collect(), |items| items.iter().filter_map(one).collect())
}

/// The shortest of the three forms.
pub(crate) fn tokens_json(tokens: &[u32]) -> Value {
    match tokens {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Config {
        Config {
            vocab: 512,
            hidden: 64,
            intermediate: 172,
            layers: 5,
            heads: 8,
            kv_heads: 4,
            head_dim: 8,
            rope_theta: 10_000.0,
            rms_eps: 1e-5,
            tie_embeddings: true,
            context: 512,
            bos: Some(1),
            eos: vec![2, 3],
            rope_interleaved: false,
        }
    }

    #[test]
    fn a_configuration_survives_its_json() {
        assert_eq!(Config::from_json(&small().to_json("float32")).unwrap(), small());
        assert_eq!(small().parameters(), 260_032);
    }

    #[test]
    fn heads_that_cannot_be_shared_and_foreign_architectures_are_refused() {
        assert!(matches!(Config { kv_heads: 3, ..small() }.check(), Err(ModelError::Heads { heads: 8, kv_heads: 3 })));
        let mut json = small().to_json("float32");
        json["architectures"][0] = "BertModel".into();
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("`BertModel`"));
        let mut json = small().to_json("float32");
        json["hidden_act"] = "swish".into();
        assert!(Config::from_json(&json).is_ok());
        json["hidden_act"] = "gelu".into();
        assert!(Config::from_json(&json).unwrap_err().to_string().contains("`hidden_act` \"gelu\""));
    }
}
