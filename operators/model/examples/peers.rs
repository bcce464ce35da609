//! What `tests/peers` asks of this crate: files for other tools to load, and our figures to hold against theirs.
//!
//! `folder MODEL OUT`, `gguf MODEL TYPE OUT`, `logits MODEL IDS.json OUT`, `nll MODEL IDS.json`, `train MODEL ROWS.json OUT`.
//! MODEL is a folder or a GGUF file; IDS.json a list of token lists; ROWS.json a list of batches of `{ids, mask}`.

use std::{error::Error, io::BufRead as _, path::Path, time::Instant};

use llmflow_model::{
    Checkpoint,
    quantization::{BlockType, write_gguf},
    sampling::{ScoreRequest, score},
    training::{AdamWConfig, Example, Policy, Schedule, Shape, Trainer, TrainerConfig},
    transformer::{
        Decoder,
        lora::{Lora, MODULES},
    },
};
use serde::Deserialize;

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["folder", model, out] => Ok(Checkpoint::open(Path::new(model))?.save_folder(Path::new(out))?),
        ["gguf", model, block_type, out] => gguf(model, block_type, out),
        ["logits", model, ids, out] => logits(model, ids, out),
        ["nll", model, ids] => nll(model, ids),
        ["train", model, rows, out] => train(model, rows, out),
        _ => Err("say folder, gguf, logits, nll or train, and their files".into()),
    }
}

fn open(model: &str) -> Result<Decoder, Box<dyn Error>> {
    let checkpoint = Checkpoint::open(Path::new(model))?;
    Ok(Decoder::new(&checkpoint.config, &checkpoint.weights)?)
}

fn gguf(model: &str, block_type: &str, out: &str) -> Done {
    let known = [BlockType::F32, BlockType::F16, BlockType::Q8_0, BlockType::Q4_0];
    let block_type = known.into_iter().find(|known| known.to_string() == block_type).ok_or("no such block type")?;
    write_gguf(Path::new(out), &Checkpoint::open(Path::new(model))?, block_type, &mut |_, _| true)?;
    Ok(())
}

/// Writes f32 little-endian `[tokens of all texts, vocab]`.
fn logits(model: &str, ids: &str, out: &str) -> Done {
    let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let decoder = open(model)?;
    let mut bytes = Vec::new();
    for text in &texts {
        bytes.extend(decoder.logits(text)?.iter().flat_map(|logit| logit.to_le_bytes()));
    }
    Ok(std::fs::write(out, bytes)?)
}

/// Prints the mean of -ln p over every token but the first of each text.
fn nll(model: &str, ids: &str) -> Done {
    let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let requests: Vec<_> = texts.into_iter().map(|tokens| ScoreRequest { tokens, from: 1 }).collect();
    let scores = score(&open(model)?, &requests, 1, &mut |_| true)?;
    let logprobs: Vec<f64> = scores.iter().flat_map(|score| &score.logprobs).map(|ln_p| f64::from(*ln_p)).collect();
    println!("{:.6}", -logprobs.iter().sum::<f64>() / logprobs.len() as f64);
    Ok(())
}

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    mask: Vec<bool>,
}

/// Takes a step on each batch whenever a line comes in, and prints the seconds and losses; at the end of input writes
/// `OUT/adapter` and `OUT/merged`.
fn train(model: &str, rows: &str, out: &str) -> Done {
    let batches: Vec<Vec<Row>> = serde_json::from_slice(&std::fs::read(rows)?)?;
    let example = |row: Row| Example { ids: row.ids, loss_mask: row.mask };
    let batches: Vec<Vec<Example>> = batches.into_iter().map(|rows| rows.into_iter().map(example).collect()).collect();
    let mut checkpoint = Checkpoint::open(Path::new(model))?;
    let decoder = Decoder::new(&checkpoint.config, &checkpoint.weights)?;
    let lora = Lora::zeros(checkpoint.config.layers, decoder.module_shapes(), &MODULES, 16, 32.0);
    let mut state = 1_u32;
    let policy = Policy::adapted(decoder, lora, &mut || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    });
    let schedule = Schedule { shape: Shape::Constant, peak: 2e-4, warmup_steps: 0, total_steps: 1 };
    let mut trainer =
        Trainer::new(policy, TrainerConfig { schedule, optimizer: AdamWConfig::default(), max_grad_norm: 1.0 });
    for line in std::io::stdin().lock().lines() {
        line?;
        let (start, mut losses) = (Instant::now(), Vec::new());
        for batch in &batches {
            losses.push(trainer.step(&batch.iter().collect::<Vec<_>>(), &mut |_| true)?.loss);
        }
        println!("{}", serde_json::json!({ "seconds": start.elapsed().as_secs_f64(), "losses": losses }));
    }
    let adapter = trainer.policy().adapter(model)?.ok_or("small matrices learned")?;
    adapter.save_folder(&Path::new(out).join("adapter"))?;
    adapter.merge_into(&mut checkpoint.weights)?;
    Ok(checkpoint.save_folder(&Path::new(out).join("merged"))?)
}
