//! One training run: steps over batches, whatever learns and whatever it learns from.

use super::{
    AdamW, AdamWConfig, Contrast, Example, Policy, Schedule, clip,
    example::{Pass, passes},
};
use crate::{
    ModelError, Result,
    objective::{Answer, Preference, sft},
};

/// Hears how many tokens a pass took; `false` stops, and nothing of the step is learned.
pub type OnPass<'a> = dyn FnMut(usize) -> bool + 'a;

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerConfig {
    pub schedule: Schedule,
    pub optimizer: AdamWConfig,
    /// 0: never clip.
    pub max_grad_norm: f64,
}

/// What a step did. One whose loss or gradient is not finite changed nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Of the batch, before the step: mean negative log-likelihood of supervised tokens, or mean over pairs.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub rate: f64,
}

impl Stepped {
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// What a step over pairs did; means over the batch, before the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SteppedPairs {
    pub stepped: Stepped,
    pub figures: PairFigures,
}

/// Means over pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairFigures {
    /// The objective whole, the chosen answers' likelihood included where it counts.
    pub loss: f64,
    pub chosen_reward: f64,
    pub rejected_reward: f64,
    /// Share of pairs whose chosen reward is above the rejected one.
    pub accuracy: f64,
    /// Mean negative ln p of a chosen token.
    pub chosen_nll: f64,
}

/// A policy, its optimizer, and the gradients of the step at hand.
#[derive(Clone, Debug)]
pub struct Trainer {
    pub(super) policy: Policy,
    pub(super) optimizer: AdamW,
    grads: Vec<f32>,
    config: TrainerConfig,
}

impl Trainer {
    pub fn new(policy: Policy, config: TrainerConfig) -> Self {
        let optimizer = AdamW::new(policy.parameters(), config.optimizer);
        let grads = vec![0.0; policy.parameters().values.len()];
        Self { policy, optimizer, grads, config }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps
    }
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
    /// The gradient of the last step, before clipping.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> &[f32] {
        &self.grads
    }
    /// What has learned; the optimizer is dropped.
    pub fn into_policy(self) -> Policy {
        self.policy
    }

    /// Learns from a batch; the loss counts every supervised token of the batch equally.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if nothing is supervised; [`ModelError::Cancelled`]; those of
    /// [`crate::transformer::Decoder::forward`].
    pub fn step(&mut self, batch: &[&Example], on_pass: &mut OnPass) -> Result<Stepped> {
        let supervised = batch.iter().map(|example| example.supervised()).sum::<usize>();
        if supervised == 0 {
            return Err(ModelError::Invalid("no token of the batch is supervised".into()));
        }
        self.grads.fill(0.0);
        let coefficient = sft(&[], supervised).1 as f32;
        let mut logprobs = Vec::with_capacity(supervised);
        for part in passes(batch, |example| example.tokens()) {
            logprobs.extend(self.policy.learn(&Pass::of(part), coefficient, &mut self.grads)?);
            report(on_pass, part.iter().map(|example| example.tokens()).sum())?;
        }
        Ok(self.update(sft(&logprobs, supervised).0))
    }

    /// Mean negative log-likelihood of supervised tokens, learning nothing.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`]; those of [`crate::transformer::Decoder::forward`].
    pub fn evaluate(&self, examples: &[Example], on_pass: &mut OnPass) -> Result<f64> {
        let (mut sum, mut count) = (0.0, 0);
        let examples: Vec<&Example> = examples.iter().collect();
        for part in passes(&examples, |example| example.tokens()) {
            let logprobs = self.policy.logprobs(&Pass::of(part))?;
            sum += total(&logprobs);
            count += logprobs.len();
            report(on_pass, part.iter().map(|example| example.tokens()).sum())?;
        }
        Ok(-sum / count.max(1) as f64)
    }

    /// Σ ln p of both answers of each pair, as the policy is now: the reference, taken before the first step.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`]; those of [`crate::transformer::Decoder::forward`].
    pub fn references(&self, pairs: &[Contrast], on_pass: &mut OnPass) -> Result<Vec<[f64; 2]>> {
        let mut references = Vec::with_capacity(pairs.len());
        for part in passes(pairs, Contrast::tokens) {
            let part: Vec<&Contrast> = part.iter().collect();
            let logprobs = self.policy.logprobs(&Pass::of(&both(&part)))?;
            references
                .extend(split(&part, &logprobs).iter().map(|[chosen, rejected]| [total(chosen), total(rejected)]));
            report(on_pass, part.iter().map(|pair| pair.tokens()).sum())?;
        }
        Ok(references)
    }

    /// Learns to prefer; `references` has Σ ln p of the chosen and the rejected answer of each pair of the batch.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if an answer has no supervised token; [`ModelError::Cancelled`]; those of
    /// [`crate::transformer::Decoder::forward`].
    pub fn step_pairs(
        &mut self,
        batch: &[&Contrast],
        references: &[[f64; 2]],
        objective: &Preference,
        on_pass: &mut OnPass,
    ) -> Result<SteppedPairs> {
        if batch.is_empty() || batch.iter().any(|pair| pair.chosen.supervised() == 0 || pair.rejected.supervised() == 0)
        {
            return Err(ModelError::Invalid("an answer of the batch has no supervised token".into()));
        }
        self.grads.fill(0.0);
        let mut figures = PairFigures::default();
        let mut done = 0;
        for part in passes(batch, |pair| pair.tokens()) {
            let own = &references[done..][..part.len()];
            let weigh = |logprobs: &[f32]| weigh(part, own, logprobs, objective, batch.len(), &mut figures);
            self.policy.learn_weighed(&Pass::of(&both(part)), weigh, &mut self.grads)?;
            done += part.len();
            report(on_pass, part.iter().map(|pair| pair.tokens()).sum())?;
        }
        Ok(SteppedPairs { stepped: self.update(figures.loss), figures })
    }

    /// Clips, steps; nothing if what was found is not finite.
    fn update(&mut self, loss: f64) -> Stepped {
        let (grad_norm, factor) = clip(&self.grads, self.config.max_grad_norm);
        let rate = self.config.schedule.rate(self.optimizer.steps);
        let stepped = Stepped { loss, grad_norm, rate };
        if stepped.is_finite() {
            self.optimizer.step(&mut self.policy.parameters_mut().values, &self.grads, rate, factor);
        }
        stepped
    }
}

