//! What packing promises, checked by hand and by law.

use super::*;
use crate::tests_support::{small_checkpoint, smollm2};
use crate::weights::gguf::GgufFile;
use half::f16;

#[test]
fn q8_0_rounds_halves_away_from_zero_and_keeps_the_largest() {
    let mut block = [0f32; 32];
    block[0] = 127.0;
    (block[1], block[2], block[3]) = (0.5, -0.5, -127.0);
    let bytes = BlockType::Q8_0.pack(&block).unwrap();
    assert_eq!(bytes.len(), 34);
    assert_eq!(bytes[..2], f16::from_f32(1.0).to_le_bytes());
    assert_eq!(bytes[2..6].iter().map(|byte| *byte as i8).collect::<Vec<_>>(), [127, 1, -1, -127]);
}

#[test]
fn q4_0_takes_the_signed_value_of_the_first_largest() {
    let mut block = [0f32; 32];
    (block[3], block[20]) = (8.0, -8.0);
    let bytes = BlockType::Q4_0.pack(&block).unwrap();
    assert_eq!(bytes[..2], f16::from_f32(-1.0).to_le_bytes());
    assert_eq!(bytes[2 + 3] & 15, 0); // 8 / -1 + 8.5 = 0.5
    assert_eq!(bytes[2 + 4] >> 4, 15); // -8 / -1 + 8.5 = 16.5, clamped
    assert_eq!(bytes[2], 0x88); // zero is 8 of 0 to 15
}

#[test]
fn packing_what_was_unpacked_gives_the_same_blocks_back() {
    let numbers: Vec<f32> = (0..4096).map(|index| ((index * 37 % 101) as f32 - 50.0) / 7.0).collect();
    for block_type in [BlockType::F32, BlockType::F16, BlockType::BF16, BlockType::Q8_0, BlockType::Q4_0] {
        let once = block_type.pack(&numbers).unwrap();
        let again = block_type.pack(&block_type.unpack_numbers(&once).unwrap()).unwrap();
        let (a, b) = (block_type.unpack_numbers(&once).unwrap(), block_type.unpack_numbers(&again).unwrap());
        // The f16 scale moves by at most half a unit in its last place when it is taken again.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= a.abs() / 1000.0), "{block_type}");
    }
    assert!(BlockType::Q4_0.pack(&numbers[..33]).is_err());
    assert!(BlockType::Q6K.pack(&numbers).is_err());
}

/// Rows like weights, zeros, exact halves, tiny scales and outliers, packed by llama.cpp itself: `tests/peers/blocks.py`.
#[test]
fn packed_blocks_are_llama_cpps_byte_for_byte() {
    const NUMBERS: &[u8] = include_bytes!("../../../../tests/fixtures/blocks/numbers.f32");
    let numbers: Vec<f32> =
        NUMBERS.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(numbers.len(), 8 * 256);
    let expected: [(BlockType, &[u8]); 3] = [
        (BlockType::F16, include_bytes!("../../../../tests/fixtures/blocks/F16.blocks")),
        (BlockType::Q8_0, include_bytes!("../../../../tests/fixtures/blocks/Q8_0.blocks")),
        (BlockType::Q4_0, include_bytes!("../../../../tests/fixtures/blocks/Q4_0.blocks")),
    ];
    for (block_type, blocks) in expected {
        let packed = block_type.pack(&numbers).unwrap();
        let size = block_type.block_bytes();
        let wrong: Vec<usize> =
            (0..blocks.len() / size).filter(|at| packed[at * size..][..size] != blocks[at * size..][..size]).collect();
        assert_eq!((packed.len(), wrong), (blocks.len(), vec![]), "{block_type}");
    }
}

#[test]
fn our_unpacking_agrees_with_candles() {
    use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
    let numbers: Vec<f32> = (0..2048).map(|index| ((index * 71 % 257) as f32 - 128.0) / 31.0).collect();
    for (ours, theirs) in
        [(BlockType::Q8_0, GgmlDType::Q8_0), (BlockType::Q4_0, GgmlDType::Q4_0), (BlockType::Q4_1, GgmlDType::Q4_1)]
    {
        let device = candle_core::Device::Cpu;
        let bytes = ours.pack(&numbers).unwrap();
        let tensor = qtensor_from_ggml(theirs, &bytes, vec![8, 256], &device).unwrap().dequantize(&device).unwrap();
        let expected: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(ours.unpack_numbers(&bytes).unwrap(), expected, "{ours}");
    }
}

#[test]
fn a_tied_embedding_stays_at_q8_0_and_norms_at_f32() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let made = write_gguf(&path, &small_checkpoint(), BlockType::Q4_0, &mut |_, _| true).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let type_of = |name: &str| file.tensors().iter().find(|info| info.name == name).unwrap().block_type;
    assert_eq!(type_of("token_embd.weight"), BlockType::Q8_0);
    assert_eq!(type_of("blk.0.attn_norm.weight"), BlockType::F32);
    assert_eq!(type_of("blk.1.ffn_down.weight"), BlockType::Q4_0);
    assert_eq!(made.size_bytes, std::fs::metadata(&path).unwrap().len());
    assert!(made.tensors.iter().all(|tensor| tensor.relative_error < 0.12));
}

#[test]
fn smollm2_keeps_its_q8_0_embedding_byte_for_byte() {
    let Some(path) = smollm2() else { return };
    let source = GgufFile::open(&path).unwrap();
    let embedding = &source.tensors()[0];
    let numbers = embedding.block_type.unpack_numbers(source.bytes(embedding)).unwrap();
    let packed = BlockType::Q8_0.pack(&numbers).unwrap();
    let same = packed.chunks(34).zip(source.bytes(embedding).chunks(34)).filter(|(a, b)| a == b).count();
    let share = same as f64 / (packed.len() / 34) as f64;
    assert!(share > 0.99, "{share}"); // a scale rounded to f16 once may round otherwise the second time
}

/// Writes a real model at each type into the folder that `LLMFLOW_KEEP_GGUF` names, for comparison with other tools.
#[test]
fn a_real_model_shrinks_and_opens_again() {
    let Some(path) = smollm2() else { return };
    let checkpoint = crate::Checkpoint::open(&path).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("LLMFLOW_KEEP_GGUF").map_or_else(|| temporary.path().to_owned(), Into::into);
    for (block_type, most) in [(BlockType::F16, 3e-4), (BlockType::Q8_0, 0.01), (BlockType::Q4_0, 0.12)] {
        let path = folder.join(format!("{block_type}.gguf"));
        let made = write_gguf(&path, &checkpoint, block_type, &mut |_, _| true).unwrap();
        let worst = made.tensors.iter().map(|tensor| tensor.relative_error).fold(0.0, f64::max);
        eprintln!("{block_type}: {} bytes, worst tensor {worst:.5}", made.size_bytes);
        assert!(worst < most, "{block_type}: {worst}");
        assert_eq!(GgufFile::open(&path).unwrap().tensors().len(), 272);
    }
}
