//! AdamW in one pass over parameters, gradients and both moments.
//!
//! Source: Loshchilov and Hutter 2019, algorithm 2, as PyTorch computes it.

use rayon::prelude::*;

use crate::transformer::vector::{sum_of, vectorized};

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;
const CHUNK: usize = 1 << 14; // values a task takes; fixes the order of sums, so threads do not change them

/// The moments of every parameter, and the number of steps taken.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    pub steps: u64,
    pub weight_decay: f32,
}

impl AdamW {
    pub fn new(parameters: usize, weight_decay: f32) -> Self {
        Self { first: vec![0.0; parameters], second: vec![0.0; parameters], steps: 0, weight_decay }
    }

    /// One step: changes `values`, given `grads` of which each counts `factor` times (see [`clip`]).
    pub fn step(&mut self, values: &mut [f32], grads: &[f32], rate: f64, factor: f32) {
        self.steps += 1;
        let exponent = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let correction_1 = 1.0 - f64::from(BETA_1).powi(exponent);
        let correction_2 = (1.0 - f64::from(BETA_2).powi(exponent)).sqrt() as f32;
        let step_size = (rate / correction_1) as f32;
        let keep = 1.0 - rate as f32 * self.weight_decay;
        let moments = self.first.par_chunks_mut(CHUNK).zip(self.second.par_chunks_mut(CHUNK));
        let work = values.par_chunks_mut(CHUNK).zip(grads.par_chunks(CHUNK)).zip(moments);
        work.for_each(|((values, grads), (first, second))| {
            vectorized(|| {
                for i in 0..values.len() {
                    let grad = grads[i] * factor;
                    first[i] = BETA_1 * first[i] + (1.0 - BETA_1) * grad;
                    second[i] = BETA_2 * second[i] + (1.0 - BETA_2) * grad * grad;
                    let scale = second[i].sqrt() / correction_2 + EPSILON;
                    values[i] = values[i] * keep - step_size * first[i] / scale;
                }
            });
        });
    }
}

/// The norm of all gradients together, and the factor that brings it to at most `max_norm` (0: never clip).
pub fn clip(grads: &[f32], max_norm: f64) -> (f64, f32) {
    let parts: Vec<f64> =
        grads.par_chunks(CHUNK).map(|chunk| f64::from(vectorized(|| sum_of(chunk, |g| g * g)))).collect();
    let norm = parts.iter().sum::<f64>().sqrt();
    let factor = if max_norm > 0.0 && norm > max_norm { max_norm / (norm + 1e-6) } else { 1.0 };
    (norm, factor as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_moves_each_value_by_the_rate() {
        let (mut adam, mut values) = (AdamW::new(3, 0.0), vec![1.0, 2.0, 3.0]);
        adam.step(&mut values, &[0.5, -4.0, 0.0], 0.1, 1.0);
        for (value, expected) in values.iter().zip([0.9, 2.1, 3.0]) {
            assert!((value - expected).abs() < 1e-6);
        }
        assert_eq!(clip(&[3.0, 4.0], 1.0).0, 5.0);
    }
}
