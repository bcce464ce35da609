//! The next token from a row of logits.

use crate::transformer::vector::{argmax, log_sum_exp};

/// How to choose; temperature 0 takes the likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub temperature: f32,
    pub top_p: f32,
    /// 0: all.
    pub top_k: usize,
}

/// A number in [0, 1) for (seed, row, step): what a row draws does not depend on its batch.
///
/// Source: SplitMix64 (Steele et al. 2014), its output function applied to a counter.
pub(crate) fn uniform(seed: u64, row: u64, step: u64) -> f64 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (mix(mix(mix(seed) ^ row) ^ step) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The token, and its ln p under the model (temperature 1, nothing cut).
pub(crate) fn choose(logits: &[f32], choice: Choice, draw: f64) -> (u32, f32) {
    let norm = log_sum_exp(logits);
    let token = if choice.temperature <= 0.0 { argmax(logits) } else { sample(logits, choice, draw) };
    (token as u32, logits[token] - norm)
}

fn sample(logits: &[f32], choice: Choice, draw: f64) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if choice.top_k > 0 && choice.top_k < order.len() {
        order.select_nth_unstable_by(choice.top_k - 1, by_logit);
        order.truncate(choice.top_k);
    }
    order.sort_unstable_by(by_logit);
    let top = f64::from(logits[order[0]]);
    let weight = |token: usize| ((f64::from(logits[token]) - top) / f64::from(choice.temperature)).exp();
    let weights: Vec<f64> = order.iter().map(|token| weight(*token)).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0.0;
    let mut count = 0;
    while count < weights.len() && (count == 0 || kept < f64::from(choice.top_p) * total) {
        kept += weights[count];
        count += 1;
    }
    let mut left = draw * kept;
    for (token, weight) in order[..count].iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    order[count - 1]
}
