//! SwiGLU: silu(gate) · up, on rows that hold gate and up side by side.
//!
//! Source: Shazeer 2020, eq. 6.

use rayon::prelude::*;

use super::vector::{exp, vectorized};

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `y` `[rows, width]` from `gate_up` `[rows, 2·width]`.
pub(crate) fn forward(y: &mut [f32], gate_up: &[f32], width: usize) {
    y.par_chunks_exact_mut(width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .with_min_len(8)
        .for_each(|(y, row)| forward_row(y, row));
}

vectorized! {
    fn forward_row(y: &mut [f32], row: &[f32]) {
        let (gate, up) = row.split_at(y.len());
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate * sigmoid(*gate) * up;
        }
    }
}

/// Replaces `gate_up` by its gradient: d_gate = dy·up·σ(g)·(1 + g·(1 − σ(g))), d_up = dy·silu(g).
pub(crate) fn backward(gate_up: &mut [f32], dy: &[f32], width: usize) {
    gate_up
        .par_chunks_exact_mut(2 * width)
        .zip(dy.par_chunks_exact(width))
        .with_min_len(8)
        .for_each(|(row, dy)| backward_row(row, dy));
}

vectorized! {
    fn backward_row(row: &mut [f32], dy: &[f32]) {
        let (gate, up) = row.split_at_mut(dy.len());
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let (g, s) = (*gate, sigmoid(*gate));
            *gate = dy * *up * s * (1.0 + g * (1.0 - s));
            *up = dy * g * s;
        }
    }
}
