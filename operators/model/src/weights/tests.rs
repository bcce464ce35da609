//! What the files promise: what is written is read back, what is broken is refused in one clear sentence.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::*;
use crate::{
    quantization::{BlockType, write_gguf},
    tests_support::{shared_data, small_checkpoint, smollm2},
};

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_equal(a: &Weights, b: &Weights) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
        assert_eq!((a.dims(), numbers(a)), (b.dims(), numbers(b)), "{name}");
    }
}

#[test]
fn a_folder_gives_back_what_was_saved() {
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), small_checkpoint());
    checkpoint.save_folder(folder.path()).unwrap();
    let back = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(back.config, checkpoint.config);
    assert_equal(&back.weights, &checkpoint.weights);
    assert_eq!(back.tokenizer.json(), checkpoint.tokenizer.json());
    assert_eq!(back.tokenizer.template(), checkpoint.tokenizer.template());
}

#[test]
fn an_index_beside_the_whole_file_does_not_count() {
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), small_checkpoint());
    checkpoint.save_folder(folder.path()).unwrap();
    let (whole, shard) = ("model.safetensors", "model-00001-of-00001.safetensors");
    let index = serde_json::json!({"weight_map": {"model.norm.weight": shard}});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_equal(&Checkpoint::open(folder.path()).unwrap().weights, &checkpoint.weights);
    std::fs::rename(folder.path().join(whole), folder.path().join(shard)).unwrap();
    assert_equal(&Checkpoint::open(folder.path()).unwrap().weights, &checkpoint.weights);
}

#[test]
fn a_tensor_that_the_decoder_does_not_know_is_refused_and_a_needless_one_left_out() {
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), small_checkpoint());
    let one = Tensor::ones(64, candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut more = checkpoint.clone();
    more.weights.insert("lm_head.weight", one.clone());
    more.weights.insert("model.layers.0.self_attn.rotary_emb.inv_freq", one.clone());
    more.save_folder(folder.path()).unwrap();
    assert_equal(&Checkpoint::open(folder.path()).unwrap().weights, &checkpoint.weights);
    more.weights.insert("model.layers.0.self_attn.q_proj.bias", one);
    more.save_folder(folder.path()).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(&error, ModelError::Unsupported { found, .. } if found.ends_with("q_proj.bias")), "{error}");
}

#[test]
fn a_gguf_with_scaled_rotary_frequencies_is_refused() {
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), small_checkpoint());
    let path = folder.path().join("m.gguf");
    let mut metadata = gguf::metadata_of(&checkpoint.config);
    metadata.extend(checkpoint.tokenizer.to_gguf(&checkpoint.config).unwrap());
    let plan = gguf::TensorPlan { name: "rope_freqs.weight".into(), shape: vec![8], block_type: BlockType::F32 };
    let mut writer = gguf::GgufWriter::create(&path, &metadata, &[plan]).unwrap();
    writer.tensor(&[0; 32]).unwrap();
    writer.finish().unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(matches!(&error, ModelError::Unsupported { found, .. } if found == "rope_freqs.weight"), "{error}");
}

#[test]
fn an_f32_gguf_gives_back_weights_tokenizer_and_shape() {
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), small_checkpoint());
    let path = folder.path().join("m.gguf");
    write_gguf(&path, &checkpoint, BlockType::F32, &mut |_, _| true).unwrap();
    let back = Checkpoint::open(&path).unwrap();
    assert_eq!(back.config, checkpoint.config);
    assert_equal(&back.weights, &checkpoint.weights);
    let text = "one two 123 née\n";
    assert_eq!(back.tokenizer.encode(text, false).unwrap(), checkpoint.tokenizer.encode(text, false).unwrap());
}

