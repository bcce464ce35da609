//! Objectives as pure functions: what each supervised token's log-probability should become, without a tensor.
//!
//! Owns: the loss and the coefficient g = ∂L/∂ln p of each token.
//! Must not know: models, optimizers, rows.

mod preference;

pub use preference::{Answer, Judged, Preference, PreferenceLoss};

/// Supervised fine-tuning: mean negative log-likelihood over `supervised` tokens, and g of each.
pub fn sft(logprobs: &[f32], supervised: usize) -> (f64, f64) {
    let count = supervised.max(1) as f64;
    (-logprobs.iter().map(|logprob| f64::from(*logprob)).sum::<f64>() / count, -1.0 / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sft_averages_over_the_supervised_tokens_of_the_whole_batch() {
        assert_eq!(sft(&[-1.0, -3.0], 4), (1.0, -0.25));
    }
}
