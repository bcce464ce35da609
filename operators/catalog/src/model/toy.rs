//! A model small enough for tests of operators, written as files alone.

use std::path::Path;

use llmflow_contract::{AnyArtifact, Digest, Facts, Host as _, Made, kinds};
use llmflow_model::{Config, tokenizer::train_bpe};
use serde_json::{Map, json};

use crate::testing::{TestHost, artifact};

/// A safetensors file of f32, each tensor filled by its value at an index.
fn safetensors(path: &Path, tensors: &[(String, Vec<usize>)], value: impl Fn(&str, usize) -> f32) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        (0..shape.iter().product::<usize>()).for_each(|index| data.extend(value(name, index).to_le_bytes()));
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

/// One layer, width 64, a few thousand weights.
pub(crate) fn model(host: &TestHost) -> AnyArtifact {
    let folder = host.output("toy-model").unwrap();
    let tokenizer = train_bpe(["one two three"; 3].into_iter(), 270, 1).unwrap();
    tokenizer.save_folder(&folder).unwrap();
    let config = Config {
        vocab: tokenizer.vocab_size(),
        hidden: 64,
        intermediate: 96,
        layers: 1,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        rope_theta: 10_000.0,
        rms_eps: 1e-5,
        tie_embeddings: true,
        context: 64,
        bos: tokenizer.bos(),
        eos: vec![2],
        rope_interleaved: false,
    };
    std::fs::write(folder.join("config.json"), config.to_json("float32").to_string()).unwrap();
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![config.vocab, 64]),
        (layer("input_layernorm"), vec![64]),
        (layer("self_attn.q_proj"), vec![64, 64]),
        (layer("self_attn.k_proj"), vec![32, 64]),
        (layer("self_attn.v_proj"), vec![32, 64]),
        (layer("self_attn.o_proj"), vec![64, 64]),
        (layer("post_attention_layernorm"), vec![64]),
        (layer("mlp.gate_proj"), vec![96, 64]),
        (layer("mlp.up_proj"), vec![96, 64]),
        (layer("mlp.down_proj"), vec![64, 96]),
        ("model.norm.weight".to_owned(), vec![64]),
    ];
    safetensors(&folder.join("model.safetensors"), &tensors, |name, index| {
        ((index * 7919 + name.len() * 31) % 1009) as f32 / 504.5 - 1.0
    });
    artifact(Made::<kinds::Model>::new(folder, Facts::default()).into_any())
}

/// Rank 2, all ones, on `up_proj` of the toy's only layer.
pub(crate) fn adapter(host: &TestHost, base: &AnyArtifact) -> AnyArtifact {
    let folder = host.output("toy-adapter").unwrap();
    let settings = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["up_proj"]});
    std::fs::write(folder.join("adapter_config.json"), settings.to_string()).unwrap();
    let key = |side: &str| format!("base_model.model.model.layers.0.mlp.up_proj.lora_{side}.weight");
    let tensors = [(key("A"), vec![2, 64]), (key("B"), vec![96, 2])];
    safetensors(&folder.join("adapter_model.safetensors"), &tensors, |_, _| 1.0);
    let facts = Facts { base: Some(base.digest), ..Facts::default() };
    let made = Made::<kinds::Adapter>::new(folder, facts).refers_to("base", base.digest);
    let mut adapter = artifact(made.into_any());
    adapter.references.insert("base".into(), base.clone());
    adapter
}

/// A digest that is no toy's.
pub(crate) fn other() -> Digest {
    Digest::of(b"another model")
}
