//! AdamW in one pass over parameters, gradients and both moments.
//!
//! Source: Loshchilov and Hutter 2019, algorithm 2, as PyTorch computes it.

use std::ops::Range;

use rayon::prelude::*;

use crate::transformer::{
    Parameters,
    vector::{sum_of_squares, vectorized},
};

const CHUNK: usize = 1 << 14; // values a task takes; fixes the order of sums, so threads do not change them

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    pub beta_1: f32,
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Share of a weight that a step at rate 1 takes off; of matrices alone, never of norms.
    pub weight_decay: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The moments of every parameter, and the number of steps taken.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    pub config: AdamWConfig,
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    pub steps: u64,
    /// Neighbouring parameters that decay alike, and whether they do.
    runs: Vec<(Range<usize>, bool)>,
}

impl AdamW {
    pub fn new(parameters: &Parameters, config: AdamWConfig) -> Self {
        let count = parameters.values.len();
        let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
        for span in parameters.spans() {
            let decays = span.shape.len() > 1;
            match runs.last_mut().filter(|(_, last)| *last == decays) {
                Some((run, _)) => run.end = span.range().end,
                None => runs.push((span.range(), decays)),
            }
        }
        Self { config, first: vec![0.0; count], second: vec![0.0; count], steps: 0, runs }
    }

    /// One step: changes `values`, given `grads` of which each counts `factor` times (see [`clip`]).
    pub fn step(&mut self, values: &mut [f32], grads: &[f32], rate: f64, factor: f32) {
        self.steps += 1;
        let AdamWConfig { beta_1, beta_2, weight_decay, .. } = self.config;
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let correction_1 = 1.0 - f64::from(beta_1).powi(exponent);
        let correction_2 = (1.0 - f64::from(beta_2).powi(exponent)).sqrt() as f32;
        let step_size = (rate / correction_1) as f32;
        for (run, decays) in &self.runs {
            let keep = if *decays { 1.0 - rate as f32 * weight_decay } else { 1.0 };
            let (first, second) = (&mut self.first[run.clone()], &mut self.second[run.clone()]);
            let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
            let values = values[run.clone()].par_chunks_mut(CHUNK);
            values.zip(grads[run.clone()].par_chunks(CHUNK)).zip(moments).for_each(
                |((values, grads), (first, second))| {
                    update(
                        values,
                        grads,
                        first,
                        second,
                        &Rates { factor, keep, step_size, correction_2, config: self.config },
                    );
                },
            );
        }
    }
}

/// The constants of one step.
struct Rates {
    config: AdamWConfig,
    factor: f32,
    keep: f32,
    step_size: f32,
    correction_2: f32,
}

vectorized! {
    fn update(values: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32], rates: &Rates) {
        let AdamWConfig { beta_1, beta_2, epsilon, .. } = rates.config;
        for ((value, grad), (first, second)) in values.iter_mut().zip(grads).zip(first.iter_mut().zip(second)) {
            let grad = grad * rates.factor;
            *first = beta_1 * *first + (1.0 - beta_1) * grad;
            *second = beta_2 * *second + (1.0 - beta_2) * grad * grad;
            let scale = second.sqrt() / rates.correction_2 + epsilon;
            *value = *value * rates.keep - rates.step_size * *first / scale;
        }
    }
}

/// The norm of all gradients together, and the factor that brings it to at most `max_norm` (0: never clip).
pub fn clip(grads: &[f32], max_norm: f64) -> (f64, f32) {
    let parts: Vec<f64> = grads.par_chunks(CHUNK).map(|chunk| f64::from(sum_of_squares(chunk))).collect();
    let norm = parts.iter().sum::<f64>().sqrt();
    let factor = if max_norm > 0.0 && norm > max_norm { max_norm / (norm + 1e-6) } else { 1.0 };
    (norm, factor as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(shapes: &[&[usize]]) -> Parameters {
        let mut parameters = Parameters::default();
        shapes.iter().enumerate().for_each(|(index, shape)| parameters.push(index.to_string(), shape));
        parameters
    }

    #[test]
    fn the_first_step_moves_each_value_by_the_rate() {
        let mut adam = AdamW::new(&parameters(&[&[3]]), AdamWConfig::default());
        let mut values = vec![1.0, 2.0, 3.0];
        adam.step(&mut values, &[0.5, -4.0, 0.0], 0.1, 1.0);
        for (value, expected) in values.iter().zip([0.9, 2.1, 3.0]) {
            assert!((value - expected).abs() < 1e-6);
        }
        assert_eq!(clip(&[3.0, 4.0], 1.0).0, 5.0);
    }

    #[test]
    fn matrices_decay_and_norms_do_not() {
        let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() };
        let mut adam = AdamW::new(&parameters(&[&[1, 2], &[2, 1], &[2], &[1, 1]]), config);
        let mut values = vec![1.0; 7];
        adam.step(&mut values, &[0.0; 7], 0.1, 1.0);
        assert_eq!(values, [0.95, 0.95, 0.95, 0.95, 1.0, 1.0, 0.95]);
    }
}
