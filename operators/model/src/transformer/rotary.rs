//! Rotary position embedding: pairs of a head's values turn by an angle that grows with the position.
//!
//! Two layouts of the pairs: half-split (value i with i + head_dim/2, as Hugging Face stores Llama) and interleaved
//! (2i with 2i + 1, as llama2.c and llama.cpp do). The gradient is the same turn backwards.
//!
//! Source: Su et al. 2021, eq. 34.

use rayon::prelude::*;

/// Angles of every position up to a length.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// cos and sin, each `[positions, head_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    interleaved: bool,
}

impl Rotary {
    pub fn new(positions: usize, head_dim: usize, theta: f64, interleaved: bool) -> Self {
        let half = head_dim / 2;
        let rates: Vec<f64> = (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let angles = || (0..positions).flat_map(|p| rates.iter().map(move |rate| p as f64 * rate));
        let cos = angles().map(|angle| angle.cos() as f32).collect();
        let sin = angles().map(|angle| angle.sin() as f32).collect();
        Self { cos, sin, half, interleaved }
    }

    /// Turns the first `heads` heads of each row of `x` `[rows, stride]`; `backwards` gives the gradient.
    pub fn apply(&self, x: &mut [f32], stride: usize, heads: usize, positions: &[usize], backwards: bool) {
        x.par_chunks_exact_mut(stride).zip(positions).with_min_len(64).for_each(|(row, position)| {
            for head in row[..heads * self.half * 2].chunks_exact_mut(self.half * 2) {
                self.turn(head, *position, backwards);
            }
        });
    }

    fn turn(&self, head: &mut [f32], position: usize, backwards: bool) {
        let cos = &self.cos[position * self.half..][..self.half];
        let sin = &self.sin[position * self.half..][..self.half];
        let sign = if backwards { -1.0 } else { 1.0 };
        if self.interleaved {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
                let (a, b) = (pair[0], pair[1]);
                (pair[0], pair[1]) = (a * cos - sign * b * sin, sign * a * sin + b * cos);
            }
        } else {
            let (left, right) = head.split_at_mut(self.half);
            turn_halves(left, right, cos, sin, sign);
        }
    }
}

super::vector::vectorized! {
    fn turn_halves(left: &mut [f32], right: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        for ((left, right), (cos, sin)) in left.iter_mut().zip(right).zip(cos.iter().zip(sin)) {
            let (a, b) = (*left, *right);
            *left = a * cos - sign * b * sin;
            *right = sign * a * sin + b * cos;
        }
    }
}