fn report(on_pass: &mut OnPass, tokens: usize) -> Result<()> {
    if on_pass(tokens) { Ok(()) } else { Err(ModelError::Cancelled) }
}

fn total(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|logprob| f64::from(*logprob)).sum()
}

/// Chosen and rejected side by side, so that they share the prompt's rows.
fn both<'a>(pairs: &[&'a Contrast]) -> Vec<&'a Example> {
    pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect()
}

/// The log-probabilities of a pass by pair: of the chosen and of the rejected answer.
fn split<'a>(pairs: &[&Contrast], mut logprobs: &'a [f32]) -> Vec<[&'a [f32]; 2]> {
    let mut take = |count: usize| {
        let (own, rest) = logprobs.split_at(count);
        logprobs = rest;
        own
    };
    pairs.iter().map(|pair| [take(pair.chosen.supervised()), take(pair.rejected.supervised())]).collect()
}

/// g of every supervised token of a pass; adds to the figures of the batch of `count` pairs.
fn weigh(
    pairs: &[&Contrast],
    references: &[[f64; 2]],
    logprobs: &[f32],
    objective: &Preference,
    count: usize,
    figures: &mut PairFigures,
) -> Vec<f32> {
    let share = 1.0 / count as f64;
    let mut coefficients = Vec::with_capacity(logprobs.len());
    for ([chosen, rejected], [chosen_reference, rejected_reference]) in split(pairs, logprobs).iter().zip(references) {
        let answer =
            |logprobs: &[f32], reference: f64| Answer { logprob: total(logprobs), reference, tokens: logprobs.len() };
        let judged = objective.judge(answer(chosen, *chosen_reference), answer(rejected, *rejected_reference));
        figures.loss += share * judged.loss;
        figures.chosen_reward += share * judged.chosen_reward;
        figures.rejected_reward += share * judged.rejected_reward;
        figures.accuracy += if judged.chosen_reward > judged.rejected_reward { share } else { 0.0 };
        figures.chosen_nll -= share * total(chosen) / chosen.len() as f64;
        coefficients.extend(std::iter::repeat_n((share * judged.chosen) as f32, chosen.len()));
        coefficients.extend(std::iter::repeat_n((share * judged.rejected) as f32, rejected.len()));
    }
    coefficients
}
