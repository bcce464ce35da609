//! RMSNorm: y = x / √(mean(x²) + ε) · w. Sums run in f32, in fixed lanes.
//!
//! Source: Zhang and Sennrich 2019, eq. 4.

use rayon::prelude::*;

use super::vector::{LANES, sum_of, vectorized};

/// Normalises each row of `x` `[rows, width]` into `y`, and returns 1/rms of each row for the backward pass.
pub(crate) fn forward(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    y.par_chunks_exact_mut(width)
        .zip(x.par_chunks_exact(width))
        .with_min_len(32)
        .map(|(y, x)| forward_row(y, x, weight, eps))
        .collect()
}

vectorized! {
    fn forward_row(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) -> f32 {
        let inverse = 1.0 / (sum_of(x, |v| v * v) / weight.len() as f32 + eps).sqrt();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inverse * weight;
        }
        inverse
    }
}

/// Adds the gradient in `x` to `dx`: with r = 1/rms and x̂ = x·r, dx = r·(dy·w − x̂·mean(dy·w·x̂)).
pub(crate) fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], inverse_rms: &[f32]) {
    let width = weight.len();
    dx.par_chunks_exact_mut(width)
        .zip(dy.par_chunks_exact(width).zip(x.par_chunks_exact(width)).zip(inverse_rms))
        .with_min_len(32)
        .for_each(|(dx, ((dy, x), inverse))| backward_row(dx, dy, x, weight, *inverse));
}

vectorized! {
    fn backward_row(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], inverse: f32) {
        let width = weight.len();
        let (dx, dy, x) = (&mut dx[..width], &dy[..width], &x[..width]);
        let mut lanes = [0.0_f32; LANES];
        let whole = width / LANES * LANES;
        let chunks = dy.as_chunks::<LANES>().0.iter().zip(weight.as_chunks::<LANES>().0).zip(x.as_chunks::<LANES>().0);
        for ((dy, weight), x) in chunks {
            for (lane, sum) in lanes.iter_mut().enumerate() {
                *sum += dy[lane] * weight[lane] * x[lane];
            }
        }
        let rest: f32 = (whole..width).map(|i| dy[i] * weight[i] * x[i]).sum();
        let mean = (lanes.iter().sum::<f32>() + rest) * inverse * inverse * inverse / width as f32;
        for i in 0..width {
            dx[i] += dy[i] * weight[i] * inverse - x[i] * mean;
        }
    }
}

/// Adds the gradient in `w` to `dw`: Σ over rows of dy·x̂, rows in order.
pub(crate) fn backward_weight(dw: &mut [f32], dy: &[f32], x: &[f32], inverse_rms: &[f32]) {
    let width = dw.len();
    for ((dy, x), inverse) in dy.chunks_exact(width).zip(x.chunks_exact(width)).zip(inverse_rms) {
        backward_weight_row(dw, dy, x, *inverse);
    }
}

vectorized! {
    fn backward_weight_row(dw: &mut [f32], dy: &[f32], x: &[f32], inverse: f32) {
        for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += dy * x * inverse;
        }
    }
}