#[test]
fn a_gguf_cut_anywhere_or_changed_anywhere_never_panics() {
    let (folder, checkpoint) = (tempfile::tempdir().unwrap(), small_checkpoint());
    let path = folder.path().join("m.gguf");
    write_gguf(&path, &checkpoint, BlockType::Q8_0, &mut |_, _| true).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for size in [0, 3, 4, 20, 100, 1000, whole.len() / 2, whole.len() - 40] {
        std::fs::write(&path, &whole[..size]).unwrap();
        match Checkpoint::open(&path) {
            Err(ModelError::Truncated { found_bytes, .. }) => assert_eq!(found_bytes, size as u64),
            Err(ModelError::Io { .. }) if size == 0 => {} // an empty file cannot be mapped
            other => panic!("{size}: {other:?}"),
        }
    }
    for at in (0..1500).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        std::fs::write(&path, &changed).unwrap();
        let _ = Checkpoint::open(&path);
    }
}

#[test]
fn a_file_that_claims_more_than_it_has_is_refused_before_anything_is_allocated() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(u64::MAX.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    std::fs::write(path.path(), &bytes).unwrap();
    let error = gguf::GgufFile::open(path.path()).unwrap_err().to_string();
    assert!(error.contains("tensors, more than"), "{error}");
}

#[test]
fn merging_adds_the_scaled_product_and_a_zero_adapter_changes_nothing() {
    let mut checkpoint = small_checkpoint();
    let module = "model.layers.1.mlp.up_proj";
    let ones = |rows, columns| Tensor::ones((rows, columns), candle_core::DType::F32, &Device::Cpu).unwrap();
    let config = AdapterConfig {
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
        rank_stabilized: false,
        target_modules: vec!["up_proj".into()],
        base: String::new(),
    };
    let before = checkpoint.weights.clone();
    let zero = (ones(96, 2) * 0.0).unwrap();
    let mut adapter = Adapter { config, modules: BTreeMap::from([(module.to_owned(), (ones(2, 64), zero))]) };
    adapter.merge_into(&mut checkpoint.weights).unwrap();
    assert_equal(&before, &checkpoint.weights);
    adapter.modules.get_mut(module).unwrap().1 = ones(96, 2);
    let folder = tempfile::tempdir().unwrap();
    adapter.save_folder(folder.path()).unwrap();
    let back = Adapter::open(folder.path()).unwrap();
    assert_eq!(back.config, adapter.config);
    back.merge_into(&mut checkpoint.weights).unwrap();
    let name = format!("{module}.weight");
    let (old, new) = (numbers(before.get(&name).unwrap()), numbers(checkpoint.weights.get(&name).unwrap()));
    assert!(old.iter().zip(&new).all(|(old, new)| (new - old - 4.0).abs() < 1e-5)); // 4 / 2 · (1 + 1)
}

#[test]
fn gpt_2s_vocabulary_gives_the_ids_of_its_conformance_test() {
    let Some(path) = shared_data("tokenizers/ggml-vocab-gpt-2.gguf") else { return };
    let tokenizer = crate::TextTokenizer::from_gguf(&gguf::GgufFile::open(&path).unwrap()).unwrap();
    let inputs = std::fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
    let outputs = std::fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let mut compared = 0;
    for (text, ids) in inputs.split("\n__ggml_vocab_test__\n").zip(outputs.lines()) {
        let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{text:?}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn smollm2_opens_and_tokenizes_as_its_reference_says() {
    let Some(path) = smollm2() else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.weights.parameters(), 134_515_008);
    assert_eq!(checkpoint.config.parameters(), 134_515_008);
    let tokenizer = &checkpoint.tokenizer;
    assert_eq!(tokenizer.encode("Gravity is", false).unwrap(), [22007, 6463, 314]);
    assert_eq!(
        tokenizer.decode(&[504, 3575, 282, 4649, 314, 7042, 30, 2], true).unwrap(),
        "The capital of France is Paris."
    );
    assert_eq!(tokenizer.find_token(2).as_deref(), Some("<|im_end|>"));
    assert_eq!(checkpoint.config.eos, [2]);
    let question = [crate::ChatMessage::new("user", "What is the capital of France?")];
    let ids = tokenizer.encode_chat(&question, true).unwrap();
    assert_eq!((ids[0], ids.iter().filter(|id| **id == 1).count()), (1, 3)); // <|im_start|>: system, user, assistant
}
