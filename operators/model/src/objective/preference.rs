//! Direct preference optimization and its kin: a loss of four log-probabilities.
//!
//! With Δ = (lp_c − ref_c) − (lp_r − ref_r), sums over an answer's tokens.

/// How a pair is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreferenceLoss {
    /// −ln σ(β·Δ). Source: Rafailov et al. 2023, eq. 7.
    #[default]
    Sigmoid,
    /// max(0, 1 − β·Δ). Source: Zhao et al. 2023.
    Hinge,
    /// (Δ_c/n_c − Δ_r/n_r − 1/(2β))², length-normalised as TRL does. Source: Azar et al. 2023, eq. 17.
    Ipo,
}

/// The objective over pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preference {
    pub loss: PreferenceLoss,
    /// How dear it is to leave the reference.
    pub beta: f64,
    /// Weight of the chosen answer's mean negative ln p; 0 leaves it out.
    pub rpo_alpha: f64,
}

/// One answer of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Σ ln p of its tokens.
    pub logprob: f64,
    /// The same under the reference.
    pub reference: f64,
    /// At least one.
    pub tokens: usize,
}

/// Loss of one pair and its gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub loss: f64,
    /// g of every token of the chosen answer.
    pub chosen: f64,
    /// g of every token of the rejected answer.
    pub rejected: f64,
    /// β·(ln p − ln p of the reference) of the chosen answer.
    pub chosen_reward: f64,
    pub rejected_reward: f64,
}

impl Preference {
    /// Judges one pair.
    pub fn judge(&self, chosen: Answer, rejected: Answer) -> Judged {
        let beta = self.beta;
        let gain = |answer: Answer| answer.logprob - answer.reference;
        let (n_chosen, n_rejected) = (chosen.tokens as f64, rejected.tokens as f64);
        let margin = beta * (gain(chosen) - gain(rejected));
        let (loss, pull_chosen, pull_rejected) = match self.loss {
            PreferenceLoss::Sigmoid => {
                let pull = beta / (1.0 + margin.exp()); // β·σ(−βΔ)
                ((-margin).max(0.0) + (-margin.abs()).exp().ln_1p(), pull, pull)
            }
            PreferenceLoss::Hinge => {
                let pull = if margin < 1.0 { beta } else { 0.0 };
                ((1.0 - margin).max(0.0), pull, pull)
            }
            PreferenceLoss::Ipo => {
                let miss = gain(chosen) / n_chosen - gain(rejected) / n_rejected - 1.0 / (2.0 * beta);
                (miss * miss, -2.0 * miss / n_chosen, -2.0 * miss / n_rejected)
            }
        };
        Judged {
            loss: loss - self.rpo_alpha * chosen.logprob / n_chosen,
            chosen: -pull_chosen - self.rpo_alpha / n_chosen,
            rejected: pull_rejected,
            chosen_reward: beta * gain(chosen),
            rejected_reward: beta * gain(rejected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [PreferenceLoss; 3] = [PreferenceLoss::Sigmoid, PreferenceLoss::Hinge, PreferenceLoss::Ipo];

    fn answer(logprob: f64, reference: f64) -> Answer {
        Answer { logprob, reference, tokens: 7 }
    }

    /// Values at the start: TRL's at β = 0.1.
    #[test]
    fn every_loss_starts_at_its_value_where_policy_and_reference_agree() {
        for (loss, expected) in ALL.into_iter().zip([2_f64.ln(), 1.0, 25.0]) {
            let objective = Preference { loss, beta: 0.1, rpo_alpha: 0.0 };
            let judged = objective.judge(answer(-12.0, -12.0), answer(-99.0, -99.0));
            assert!((judged.loss - expected).abs() < 1e-9, "{loss:?}");
        }
        let objective = Preference { loss: PreferenceLoss::Sigmoid, beta: 0.1, rpo_alpha: 0.0 };
        let judged = objective.judge(answer(-12.0, -12.0), answer(-99.0, -99.0));
        assert_eq!((judged.chosen, judged.rejected), (-0.05, 0.05));
    }

    #[test]
    fn every_coefficient_is_the_derivative_of_its_loss() {
        for loss in ALL {
            let objective = Preference { loss, beta: 0.1, rpo_alpha: 0.5 };
            let at = |chosen: f64, rejected: f64| objective.judge(answer(chosen, -14.0), answer(rejected, -25.0));
            let step = 1e-5;
            let slope = |up: f64, down: f64| (up - down) / (2.0 * step);
            let chosen = slope(at(-12.0 + step, -26.0).loss, at(-12.0 - step, -26.0).loss);
            let rejected = slope(at(-12.0, -26.0 + step).loss, at(-12.0, -26.0 - step).loss);
            let judged = at(-12.0, -26.0);
            assert!((chosen - judged.chosen).abs() < 1e-6, "{loss:?}: {chosen} {}", judged.chosen);
            assert!((rejected - judged.rejected).abs() < 1e-6, "{loss:?}: {rejected} {}", judged.rejected);
        }
        let objective = Preference { loss: PreferenceLoss::Sigmoid, beta: 1.0, rpo_alpha: 0.0 };
        assert!(objective.judge(answer(0.0, 5000.0), answer(0.0, 0.0)).loss.is_finite());
    }
}
