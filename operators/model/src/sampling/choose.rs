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

/// Draws from the likeliest tokens that together hold `top_p` of what `top_k` left, likeliest first.
///
/// Only as many tokens are sorted as the draw needs: sorting a whole vocabulary would cost more than a small model.
fn sample(logits: &[f32], choice: Choice, draw: f64) -> usize {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |token: u32| logits[token as usize];
    let by_logit = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
    if choice.top_k > 0 && choice.top_k < order.len() {
        order.select_nth_unstable_by(choice.top_k - 1, by_logit);
        order.truncate(choice.top_k);
        order.sort_unstable(); // the sum below runs in the order of the vocabulary
    }
    let top = f64::from(order.iter().map(|token| logit(*token)).fold(f32::NEG_INFINITY, f32::max));
    let weight = |token: u32| ((f64::from(logit(token)) - top) / f64::from(choice.temperature)).exp();
    let total: f64 = order.iter().map(|token| weight(*token)).sum();
    let limit = f64::from(choice.top_p) * total;
    let mut sorted = 0;
    let mut upto = Vec::new(); // Σ of the weights up to each sorted token
    let mut sum = 0.0;
    loop {
        let more = order.len().min((4 * sorted).max(64));
        if more < order.len() {
            order[sorted..].select_nth_unstable_by(more - sorted - 1, by_logit);
        }
        order[sorted..more].sort_unstable_by(by_logit);
        for token in &order[sorted..more] {
            sum += weight(*token);
            upto.push(sum);
            let kept = if choice.top_p < 1.0 { sum } else { total };
            let is_whole = choice.top_p >= 1.0 || sum >= limit;
            if is_whole && (choice.top_p < 1.0 || sum > draw * total) {
                let chosen = upto.partition_point(|upto| *upto <= draw * kept);
                return order[chosen.min(upto.len() - 1)] as usize;
            }
        }
        sorted = more;
        if sorted == order.len() {
            let chosen = upto.partition_point(|upto| *upto <= draw * sum);
            return order[chosen.min(sorted - 1)] as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Vec<f32> {
        (0..3000).map(|token| ((token * 7919 % 3000) as f32 / 300.0) - 5.0).collect()
    }

    /// The plain way: sort all, cut, walk.
    fn plain(logits: &[f32], choice: Choice, draw: f64) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        order.truncate(if choice.top_k > 0 { choice.top_k } else { order.len() });
        let weight = |token: &usize| (f64::from(logits[*token] / choice.temperature)).exp();
        let total: f64 = order.iter().map(weight).sum();
        let mut sum = 0.0;
        let is_kept = |token: &&usize| {
            let before = sum;
            sum += weight(token);
            before < f64::from(choice.top_p) * total
        };
        let kept: Vec<usize> = order.iter().take_while(is_kept).copied().collect();
        let mut left = draw * kept.iter().map(weight).sum::<f64>();
        let passes = |token: &&usize| {
            left -= weight(token);
            left < 0.0
        };
        *kept.iter().find(passes).unwrap_or(&kept[kept.len() - 1])
    }

    #[test]
    fn sorting_no_more_than_needed_draws_what_sorting_all_draws() {
        let logits = logits();
        for (temperature, top_p, top_k) in
            [(1.0, 1.0, 0), (0.7, 0.9, 0), (3.0, 0.5, 100), (2.0, 1.0, 7), (9.0, 0.99, 0)]
        {
            let choice = Choice { temperature, top_p, top_k };
            for step in 0..200 {
                let draw = uniform(1, 2, step);
                assert_eq!(sample(&logits, choice, draw), plain(&logits, choice, draw), "{choice:?} {draw}");
            }
        }
    }
}
