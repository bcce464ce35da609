use super::*;
use crate::{
    objective::{Preference, PreferenceLoss},
    tests_support::{small_checkpoint, smollm2, uniform},
    transformer::{
        Decoder,
        lora::{Lora, MODULES},
    },
};

fn config(peak: f64) -> TrainerConfig {
    let schedule = Schedule { shape: Shape::Constant, peak, warmup_steps: 0, total_steps: 40 };
    TrainerConfig { schedule, optimizer: AdamWConfig::default(), max_grad_norm: 1.0 }
}

fn decoder() -> Decoder {
    init(&small_checkpoint().config, &mut uniform(3)).unwrap()
}

/// Embeddings large enough that what small matrices change reaches the logits.
fn given() -> Decoder {
    let mut decoder = decoder();
    let embeddings = decoder.parameters().find("model.embed_tokens.weight").unwrap().range();
    decoder.parameters_mut().values[embeddings].iter_mut().for_each(|value| *value *= 10.0);
    decoder
}

fn adapted(peak: f64) -> Trainer {
    let decoder = given();
    let lora = Lora::zeros(decoder.config.layers, decoder.module_shapes(), &MODULES, 4, 8.0);
    Trainer::new(Policy::adapted(decoder, lora, &mut uniform(7)), config(peak))
}

fn example(ids: &[u32], from: usize) -> Example {
    Example { ids: ids.to_vec(), loss_mask: (0..ids.len()).map(|position| position >= from).collect() }
}

fn rows() -> Vec<Example> {
    vec![
        example(&[1, 2, 3, 4, 5, 6], 3),
        example(&[1, 2, 9, 9, 7], 2),
        example(&[1, 8, 20, 21, 22], 2),
        example(&[1, 30, 31, 32], 1),
    ]
}

/// Long enough to be cut into several passes.
fn long(count: usize) -> Vec<Example> {
    (0..count as u32).map(|index| example(&(0..100).map(|i| (i * (index + 3)) % 50).collect::<Vec<_>>(), 1)).collect()
}

fn step(trainer: &mut Trainer, rows: &[Example]) -> Stepped {
    trainer.step(&rows.iter().collect::<Vec<_>>(), &mut |_| true).unwrap()
}

#[test]
fn small_matrices_learn_four_rows_by_heart() {
    let (mut trainer, rows) = (adapted(2e-2), rows());
    let before = trainer.evaluate(&rows, &mut |_| true).unwrap();
    (0..100).for_each(|_| assert!(step(&mut trainer, &rows).is_finite()));
    let after = trainer.evaluate(&rows, &mut |_| true).unwrap();
    assert!(before > 4.0 && after < 0.2, "{before} {after}");
    assert_eq!(trainer.policy().decoder().parameters().values, given().parameters().values);
    assert_eq!(trainer.policy().adapter("base").unwrap().unwrap().modules.len(), 14);
}

#[test]
fn a_whole_decoder_learns_a_repeated_text() {
    let mut trainer = Trainer::new(Policy::whole(decoder()), config(1e-2));
    let text = [example(&[5, 6, 7, 8, 9, 10, 5, 6, 7, 8, 9, 10, 5, 6, 7, 8], 1)];
    let before = step(&mut trainer, &text).loss;
    (0..30).for_each(|_| assert!(step(&mut trainer, &text).is_finite()));
    let after = trainer.evaluate(&text, &mut |_| true).unwrap();
    assert!((before - 5.6).abs() < 0.2 && after < 0.5, "{before} {after}");
    assert!(trainer.policy().adapter("base").unwrap().is_none());
}

/// The gradient of a batch that takes several passes, against central differences of its loss.
#[test]
fn gradients_of_a_whole_decoder_agree_with_central_differences() {
    let rows = long(6);
    // One plain step against a known direction: the loss falls by rate · Σ |g| to first order.
    let loss_of = |policy: &Policy| Trainer::new(policy.clone(), config(0.0)).evaluate(&rows, &mut |_| true).unwrap();
    let policy = Policy::whole(decoder());
    let mut trainer = Trainer::new(policy.clone(), config(0.0));
    step(&mut trainer, &rows);
    let grads = trainer.gradients().to_vec();
    for name in ["model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"] {
        let span = policy.parameters().find(name).unwrap().clone();
        let index = span.range().max_by(|a, b| grads[*a].abs().total_cmp(&grads[*b].abs())).unwrap();
        let moved = |by: f32| {
            let mut policy = policy.clone();
            policy.parameters_mut().values[index] += by;
            loss_of(&policy)
        };
        let (width, ours) = (2e-3, f64::from(grads[index]));
        let slope = (moved(width) - moved(-width)) / (2.0 * f64::from(width));
        assert!((slope - ours).abs() < 2e-2 * ours.abs() + 1e-4, "{name}: {slope} {ours}");
    }
}

#[test]
fn resuming_equals_never_stopping_for_small_matrices_and_for_a_whole_decoder() {
    for mut trainer in [adapted(1e-2), Trainer::new(Policy::whole(decoder()), config(1e-3))] {
        let rows = rows();
        let mut resumed = trainer.clone();
        (0..3).for_each(|_| assert!(step(&mut trainer, &rows).loss > 0.0));
        let folder = tempfile::tempdir().unwrap();
        trainer.save(folder.path()).unwrap();
        resumed.restore(folder.path()).unwrap();
        assert_eq!(resumed.steps(), 3);
        for _ in 0..3 {
            assert_eq!(step(&mut trainer, &rows), step(&mut resumed, &rows));
        }
        assert_eq!(trainer.policy().parameters().values, resumed.policy().parameters().values);
    }
}

