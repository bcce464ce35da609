//! The output head on chosen rows: log-probabilities, and their gradient, without ever holding all logits.

use rayon::prelude::*;

use super::{
    Decoder, Packed,
    linear::{self, ADD, SET, View},
    memory::Buffer,
    norm,
    vector::{add, argmax, exp, log_sum_exp, vectorized},
};
use crate::Result;

/// Logits at once: 100 MB. The more rows share a reading of the head's weights, the less it costs.
const MOST_LOGITS: usize = 25 << 20;

/// A token whose probability is asked for, and the row that predicts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub row: usize,
    pub token: u32,
}

/// What the head says of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// ln p of the token.
    pub logprob: f32,
    /// Whether it is the likeliest token.
    pub greedy: bool,
}

impl Decoder {
    /// Log-probability of each target, given the residual stream `[rows, hidden]` of a forward pass.
    pub fn judge(&self, x: &[f32], targets: &[Target]) -> Vec<Judged> {
        let mut judged = Vec::with_capacity(targets.len());
        let mut memory = self.logits_memory(targets.len());
        for chunk in targets.chunks(self.rows_at_once()) {
            let (_, normed, _) = self.head_rows(x, chunk);
            let logits = self.logits_in(&mut memory, &normed);
            judged.par_extend(chunk.par_iter().zip(logits.par_chunks_exact(self.config.vocab)).map(|(target, row)| {
                let token = target.token as usize;
                Judged { logprob: row[token] - log_sum_exp(row), greedy: argmax(row) == token }
            }));
        }
        judged
    }

    /// Logits `[tokens, vocab]` after each token of one sequence; all at once, so for short texts.
    ///
    /// # Errors
    /// Those of [`Decoder::forward`].
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let x = self.forward(&Packed::separate(&[tokens]), None, None)?;
        Ok(self.logits_of(&self.final_norm(&x).0))
    }

    fn rows_at_once(&self) -> usize {
        (MOST_LOGITS / self.config.vocab).clamp(16, 1024)
    }

    /// Room for as many logits as are held at once for so many targets.
    fn logits_memory(&self, targets: usize) -> Buffer {
        self.memory.take(self.rows_at_once().min(targets) * self.config.vocab)
    }

    /// Logits `[rows, vocab]` of normed rows `[rows, hidden]`.
    fn logits_of(&self, normed: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; normed.len() / self.config.hidden * self.config.vocab];
        self.logits_in(&mut logits, normed);
        logits
    }

    /// [`Decoder::logits_of`] at the start of `memory`.
    fn logits_in<'a>(&self, memory: &'a mut [f32], normed: &[f32]) -> &'a mut [f32] {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        let rows = normed.len() / hidden;
        let logits = &mut memory[..rows * vocab];
        linear::forward(logits, vocab, View::new(normed, rows, hidden), self.head(), SET);
        logits
    }

    /// Σ g·ln p backwards: the gradient in `x`, and each target's ln p. `coefficients` holds g = ∂L/∂ln p.
    ///
    /// `grads` is given when the decoder's own parameters learn: the head's and the last norm's are added there.
    pub fn judge_backward(
        &self,
        x: &[f32],
        targets: &[Target],
        coefficients: &[f32],
        grads: Option<&mut [f32]>,
    ) -> (Vec<f32>, Vec<f32>) {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        let mut grads = grads;
        let mut dx = vec![0.0; x.len()];
        let mut logprobs = Vec::with_capacity(targets.len());
        let (mut memory, at_once) = (self.logits_memory(targets.len()), self.rows_at_once());
        for (chunk, factors) in targets.chunks(at_once).zip(coefficients.chunks(at_once)) {
            let (picked, normed, inverse) = self.head_rows(x, chunk);
            let logits = self.logits_in(&mut memory, &normed);
            logprobs.par_extend(logits.par_chunks_exact_mut(vocab).zip(chunk.par_iter().zip(factors)).map(
                |(row, (target, factor))| {
                    let token = target.token as usize;
                    let norm = log_sum_exp(row);
                    let logprob = row[token] - norm;
                    scaled_exp(row, norm, -factor);
                    row[token] += factor;
                    logprob
                },
            ));
            let d_logits = View::new(logits, chunk.len(), vocab);
            let mut d_normed = vec![0.0; chunk.len() * hidden];
            linear::backward_input(&mut d_normed, hidden, d_logits, self.head(), SET);
            let mut d_picked = vec![0.0; chunk.len() * hidden];
            norm::backward(&mut d_picked, &d_normed, &picked, self.last_norm(), &inverse);
            if let Some(grads) = grads.as_deref_mut() {
                let normed = View::new(&normed, chunk.len(), hidden);
                linear::backward_weight(&mut grads[self.head_range()], d_logits, normed, ADD);
                let place = self.parameters.find("model.norm.weight").expect("every decoder has a last norm").range();
                norm::backward_weight(&mut grads[place], &d_normed, &picked, &inverse);
            }
            for (target, row) in chunk.iter().zip(d_picked.chunks_exact(hidden)) {
                add(&mut dx[target.row * hidden..][..hidden], row);
            }
        }
        (dx, logprobs)
    }

    fn head_rows(&self, x: &[f32], targets: &[Target]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let hidden = self.config.hidden;
        let picked: Vec<f32> =
            targets.iter().flat_map(|target| x[target.row * hidden..][..hidden].iter().copied()).collect();
        let (normed, inverse) = self.final_norm(&picked);
        (picked, normed, inverse)
    }
}

vectorized! {
    /// z ← factor · e^(z − norm).
    fn scaled_exp(row: &mut [f32], norm: f32, factor: f32) {
        for z in row {
            *z = factor * exp(*z - norm);
        }
    }
}
