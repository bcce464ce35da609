//! The `llama` architecture in GGUF: its keys, its tensor names, the order of its query and key rows.

use candle_core::Tensor;

use super::{GgufFile, Value};
use crate::{Config, ModelError, Result};

/// The architecture read and written here.
const ARCHITECTURE: &str = "llama";

/// Names inside a block, GGUF then Hugging Face.
const BLOCK: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Every tensor of a model, as (GGUF name, Hugging Face name), in the order files are written.
pub(crate) fn tensor_names(config: &Config) -> Vec<(String, String)> {
    let mut names = vec![("token_embd.weight".to_owned(), "model.embed_tokens.weight".to_owned())];
    for layer in 0..config.layers {
        for (gguf, hugging_face) in BLOCK {
            names.push((format!("blk.{layer}.{gguf}.weight"), format!("model.layers.{layer}.{hugging_face}.weight")));
        }
    }
    names.push(("output_norm.weight".into(), "model.norm.weight".into()));
    if !config.tie_embeddings {
        names.push(("output.weight".into(), "lm_head.weight".into()));
    }
    names
}

/// Reads the shape of the decoder from metadata.
///
/// # Errors
/// [`ModelError::Unsupported`] for another architecture or scaled rotary frequencies, [`ModelError::Malformed`].
pub(crate) fn config_from(file: &GgufFile) -> Result<Config> {
    let unsupported = |what, found: String, known: &str| ModelError::Unsupported {
        path: file.path().to_owned(),
        what,
        found,
        known: known.to_owned(),
    };
    let architecture = file.text("general.architecture").unwrap_or_default();
    if architecture != ARCHITECTURE {
        return Err(unsupported("architecture", architecture.to_owned(), ARCHITECTURE));
    }
    if let Some(scaling) = file.text("llama.rope.scaling.type").filter(|scaling| *scaling != "none") {
        return Err(unsupported("rotary scaling", scaling.to_owned(), "none"));
    }
    let integer = |key: &str| -> Result<usize> {
        let value = file.integer(&format!("llama.{key}"))?;
        usize::try_from(value).map_err(|_| ModelError::malformed(file.path(), format!("`llama.{key}` is {value}")))
    };
    let number = |key: &str| file.find(&format!("llama.{key}")).and_then(Value::as_f64);
    let heads = integer("attention.head_count")?;
    let hidden = integer("embedding_length")?;
    let embedding = file.tensors().iter().find(|info| info.name == "token_embd.weight");
    let config = Config {
        vocab: embedding.map(|info| info.shape[0]).map_or_else(|| integer("vocab_size"), Ok)?,
        hidden,
        intermediate: integer("feed_forward_length")?,
        layers: integer("block_count")?,
        heads,
        kv_heads: integer("attention.head_count_kv").unwrap_or(heads),
        head_dim: integer("attention.key_length")
            .or_else(|_| integer("rope.dimension_count"))
            .unwrap_or(hidden / heads.max(1)),
        rope_theta: number("rope.freq_base").unwrap_or(10_000.0),
        rms_eps: number("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        tie_embeddings: !file.tensors().iter().any(|info| info.name == "output.weight"),
        context: integer("context_length")?,
        bos: file.integer("tokenizer.ggml.bos_token_id").ok().map(|id| id as u32),
        eos: file.integer("tokenizer.ggml.eos_token_id").ok().map(|id| id as u32).into_iter().collect(),
        rope_interleaved: false,
    };
    config.check().map_err(|error| ModelError::malformed(file.path(), error.to_string()))?;
    Ok(config)
}

/// The metadata that describes a decoder of this shape.
pub(crate) fn metadata_of(config: &Config) -> Vec<(String, Value)> {
    let size = |value: usize| Value::U32(value as u32);
    let mut entries = vec![("general.architecture".to_owned(), Value::Text(ARCHITECTURE.into()))];
    entries.extend(
        [
            ("context_length", size(config.context)),
            ("embedding_length", size(config.hidden)),
            ("block_count", size(config.layers)),
            ("feed_forward_length", size(config.intermediate)),
            ("vocab_size", size(config.vocab)),
            ("rope.dimension_count", size(config.head_dim)),
            ("rope.freq_base", Value::F32(config.rope_theta as f32)),
            ("attention.head_count", size(config.heads)),
            ("attention.head_count_kv", size(config.kv_heads)),
            ("attention.key_length", size(config.head_dim)),
            ("attention.value_length", size(config.head_dim)),
            ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_eps as f32)),
        ]
        .map(|(key, value)| (format!("llama.{key}"), value)),
    );
    entries
}

/// Reorders query or key rows from pairs (`2i`, `2i + 1`) to halves (`i`, `i + head_dim / 2`).
///
/// Shapes: `[heads * head_dim, hidden]` in and out.
pub(crate) fn to_half_rotation(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, hidden) = weight.dims2()?;
    let pairs = weight.reshape((heads, rows / heads / 2, 2, hidden))?; // [heads, head_dim / 2, 2, hidden]
    Ok(pairs.transpose(1, 2)?.contiguous()?.reshape((rows, hidden))?) // [heads * head_dim, hidden]
}

/// Reorders query or key rows from halves to pairs: the inverse of [`to_half_rotation`].
pub(crate) fn to_interleaved_rotation(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, hidden) = weight.dims2()?;
    let halves = weight.reshape((heads, 2, rows / heads / 2, hidden))?; // [heads, 2, head_dim / 2, hidden]
    Ok(halves.transpose(1, 2)?.contiguous()?.reshape((rows, hidden))?) // [heads * head_dim, hidden]
}
