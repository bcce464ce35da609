//! Gradients against central differences, and packing against separate passes.

use super::{
    Decoder, Packed, Tape, Target,
    lora::{Lora, MODULES},
};
use crate::tests_support::small_checkpoint;

pub(super) fn decoder() -> Decoder {
    let checkpoint = small_checkpoint();
    let mut decoder = Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap();
    decoder.parameters_mut().values.iter_mut().for_each(|value| *value *= 0.5);
    decoder
}

pub(super) fn lora(decoder: &Decoder) -> Lora {
    let mut lora = Lora::zeros(decoder.config.layers, decoder.module_shapes(), &MODULES, 4, 8.0);
    for (index, value) in lora.parameters.values.iter_mut().enumerate() {
        *value = ((index * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.2;
    }
    lora
}

pub(super) const SEQUENCES: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 3, 9, 8, 7], &[20, 21]];

fn targets(packed: &Packed) -> Vec<Target> {
    let mut targets = Vec::new();
    for (index, tokens) in SEQUENCES.iter().enumerate() {
        for position in 1..tokens.len() {
            targets.push(Target { row: packed.row(index, position - 1), token: tokens[position] });
        }
    }
    targets
}

pub(super) fn loss(decoder: &Decoder, lora: Option<&Lora>, packed: &Packed) -> f64 {
    let x = decoder.forward(packed, lora, None).unwrap();
    let judged = decoder.judge(&x, &targets(packed));
    judged.iter().enumerate().map(|(i, one)| -0.1 * (i + 1) as f64 * f64::from(one.logprob)).sum()
}

pub(super) fn gradient(decoder: &Decoder, lora: Option<&Lora>, packed: &Packed) -> Vec<f32> {
    let mut tape = Tape::default();
    let x = decoder.forward(packed, lora, Some(&mut tape)).unwrap();
    let targets = targets(packed);
    let factors: Vec<f32> = (0..targets.len()).map(|i| -0.1 * (i + 1) as f32).collect();
    let count = lora.map_or(decoder.parameters().values.len(), |lora| lora.parameters.values.len());
    let mut grads = vec![0.0; count];
    let own = lora.is_none().then_some(&mut grads[..]);
    let (mut dx, _) = decoder.judge_backward(&x, &targets, &factors, own);
    decoder.backward(packed, lora, tape, &mut dx, &mut grads);
    grads
}

/// The largest entry of each parameter, moved both ways.
fn agrees(grads: &[f32], spans: &[super::Span], mut loss_at: impl FnMut(usize, f32) -> f64) {
    for span in spans {
        let worst = |a: &usize, b: &usize| grads[*a].abs().total_cmp(&grads[*b].abs());
        let index = span.range().max_by(worst).unwrap();
        let step = 4e-3;
        let slope = (loss_at(index, step) - loss_at(index, -step)) / (2.0 * f64::from(step));
        let ours = f64::from(grads[index]);
        assert!((slope - ours).abs() < 1e-2 * ours.abs() + 2e-3, "{}: {slope} {ours}", span.name);
    }
}

#[test]
fn gradients_of_every_small_matrix_agree_with_central_differences() {
    let (decoder, packed) = (decoder(), Packed::sharing(&SEQUENCES));
    let lora = lora(&decoder);
    let grads = gradient(&decoder, Some(&lora), &packed);
    agrees(&grads, lora.parameters.spans(), |index, step| {
        let mut moved = lora.clone();
        moved.parameters.values[index] += step;
        loss(&decoder, Some(&moved), &packed)
    });
}

#[test]
fn gradients_of_every_parameter_agree_with_central_differences() {
    let (decoder, packed) = (decoder(), Packed::sharing(&SEQUENCES));
    let grads = gradient(&decoder, None, &packed);
    agrees(&grads, decoder.parameters().spans(), |index, step| {
        let mut moved = decoder.clone();
        moved.parameters_mut().values[index] += step;
        loss(&moved, None, &packed)
    });
}

#[test]
fn sharing_a_beginning_changes_neither_loss_nor_gradient() {
    let decoder = decoder();
    let lora = lora(&decoder);
    let (shared, apart) = (Packed::sharing(&SEQUENCES), Packed::separate(&SEQUENCES));
    assert!(shared.rows() < apart.rows());
    assert!((loss(&decoder, Some(&lora), &shared) - loss(&decoder, Some(&lora), &apart)).abs() < 1e-4);
    let (a, b) = (gradient(&decoder, Some(&lora), &shared), gradient(&decoder, Some(&lora), &apart));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn a_zero_adapter_changes_nothing() {
    let (decoder, packed) = (decoder(), Packed::separate(&SEQUENCES));
    let zero = Lora::zeros(decoder.config.layers, decoder.module_shapes(), &MODULES, 4, 8.0);
    assert_eq!(loss(&decoder, Some(&zero), &packed), loss(&decoder, None, &packed));
}
