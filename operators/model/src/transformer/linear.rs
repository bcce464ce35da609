//! Linear layers on row-major slices, forward and backward, and the products of a decoding step.
//!
//! Weights are `[out, in]`, as checkpoints store them. A row of a product depends on its own inputs alone, bit for bit,
//! whatever the number of rows or threads.

use rayon::prelude::*;

pub(crate) use super::product::Into;
use super::{
    product::{Gain, Operand, product, product_with},
    vector::{LANES, fold, vectorized},
};

/// A row-major matrix inside a larger one: `rows × cols`, `stride` values from row to row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl<'a> View<'a> {
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, stride: cols }
    }
    /// Columns `start..start + cols` of a matrix with `stride` columns.
    pub fn columns(data: &'a [f32], rows: usize, stride: usize, start: usize, cols: usize) -> Self {
        Self { data: &data[start..], rows, cols, stride }
    }
    pub fn operand(self) -> Operand<'a> {
        Operand { data: self.data, rows: self.rows, cols: self.cols, row_step: self.stride, col_step: 1 }
    }
}

pub(crate) const SET: Into = Into { add: false, scale: 1.0, parallel: true };
pub(crate) const ADD: Into = Into { add: true, scale: 1.0, parallel: true };

/// `y[rows, out] (+)= x[rows, in] · wᵀ` with `w` `[out, in]`.
pub(crate) fn forward(y: &mut [f32], y_stride: usize, x: View, w: View, how: Into) {
    product(y, y_stride, x.operand(), w.operand().transposed(), how);
}

/// `dx[rows, in] (+)= dy[rows, out] · w` with `w` `[out, in]`: the gradient of [`forward`] in `x`.
pub(crate) fn backward_input(dx: &mut [f32], dx_stride: usize, dy: View, w: View, how: Into) {
    product(dx, dx_stride, dy.operand(), w.operand(), how);
}

/// [`forward`] with weights that gain products of low rank.
pub(crate) fn forward_with(y: &mut [f32], x: View, w: View, gains: &[Gain], how: Into) {
    let gains: Vec<Gain> = gains.iter().map(|gain| gain.transposed()).collect();
    product_with(y, w.rows, x.operand(), w.operand().transposed(), &gains, how);
}

/// [`backward_input`] with weights that gain products of low rank.
pub(crate) fn backward_input_with(dx: &mut [f32], dy: View, w: View, gains: &[Gain], how: Into) {
    product_with(dx, w.cols, dy.operand(), w.operand(), gains, how);
}

/// `dw[out, in] (+)= dyᵀ · x`: the gradient of [`forward`] in `w`.
pub(crate) fn backward_weight(dw: &mut [f32], dy: View, x: View, how: Into) {
    product(dw, x.cols, dy.operand().transposed(), x.operand(), how);
}

/// `y[rows, out] = x[rows, in] · wᵀ` for the few rows of a decoding step: reads each weight once, from memory.
///
/// Every dot product adds in the same order whatever the number of rows, so a row's result does not depend on its
/// companions. `y` is row-major `[rows, out]`.
pub(crate) fn decode(y: &mut [f32], x: &[f32], rows: usize, w: View) {
    let (outputs, width) = (w.rows, w.cols);
    assert!(
        x.len() >= rows * width && y.len() >= rows * outputs && w.stride == width && w.data.len() >= outputs * width,
        "shapes agree"
    );
    /// Weight rows a task takes: large enough to hide the task's cost, small enough to balance two cores.
    const BLOCK: usize = 64;
    let blocks = outputs.div_ceil(BLOCK);
    let results: Vec<Vec<f32>> = (0..blocks)
        .into_par_iter()
        .map(|block| {
            let first = block * BLOCK;
            let count = BLOCK.min(outputs - first);
            let mut out = vec![0.0; rows * count]; // [rows, count]
            tiles(&mut out, count, x, rows, &w.data[first * width..][..count * width], width);
            out
        })
        .collect();
    for (block, out) in results.iter().enumerate() {
        let first = block * BLOCK;
        let count = BLOCK.min(outputs - first);
        for row in 0..rows {
            y[row * outputs + first..][..count].copy_from_slice(&out[row * count..][..count]);
        }
    }
}

vectorized! {
    fn tiles(out: &mut [f32], count: usize, x: &[f32], rows: usize, w: &[f32], width: usize) {
        /// Weights that stay in the first-level cache while every row meets them: 24 KB.
        const RESIDENT: usize = 6 << 10;
        let columns = (RESIDENT / width.max(1)).max(2) & !1;
        for first in (0..count).step_by(columns) {
            let end = count.min(first + columns);
            for row in (0..rows).step_by(3) {
                for column in (first..end).step_by(2) {
                    let sums = tile(&x[row * width..], &w[column * width..], width);
                    for (x_row, sums) in (row..rows).zip(sums) {
                        for (w_row, lanes) in (column..end).zip(sums) {
                            let whole = width / LANES * LANES;
                            let (x, w) = (&x[x_row * width..][whole..width], &w[w_row * width..][whole..width]);
                            let rest: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                            out[x_row * count + w_row] = fold(lanes, |a, b| a + b) + rest;
                        }
                    }
                }
            }
        }
    }
}

/// Three rows against two of the weights: the lanes of their dot products fill 12 of AVX2's 16 registers.
///
/// One tile for every number of rows, so that sums never depend on it; where rows are missing, the last stands in.
#[inline(always)]
fn tile(x: &[f32], w: &[f32], width: usize) -> [[[f32; LANES]; 2]; 3] {
    let whole = width / LANES;
    let row = |of: &[f32], index: usize| index.min((of.len() / width).saturating_sub(1)) * width;
    let x_rows: [&[[f32; LANES]]; 3] = std::array::from_fn(|m| &x[row(x, m)..][..width].as_chunks().0[..whole]);
    let w_rows: [&[[f32; LANES]]; 2] = std::array::from_fn(|n| &w[row(w, n)..][..width].as_chunks().0[..whole]);
    let mut sums = [[[0.0_f32; LANES]; 2]; 3];
    for chunk in 0..whole {
        for n in 0..2 {
            for m in 0..3 {
                for lane in 0..LANES {
                    sums[m][n][lane] = x_rows[m][chunk][lane].mul_add(w_rows[n][chunk][lane], sums[m][n][lane]);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::numbers;

    #[test]
    fn a_row_does_not_depend_on_its_companions_or_on_threads() {
        let (width, outputs) = (172, 133);
        let (x, w) = (numbers(33 * width, 1), numbers(outputs * width, 2));
        let weights = View::new(&w, outputs, width);
        let mut all = vec![0.0; 33 * outputs];
        forward(&mut all, outputs, View::new(&x, 33, width), weights, SET);
        for rows in [1, 2, 7, 9, 20] {
            let mut few = vec![0.0; rows * outputs];
            forward(&mut few, outputs, View::new(&x, rows, width), weights, Into { parallel: false, ..SET });
            assert_eq!(few, all[..rows * outputs], "{rows} rows");
        }
        decode(&mut all, &x, 33, weights);
        for rows in [1, 3, 5] {
            let mut few = vec![0.0; rows * outputs];
            decode(&mut few, &x, rows, weights);
            assert_eq!(few, all[..rows * outputs]);
        }
        let exact: f64 = (0..width).map(|i| f64::from(x[i]) * f64::from(w[i])).sum();
        assert!((f64::from(all[0]) - exact).abs() < 1e-4);
    }
}
