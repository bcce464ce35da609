//! Objectives as pure functions: what each supervised token's log-probability should become, without a tensor.
//!
//! Owns: the loss and the coefficient g = ∂L/∂ln p of each token.
//! Must not know: models, optimizers, rows.

/// Loss of one preference pair and its gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub loss: f64,
    /// g of every token of the chosen answer, from the preference alone.
    pub chosen: f64,
    /// g of every token of the rejected answer.
    pub rejected: f64,
    /// β·(ln p − ln p of the reference) of the chosen answer.
    pub chosen_reward: f64,
    pub rejected_reward: f64,
}

/// Supervised fine-tuning: mean negative log-likelihood over `supervised` tokens, and g of each.
pub fn sft(logprobs: &[f32], supervised: usize) -> (f64, f64) {
    let count = supervised.max(1) as f64;
    (-logprobs.iter().map(|logprob| f64::from(*logprob)).sum::<f64>() / count, -1.0 / count)
}

/// Direct preference optimization, sigmoid form: −ln σ(β·Δ), Δ = (lp_c − ref_c) − (lp_r − ref_r), sums over tokens.
///
/// Source: Rafailov et al. 2023, eq. 7.
pub fn dpo(chosen: f64, rejected: f64, chosen_reference: f64, rejected_reference: f64, beta: f64) -> Pair {
    let (chosen_reward, rejected_reward) = (beta * (chosen - chosen_reference), beta * (rejected - rejected_reference));
    let margin = chosen_reward - rejected_reward;
    let pull = beta / (1.0 + margin.exp()); // β·σ(−βΔ)
    let loss = (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
    Pair { loss, chosen: -pull, rejected: pull, chosen_reward, rejected_reward }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpo_starts_at_ln_2_where_policy_and_reference_agree() {
        let pair = dpo(-12.0, -99.0, -12.0, -99.0, 0.1);
        assert!((pair.loss - 0.693_147_180_56).abs() < 1e-9);
        assert_eq!((pair.chosen, pair.rejected), (-0.05, 0.05));
    }

    #[test]
    fn the_dpo_coefficient_is_the_derivative_of_its_loss() {
        let loss = |chosen: f64| dpo(chosen, -30.0, -14.0, -25.0, 0.1).loss;
        let slope = (loss(-12.0 + 1e-5) - loss(-12.0 - 1e-5)) / 2e-5;
        assert!((slope - dpo(-12.0, -30.0, -14.0, -25.0, 0.1).chosen).abs() < 1e-8);
        assert!(dpo(0.0, 5000.0, 0.0, 0.0, 1.0).loss.is_finite());
    }

    #[test]
    fn sft_averages_over_the_supervised_tokens_of_the_whole_batch() {
        assert_eq!(sft(&[-1.0, -3.0], 4), (1.0, -0.25));
    }
}
