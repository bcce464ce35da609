//! Matrix products on row-major slices: the one place that calls the `gemm` crate.
//!
//! Weights are `[out, in]`, as checkpoints store them. A row of a product depends on its own inputs alone, bit for bit,
//! whatever the number of rows or threads: [`forward`] pads tiny products rather than take another code path.

use gemm::Parallelism;
use rayon::prelude::*;

use super::vector::{LANES, vectorized};

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
    fn check(&self) {
        let needed = if self.rows == 0 { 0 } else { (self.rows - 1) * self.stride + self.cols };
        assert!(self.cols <= self.stride && needed <= self.data.len(), "a view stays inside its data");
    }
}

/// How a product enters its destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Into {
    /// Keep what is there and add.
    pub add: bool,
    pub scale: f32,
    pub parallel: bool,
}

pub(crate) const SET: Into = Into { add: false, scale: 1.0, parallel: true };
pub(crate) const ADD: Into = Into { add: true, scale: 1.0, parallel: true };

/// `out[rows, cols] (+)= scale · a · b` with transposed operands read in place; `out_stride` values a row.
#[expect(clippy::too_many_arguments, reason = "a matrix product has this many")]
fn product(out: &mut [f32], out_stride: usize, a: View, a_t: bool, b: View, b_t: bool, how: Into) {
    a.check();
    b.check();
    let (m, k) = if a_t { (a.cols, a.rows) } else { (a.rows, a.cols) };
    let (k_b, n) = if b_t { (b.cols, b.rows) } else { (b.rows, b.cols) };
    assert_eq!(k, k_b, "inner axes agree");
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= out_stride && (m - 1) * out_stride + n <= out.len(), "the product fits its destination");
    let strides = |view: &View, transposed: bool| {
        if transposed { (view.stride as isize, 1) } else { (1, view.stride as isize) }
    };
    let ((a_cs, a_rs), (b_cs, b_rs)) = (strides(&a, a_t), strides(&b, b_t));
    let parallelism = if how.parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: the assertions above keep every row and column of the three matrices inside their slices, and `out` is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            how.add,
            a.data.as_ptr(),
            a_cs,
            a_rs,
            b.data.as_ptr(),
            b_cs,
            b_rs,
            1.0,
            how.scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `y[rows, out] (+)= x[rows, in] · wᵀ` with `w` `[out, in]`.
pub(crate) fn forward(y: &mut [f32], y_stride: usize, x: View, w: View, how: Into) {
    /// Fewer rows than this would take gemm's vector path, whose sums are ordered otherwise.
    const LEAST_ROWS: usize = 8;
    if x.rows >= LEAST_ROWS || x.rows == 0 {
        return product(y, y_stride, x, false, w, true, how);
    }
    let mut padded = vec![0.0; LEAST_ROWS * x.cols];
    for row in 0..x.rows {
        padded[row * x.cols..][..x.cols].copy_from_slice(&x.data[row * x.stride..][..x.cols]);
    }
    let mut wide = vec![0.0; LEAST_ROWS * w.rows];
    product(&mut wide, w.rows, View::new(&padded, LEAST_ROWS, x.cols), false, w, true, Into { add: false, ..how });
    for row in 0..x.rows {
        let (from, to) = (&wide[row * w.rows..][..w.rows], &mut y[row * y_stride..][..w.rows]);
        if how.add { to.iter_mut().zip(from).for_each(|(y, x)| *y += x) } else { to.copy_from_slice(from) }
    }
}

/// `dx[rows, in] (+)= dy[rows, out] · w` with `w` `[out, in]`: the gradient of [`forward`] in `x`.
pub(crate) fn backward_input(dx: &mut [f32], dx_stride: usize, dy: View, w: View, how: Into) {
    product(dx, dx_stride, dy, false, w, false, how);
}

/// `dw[out, in] (+)= dyᵀ · x`: the gradient of [`forward`] in `w`.
pub(crate) fn backward_weight(dw: &mut [f32], dy: View, x: View, how: Into) {
    let cols = x.cols;
    product(dw, cols, dy, true, x, false, how);
}

/// `y[rows, out] = x[rows, in] · wᵀ` for the few rows of a decoding step: reads each weight once, from memory.
///
/// Every dot product adds in the same order whatever the number of rows, so a row's result does not depend on its
/// companions. `y` is row-major `[rows, out]`.
pub(crate) fn decode(y: &mut [f32], x: &[f32], rows: usize, w: View) {
    w.check();
    let (outputs, width) = (w.rows, w.cols);
    assert!(x.len() >= rows * width && y.len() >= rows * outputs && w.stride == width, "shapes agree");
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
        let mut column = 0;
        while column < count {
            let taken = (count - column).min(4);
            let mut row = 0;
            while row < rows {
                let rows_taken = (rows - row).min(4);
                let (x, w) = (&x[row * width..], &w[column * width..]);
                let place = &mut out[row * count + column..];
                match (rows_taken, taken) {
                    (4, 4) => tile::<4, 4>(place, count, x, w, width),
                    (3, 4) => tile::<3, 4>(place, count, x, w, width),
                    (2, 4) => tile::<2, 4>(place, count, x, w, width),
                    (1, 4) => tile::<1, 4>(place, count, x, w, width),
                    _ => {
                        for r in 0..rows_taken {
                            for c in 0..taken {
                                tile::<1, 1>(&mut place[r * count + c..], count, &x[r * width..], &w[c * width..], width);
                            }
                        }
                    }
                }
                row += rows_taken;
            }
            column += taken;
        }
    }
}

/// `M × N` dot products of length `width`, each in [`LANES`] accumulators.
#[inline(always)]
fn tile<const M: usize, const N: usize>(out: &mut [f32], stride: usize, x: &[f32], w: &[f32], width: usize) {
    let whole = width / LANES;
    let mut sums = [[[0.0_f32; LANES]; N]; M];
    let x_rows: [&[[f32; LANES]]; M] = std::array::from_fn(|m| &x[m * width..][..width].as_chunks().0[..whole]);
    let w_rows: [&[[f32; LANES]]; N] = std::array::from_fn(|n| &w[n * width..][..width].as_chunks().0[..whole]);
    for chunk in 0..whole {
        for n in 0..N {
            let weights = w_rows[n][chunk];
            for m in 0..M {
                let values = x_rows[m][chunk];
                for lane in 0..LANES {
                    sums[m][n][lane] = values[lane].mul_add(weights[lane], sums[m][n][lane]);
                }
            }
        }
    }
    for m in 0..M {
        for n in 0..N {
            let mut total = 0.0;
            for half in 0..LANES / 2 {
                total += sums[m][n][half] + sums[m][n][half + LANES / 2];
            }
            for index in whole * LANES..width {
                total += x[m * width + index] * w[n * width + index];
            }
            out[m * stride + n] = total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

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
