//! Speed on SmolLM2-135M, printed. Run with `--ignored --nocapture bench_` and `LLMFLOW_SMOLLM2_GGUF` set.
//!
//! Other work may share the machine, so each figure stands beside the processor time it took and beside a plain matrix
//! product of the same process: `share` is the part of that product's rate which the model's own products reach.

use std::time::Instant;

use super::{
    Decoder, Packed, Tape, Target,
    linear::{SET, View, forward},
    lora::{Lora, MODULES},
};
use crate::{
    Checkpoint,
    sampling::{Control, GenerateConfig, ScoreRequest, generate, score},
    tests_support::smollm2,
};

/// Seconds of processor time this process took so far, all threads together.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0 // the kernel's tick: a hundredth of a second
}

struct Took {
    seconds: f64,
    processor: f64,
}

fn timed(mut work: impl FnMut()) -> Took {
    work(); // touch memory, wake threads
    let (start, before) = (Instant::now(), processor_seconds());
    let mut rounds = 0.0;
    while rounds == 0.0 || start.elapsed().as_secs_f64() < 1.0 {
        work();
        rounds += 1.0;
    }
    Took { seconds: start.elapsed().as_secs_f64() / rounds, processor: (processor_seconds() - before) / rounds }
}

/// A plain product of the widest layer's shape, by the `gemm` crate: FLOP per second of processor time.
fn floor() -> f64 {
    let (rows, outputs, inputs) = (1024, 3072, 576);
    let (x, w, mut y) = (vec![0.5; rows * inputs], vec![0.25; outputs * inputs], vec![0.0; rows * outputs]);
    let flop = 20.0 * (rows * outputs * inputs) as f64;
    let show = |name: &str, took: &Took| {
        let (clock, processor) = (flop / took.seconds / 1e9, flop / took.processor / 1e9);
        println!("product by {name}: {clock:.0} GFLOP/s on the clock, {processor:.0} per processor second");
    };
    let (width, depth) = (outputs as isize, inputs as isize);
    let theirs = timed(|| {
        for _ in 0..10 {
            // SAFETY: the three matrices have the sizes and strides named here and do not overlap.
            unsafe {
                let (to, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
                let threads = gemm::Parallelism::Rayon(0);
                gemm::gemm(
                    rows, outputs, inputs, to, 1, width, false, x, 1, depth, w, depth, 1, 0.0, 1.0, false, false,
                    false, threads,
                );
            }
        }
    });
    show("gemm", &theirs);
    let ours = timed(|| {
        (0..10)
            .for_each(|_| forward(&mut y, outputs, View::new(&x, rows, inputs), View::new(&w, outputs, inputs), SET));
    });
    show("ours", &ours);
    flop / theirs.processor
}

fn show(what: &str, tokens: usize, flop_per_token: f64, took: &Took, floor: f64) {
    let tokens = tokens as f64;
    println!(
        "{what}: {:.0} tokens/s on the clock, {:.0} per processor second, share {:.2}",
        tokens / took.seconds,
        tokens / took.processor,
        tokens * flop_per_token / took.processor / floor
    );
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % 40_000
        })
        .collect()
}

fn decoder() -> Option<Decoder> {
    let checkpoint = Checkpoint::open(&smollm2()?).unwrap();
    Some(Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap())
}

/// FLOP of the linear layers of all blocks, and of the head, a token.
fn flop(decoder: &Decoder) -> (f64, f64) {
    let blocks: usize = decoder.module_shapes().iter().map(|[outputs, inputs]| outputs * inputs).sum();
    let head = decoder.config.vocab * decoder.config.hidden;
    (2.0 * (blocks * decoder.config.layers) as f64, 2.0 * head as f64)
}

#[test]
#[ignore = "prints figures; takes minutes"]
fn bench_reading() {
    let Some(decoder) = decoder() else { return };
    let (blocks, head) = flop(&decoder);
    let floor = floor();
    for (sequences, length) in [(1, 1024), (8, 128)] {
        let texts: Vec<Vec<u32>> = (0..sequences).map(|i| tokens(length, i as u32)).collect();
        let packed = Packed::separate(&texts);
        let took = timed(|| drop(decoder.forward(&packed, None, None).unwrap()));
        show(&format!("forward {sequences} × {length}"), packed.rows(), blocks, &took, floor);
        let requests: Vec<_> = texts.iter().map(|tokens| ScoreRequest { tokens: tokens.clone(), from: 1 }).collect();
        let took = timed(|| drop(score(&decoder, &requests, 8, &mut |_| true).unwrap()));
        show(&format!("score {sequences} × {length}"), packed.rows(), blocks + head, &took, floor);
    }
}

#[test]
#[ignore = "prints figures; takes minutes"]
fn bench_writing() {
    let Some(decoder) = decoder() else { return };
    let (blocks, head) = flop(&decoder);
    let floor = floor();
    for batch_size in [1, 8, 32] {
        let prompts: Vec<Vec<u32>> = (0..batch_size).map(|i| tokens(16, i as u32)).collect();
        let config = GenerateConfig { max_new_tokens: 16, batch_size, ..GenerateConfig::default() };
        let took = timed(|| drop(generate(&decoder, &prompts, &config, &mut |_| Control::Continue).unwrap()));
        show(&format!("generate, batch {batch_size}"), batch_size * 16, blocks + head, &took, floor);
    }
}

#[test]
#[ignore = "prints figures; takes minutes"]
fn bench_learning() {
    let Some(decoder) = decoder() else { return };
    let (blocks, head) = flop(&decoder);
    let floor = floor();
    let lora = Lora::zeros(decoder.config.layers, decoder.module_shapes(), &MODULES, 16, 32.0);
    let mut grads = vec![0.0; lora.parameters.values.len()];
    for (sequences, length, supervised) in [(8, 128, 1), (4, 512, 1), (8, 256, 4)] {
        let texts: Vec<Vec<u32>> = (0..sequences).map(|i| tokens(length, i as u32)).collect();
        let packed = Packed::separate(&texts);
        let targets: Vec<Target> = (0..sequences)
            .flat_map(|sequence| (length - length / supervised + 1..length).map(move |position| (sequence, position)))
            .map(|(sequence, position)| Target {
                row: packed.row(sequence, position - 1),
                token: texts[sequence][position],
            })
            .collect();
        let factors = vec![-1e-3; targets.len()];
        let took = timed(|| {
            let mut tape = Tape::default();
            let x = decoder.forward(&packed, Some(&lora), Some(&mut tape)).unwrap();
            let (mut dx, _) = decoder.judge_backward(&x, &targets, &factors, None);
            decoder.backward(&packed, Some(&lora), tape, &mut dx, &mut grads);
        });
        let share = targets.len() as f64 / packed.rows() as f64;
        let name = format!("learn {sequences} × {length}, {:.0} % supervised", share * 100.0);
        show(&name, packed.rows(), 2.0 * (blocks + share * head), &took, floor);
    }
}

#[test]
#[ignore = "prints figures; takes minutes"]
fn bench_product() {
    floor();
}