#[test]
fn the_state_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    adapted(1e-2).save(folder.path()).unwrap();
    let mut other = Trainer::new(Policy::whole(decoder()), config(1e-3));
    assert!(matches!(other.restore(folder.path()), Err(crate::ModelError::Shape { .. })));
}

fn pairs() -> Vec<Contrast> {
    let pair =
        |chosen: &[u32], rejected: &[u32]| Contrast { chosen: example(chosen, 3), rejected: example(rejected, 3) };
    vec![
        pair(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 9, 9]),
        pair(&[1, 8, 20, 21, 22], &[1, 8, 20, 40, 41, 42, 43]),
        pair(&[1, 30, 31, 32], &[1, 30, 31, 33, 34]),
    ]
}

#[test]
fn preference_starts_at_ln_2_and_pulls_the_answers_apart() {
    let (mut trainer, pairs) = (adapted(5e-3), pairs());
    let references = trainer.references(&pairs, &mut |_| true).unwrap();
    let batch: Vec<&Contrast> = pairs.iter().collect();
    let objective = Preference { loss: PreferenceLoss::Sigmoid, beta: 0.1, rpo_alpha: 0.0 };
    let mut step = |objective: &Preference| trainer.step_pairs(&batch, &references, objective, &mut |_| true).unwrap();
    let first = step(&objective);
    assert!((first.stepped.loss - 2_f64.ln()).abs() < 1e-6, "{first:?}");
    assert_eq!(first.figures.accuracy, 0.0);
    let last = (0..30).map(|_| step(&objective)).last().unwrap();
    assert!(last.figures.chosen_reward > last.figures.rejected_reward + 0.2, "{last:?}");
    assert_eq!(last.figures.accuracy, 1.0);
    let anchored = step(&Preference { rpo_alpha: 1.0, ..objective });
    assert!((anchored.stepped.loss - anchored.figures.chosen_nll) < last.stepped.loss + 1e-3);
}

#[test]
fn a_step_that_is_stopped_learns_nothing_and_says_so() {
    let mut trainer = Trainer::new(Policy::whole(decoder()), config(1e-2));
    let rows = long(12);
    let before = trainer.policy().parameters().values.clone();
    let mut passes = 0;
    let batch: Vec<&Example> = rows.iter().collect();
    let stopped = trainer.step(&batch, &mut |_| {
        passes += 1;
        passes < 2
    });
    assert!(matches!(stopped, Err(crate::ModelError::Cancelled)));
    assert_eq!((trainer.steps(), &trainer.policy().parameters().values), (0, &before));
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut trainer = Trainer::new(Policy::whole(decoder()), config(1e-2));
    trainer.policy.parameters_mut().values[0] = f32::NAN;
    let stepped = step(&mut trainer, &[example(&[0, 1, 2], 1)]);
    assert!(!stepped.is_finite());
    assert_eq!(trainer.steps(), 0);
}

/// Fifteen steps on a real model: as slow as it is. `LLMFLOW_SMOLLM2_GGUF` names the file.
#[test]
#[ignore = "takes a minute on two cores"]
fn smollm2_learns_four_answers_through_small_matrices_and_the_adapter_merges() {
    let Some(path) = smollm2() else { return };
    let mut checkpoint = crate::Checkpoint::open(&path).unwrap();
    let decoder = Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap();
    let rows: Vec<Example> = ["What is a stage?", "What is a port?", "What is a gate?", "What is a key?"]
        .iter()
        .zip([
            "One node of a pipeline.",
            "A named input or output.",
            "A condition on metrics.",
            "What makes work the same.",
        ])
        .map(|(question, answer)| {
            let turns = [("system", ""), ("user", question), ("assistant", answer)];
            let turns = turns.map(|(role, content)| crate::ChatMessage::new(role, content));
            let encoded = checkpoint.tokenizer.encode_for_training(&turns).unwrap();
            Example { ids: encoded.ids, loss_mask: encoded.loss_mask }
        })
        .collect();
    let lora = Lora::zeros(checkpoint.config.layers, decoder.module_shapes(), &MODULES, 16, 32.0);
    let mut trainer = Trainer::new(Policy::adapted(decoder, lora, &mut uniform(1)), config(2e-3));
    let before = trainer.evaluate(&rows, &mut |_| true).unwrap();
    let first = step(&mut trainer, &rows);
    assert!((first.loss - before).abs() < 1e-4, "{} {before}", first.loss);
    (0..14).for_each(|_| assert!(step(&mut trainer, &rows).is_finite()));
    let after = trainer.evaluate(&rows, &mut |_| true).unwrap();
    assert!(before > 2.0 && after < 0.3, "{before} {after}");
    // Added into the weights, the adapter predicts the same.
    trainer.policy().adapter("base").unwrap().unwrap().merge_into(&mut checkpoint.weights).unwrap();
    let merged = Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap();
    let merged = Trainer::new(Policy::whole(merged), config(0.0)).evaluate(&rows, &mut |_| true).unwrap();
    assert!((merged - after).abs() < 1e-3, "{merged} {after}");
}
