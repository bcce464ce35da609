//! Generation and scoring against each other and against published figures.

use super::{Control, GenerateConfig, ScoreRequest, generate, score};
use crate::{
    Checkpoint,
    tests_support::{shared_data, small_checkpoint, smollm2},
    transformer::Decoder,
};

fn small() -> Decoder {
    let checkpoint = small_checkpoint();
    Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap()
}

#[test]
fn a_completion_does_not_depend_on_its_companions() {
    let decoder = small();
    let prompts = vec![vec![1], vec![5, 6, 7], vec![9; 12], vec![2, 3]];
    for temperature in [0.0, 1.0] {
        let config = GenerateConfig { max_new_tokens: 9, temperature, seed: 3, ..GenerateConfig::default() };
        let run = |batch_size| {
            let config = GenerateConfig { batch_size, ..config.clone() };
            generate(&decoder, &prompts, &config, &mut |_| Control::Continue).unwrap()
        };
        assert_eq!(run(1), run(4));
        assert_eq!(run(4), run(3));
    }
}

#[test]
fn scores_of_generated_tokens_are_the_probabilities_they_were_drawn_with() {
    let decoder = small();
    let prompt = vec![4, 8, 15];
    let config = GenerateConfig { max_new_tokens: 8, ..GenerateConfig::default() };
    let made = &generate(&decoder, std::slice::from_ref(&prompt), &config, &mut |_| Control::Continue).unwrap()[0];
    let tokens = [prompt.clone(), made.tokens.clone()].concat();
    let scored = &score(&decoder, &[ScoreRequest { tokens, from: prompt.len() }], 4, &mut |_| true).unwrap()[0];
    assert!(scored.greedy.iter().all(|greedy| *greedy));
    assert!(scored.logprobs.iter().zip(&made.logprobs).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn smollm2_reaches_its_reference_figures() {
    let Some(path) = smollm2() else { return };
    let Some(text) = shared_data("perplexity/wikitext-2-valid.txt.gz") else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let decoder = Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap();
    let config = GenerateConfig { max_new_tokens: 20, ..GenerateConfig::default() };
    let made = generate(&decoder, &[vec![22007, 6463, 314]], &config, &mut |_| Control::Continue).unwrap();
    let greedy =
        [253, 4959, 1909, 281, 6944, 338, 6601, 260, 26589, 282, 42548, 2952, 411, 260, 4313, 282, 2631, 284, 1439, 30];
    assert_eq!(made[0].tokens, greedy);
    let unpacked = std::process::Command::new("gzip").arg("-dc").arg(text).output().unwrap().stdout;
    let text: String = String::from_utf8(unpacked).unwrap().chars().take(60_000).collect();
    let ids = checkpoint.tokenizer.encode(&text, false).unwrap();
    let request = ScoreRequest { tokens: ids[..1024].to_vec(), from: 1 };
    let score = score(&decoder, &[request], 1, &mut |_| true).unwrap().remove(0);
    let mean = -score.logprobs.iter().map(|p| f64::from(*p)).sum::<f64>() / 1023.0;
    assert!((mean - 2.543_633).abs() < 1e-4, "{mean}"); // transformers 5.24 in f32, on the same 1,024 tokens
}
