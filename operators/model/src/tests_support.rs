//! What tests need: the developers' data, a small model with random-looking weights.

use std::path::PathBuf;

use candle_core::{Device, Tensor};

use crate::{Checkpoint, Config, Generation, Weights, tokenizer::train_bpe, weights::gguf::tensor_names};

/// A file of the developers' data; `None`, with a message, if the folder is absent and not required.
pub(crate) fn shared_data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LLMFLOW_SHARED_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("LLMFLOW_REQUIRE_DATA").as_deref() != Ok("1"), "`{}` is required", path.display());
    eprintln!("skipped: `{}` is absent", path.display());
    None
}

/// SmolLM2-135M-Instruct in Q4_1, named by `LLMFLOW_SMOLLM2_GGUF`.
pub(crate) fn smollm2() -> Option<PathBuf> {
    let found = std::env::var_os("LLMFLOW_SMOLLM2_GGUF").map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        let is_required = std::env::var("LLMFLOW_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "LLMFLOW_SMOLLM2_GGUF names no file");
        eprintln!("skipped: LLMFLOW_SMOLLM2_GGUF names no file");
    }
    found
}

/// A model of two layers whose every number is another one.
pub(crate) fn small_checkpoint() -> Checkpoint {
    let tokenizer = train_bpe(["one two three two one"; 4].into_iter(), 270, 1).unwrap();
    let config = Config {
        vocab: tokenizer.vocab_size(),
        hidden: 64,
        intermediate: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        rope_theta: 10_000.0,
        rms_eps: 1e-5,
        tie_embeddings: true,
        context: 128,
        bos: tokenizer.bos(),
        eos: tokenizer.eos_ids()[..1].to_vec(),
        rope_interleaved: false,
    };
    let mut weights = Weights::new();
    let names =
        tensor_names(&config).into_iter().map(|(_, name)| (crate::weights::expected_shape(&name, &config), name));
    let tensors: Vec<(Vec<usize>, String)> = names.collect();
    let total = tensors.iter().map(|(shape, _)| shape.iter().product::<usize>()).sum();
    let mut halves = numbers(total, 1).into_iter().map(|number| number / 2.0);
    for (shape, name) in tensors {
        let own: Vec<f32> = halves.by_ref().take(shape.iter().product()).collect();
        weights.insert(name, Tensor::from_vec(own, shape, &Device::Cpu).unwrap());
    }
    Checkpoint { config, weights, tokenizer, generation: Generation::default() }
}

/// Numbers in [-1, 1), the same for the same seed (a linear congruential generator, Numerical Recipes).
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Numbers in [0, 1) of a small generator of our own, so that no library's change moves a test (SplitMix64).
pub(crate) fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
