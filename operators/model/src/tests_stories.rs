//! A real, trained model end to end against an independent NumPy forward pass: stories260K, a llama2.c file.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::{
    Config, Weights,
    sampling::{Control, GenerateConfig, ScoreRequest, generate, score},
    tests_support::shared_data,
    transformer::Decoder,
    weights::{expected_shape, gguf::to_half_rotation},
};

/// The order of tensors in a llama2.c "version 0" file: each name holds one tensor per layer, in order.
const LAYOUT: [&str; 11] = [
    "model.embed_tokens",
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.down_proj",
    "mlp.up_proj",
    "model.norm",
];

/// Reads a llama2.c file: seven numbers, then f32 tensors. Its rotation pairs adjacent dimensions.
fn read_llama2c(path: &Path) -> (Config, Weights) {
    let bytes = std::fs::read(path).unwrap();
    let words: Vec<[u8; 4]> = bytes.chunks_exact(4).map(|word| word.try_into().unwrap()).collect();
    let header: Vec<usize> = words[..7].iter().map(|word| i32::from_le_bytes(*word) as usize).collect();
    let config = Config {
        hidden: header[0],
        intermediate: header[1],
        layers: header[2],
        heads: header[3],
        kv_heads: header[4],
        vocab: header[5],
        context: header[6],
        head_dim: header[0] / header[3],
        rope_theta: 10_000.0,
        rms_eps: 1e-5,
        tie_embeddings: true,
        bos: Some(1),
        eos: vec![2],
        rope_interleaved: true,
    };
    let mut numbers = words[7..].iter().map(|word| f32::from_le_bytes(*word));
    let mut weights = Weights::new();
    for place in LAYOUT {
        let names = match place.starts_with("model.") {
            true => vec![format!("{place}.weight")],
            false => (0..config.layers).map(|layer| format!("model.layers.{layer}.{place}.weight")).collect(),
        };
        for name in names {
            let shape = expected_shape(&name, &config);
            let values: Vec<f32> = numbers.by_ref().take(shape.iter().product()).collect();
            weights.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        }
    }
    (config, weights)
}

/// The same model with rotation over halves, as Hugging Face folders hold it.
fn with_half_rotation(config: &Config, weights: &Weights) -> (Config, Weights) {
    let mut turned = weights.clone();
    for (name, tensor) in weights.iter() {
        let heads = if name.contains("q_proj") { config.heads } else { config.kv_heads };
        if name.contains("q_proj") || name.contains("k_proj") {
            turned.insert(name, to_half_rotation(tensor, heads).unwrap());
        }
    }
    (Config { rope_interleaved: false, ..config.clone() }, turned)
}

fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Reference: `expected.json` beside the model, made by a float32 NumPy forward pass.
#[test]
fn stories260k_says_word_for_word_what_the_reference_says() {
    let Some(folder) = shared_data("models/stories260k") else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let (config, weights) = read_llama2c(&folder.join("stories260K.bin"));
    assert_eq!((config.parameters(), weights.parameters()), (260_032, 260_032));
    let greedy = ids(&expected["greedy_from_bos"]["token_ids"]);
    for (config, weights) in [with_half_rotation(&config, &weights), (config, weights)] {
        let decoder = Decoder::new(&config, &weights).unwrap();
        let asked = GenerateConfig { max_new_tokens: greedy.len(), ..GenerateConfig::default() };
        let said = generate(&decoder, &[vec![1]], &asked, &mut |_| Control::Continue).unwrap();
        assert_eq!(said[0].tokens, greedy);

        let logits = decoder.logits(&[1, greedy[0], greedy[1]]).unwrap();
        let tops = expected["top5_logits_at_positions_0_1_2_of_the_greedy_run"].as_array().unwrap();
        assert_eq!(tops.len(), 3);
        for (row, top) in logits.chunks_exact(config.vocab).zip(tops) {
            for pair in top.as_array().unwrap() {
                let (token, logit) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
                assert!((f64::from(row[token]) - logit).abs() < 1e-3, "token {token}: {} against {logit}", row[token]);
            }
        }

        let forced = &expected["teacher_forced"];
        let tokens = [vec![1], ids(&forced["token_ids"])].concat();
        let scored = score(&decoder, &[ScoreRequest { tokens, from: 1 }], 1, &mut |_| true).unwrap();
        let logprobs = &scored[0].logprobs;
        let nll = -logprobs.iter().map(|ln_p| f64::from(*ln_p)).sum::<f64>() / logprobs.len() as f64;
        assert!((nll - forced["mean_nll"].as_f64().unwrap()).abs() < 1e-4, "{nll}");
    }
}
