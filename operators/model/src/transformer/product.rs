//! Blocked matrix products of `f32`: one kernel, operands of any strides.
//!
//! Owns: packing the right operand into panels, the register tile, the split into tasks.
//! Must not know: layers, weights.
//!
//! Each element of a result is a sum over the inner axis in order, one fused multiply-add at a time, in blocks of
//! [`DEPTH`]. So it depends neither on the number of rows and columns beside it, nor on threads, nor on the vector unit;
//! and zeros at the end of the inner axis change nothing.
//!
//! Source: Goto and van de Geijn 2008 for the blocking; Van Zee and van de Geijn 2015 for the register tile.

use std::cell::Cell;

use rayon::prelude::*;

use super::vector::vectorized;

/// Columns of a panel and of a register tile: two AVX2 registers or one of AVX-512.
const WIDTH: usize = 16;
/// Rows of a register tile: with [`WIDTH`], 12 of AVX2's 16 registers hold sums.
const HEIGHT: usize = 6;
/// Inner axis of a block: a panel's share (12 KB) stays in the first-level cache beside the rows that meet it.
const DEPTH: usize = 192;
/// Most values packed at once: 16 MB.
const MOST_PACKED: usize = 4 << 20;
/// Longest inner axis packed at once, blocks of [`DEPTH`].
const LONGEST_PACKED: usize = 32 * DEPTH;
/// Values of the left operand a task takes, about: 256 KB stay in the second-level cache.
const TASK_VALUES: usize = 64 << 10;
/// Panels a task takes where there are too few rows to share out.
const TASK_PANELS: usize = 16;

/// A matrix with any steps between rows and columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub row_step: usize,
    pub col_step: usize,
}

impl<'a> Operand<'a> {
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step, ..self }
    }
    /// `count` columns from `first` on.
    fn columns(self, first: usize, count: usize) -> Self {
        Self { data: &self.data[(first * self.col_step).min(self.data.len())..], cols: count, ..self }
    }
    /// `count` rows from `first` on.
    fn rows(self, first: usize, count: usize) -> Self {
        self.transposed().columns(first, count).transposed()
    }
    fn check(&self) {
        let last = self.rows.saturating_sub(1) * self.row_step + self.cols.saturating_sub(1) * self.col_step;
        assert!(self.rows == 0 || self.cols == 0 || last < self.data.len(), "a matrix lies inside its data");
    }
}

/// How a product enters its destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Into {
    /// Keep what is there and add.
    pub add: bool,
    pub scale: f32,
    /// Whether to share the work out among threads.
    pub parallel: bool,
}

/// A right operand, packed: panels of [`WIDTH`] columns, each row by row.
#[derive(Debug, Default)]
pub(crate) struct Panels {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Panels {
    /// Packs `b`, re-using the memory of what was packed before.
    pub fn pack(&mut self, b: Operand, parallel: bool) {
        self.pack_with(b, (0, 0), &[], parallel);
    }

    /// Packs `b`, whose first element is at `origin` of the matrix that the gains speak of.
    fn pack_with(&mut self, b: Operand, origin: (usize, usize), gains: &[Gain], parallel: bool) {
        b.check();
        (self.rows, self.cols) = (b.rows, b.cols);
        let needed = b.cols.div_ceil(WIDTH) * b.rows * WIDTH;
        if self.data.len() < needed {
            self.data.resize(needed, 0.0);
        }
        const TOGETHER: usize = 4; // panels a task takes, so that it reads whole cache lines in a row
        let pack = |(index, panels): (usize, &mut [f32])| {
            let first = index * TOGETHER * WIDTH;
            pack_panels(panels, b.columns(first, (TOGETHER * WIDTH).min(b.cols - first)));
            for gain in gains {
                gain.enter(panels, b.rows, (origin.0, origin.1 + first));
            }
        };
        let size = TOGETHER * (b.rows * WIDTH).max(1);
        let panels = &mut self.data[..needed];
        if parallel && needed > 1 << 15 {
            panels.par_chunks_mut(size).enumerate().for_each(pack);
        } else {
            panels.chunks_mut(size).enumerate().for_each(pack);
        }
    }

    /// The first `rows` rows of panel `index`.
    fn panel(&self, index: usize, rows: usize) -> &[[f32; WIDTH]] {
        self.data[index * self.rows * WIDTH..][..rows * WIDTH].as_chunks().0
    }
}

/// What a right operand gains while it is packed: `scale · left · right`, of low rank, from (`row`, `col`) on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gain<'a> {
    /// `[rows, rank]`.
    pub left: Operand<'a>,
    /// `[rank, cols]`.
    pub right: Operand<'a>,
    pub row: usize,
    pub col: usize,
    pub scale: f32,
}

impl Gain<'_> {
    /// What the transposed operand gains.
    pub fn transposed(self) -> Self {
        let (left, right) = (self.right.transposed(), self.left.transposed());
        Self { left, right, row: self.col, col: self.row, ..self }
    }

    /// Adds the part that meets these panels of `rows` rows, whose first element is at `origin`.
    fn enter(&self, panels: &mut [f32], rows: usize, origin: (usize, usize)) {
        self.left.check();
        self.right.check();
        assert_eq!(self.left.cols, self.right.rows, "inner axes agree");
        let (from, to) = (origin.0.max(self.row), (origin.0 + rows).min(self.row + self.left.rows));
        let mut lanes = vec![[0.0; WIDTH]; self.right.rows];
        for (index, panel) in panels.chunks_exact_mut((rows * WIDTH).max(1)).enumerate() {
            let first = origin.1 + index * WIDTH;
            if from >= to || first + WIDTH <= self.col || first >= self.col + self.right.cols {
                continue;
            }
            for (row, lanes) in lanes.iter_mut().enumerate() {
                for (lane, value) in lanes.iter_mut().enumerate() {
                    let col = (first + lane).checked_sub(self.col).filter(|col| *col < self.right.cols);
                    *value =
                        col.map_or(0.0, |col| self.right.data[row * self.right.row_step + col * self.right.col_step]);
                }
            }
            let panel = &mut panel[(from - origin.0) * WIDTH..(to - origin.0) * WIDTH];
            let out = Out { start: panel.as_mut_ptr(), stride: WIDTH };
            let left = self.left.rows(from - self.row, to - from);
            column_of_tiles(out, left, 0, &lanes, Edge { width: WIDTH, add: true, scale: self.scale });
        }
    }
}

vectorized! {
    fn pack_panels(panels: &mut [f32], b: Operand) {
        let rows = b.rows;
        if b.col_step == 1 {
            for row in 0..rows {
                let from = &b.data[row * b.row_step..][..b.cols];
                let (whole, rest) = from.as_chunks::<WIDTH>();
                for (panel, values) in whole.iter().enumerate() {
                    panels[(panel * rows + row) * WIDTH..][..WIDTH].copy_from_slice(values);
                }
                if !rest.is_empty() {
                    let to = &mut panels[(whole.len() * rows + row) * WIDTH..][..WIDTH];
                    to[..rest.len()].copy_from_slice(rest);
                    to[rest.len()..].fill(0.0);
                }
            }
            return;
        }
        for (index, panel) in panels.chunks_exact_mut(rows * WIDTH).enumerate() {
            let first = index * WIDTH;
            let lanes = panel.as_chunks_mut::<WIDTH>().0;
            if b.row_step == 1 && first + WIDTH <= b.cols {
                let columns: [&[f32]; WIDTH] = std::array::from_fn(|i| &b.data[(first + i) * b.col_step..][..rows]);
                for (row, lanes) in lanes.iter_mut().enumerate() {
                    *lanes = std::array::from_fn(|i| columns[i][row]);
                }
            } else {
                let count = WIDTH.min(b.cols - first);
                for (row, lanes) in lanes.iter_mut().enumerate() {
                    for (i, lane) in lanes.iter_mut().enumerate() {
                        let at = row * b.row_step + (first + i) * b.col_step;
                        *lane = if i < count { b.data[at] } else { 0.0 };
                    }
                }
            }
        }
    }
}

/// A destination that several tasks write, each its own rows and columns.
#[derive(Clone, Copy)]
struct Out {
    start: *mut f32,
    stride: usize,
}
impl Out {
    /// The part that begins at this row and column.
    #[inline(always)]
    fn from(self, row: usize, column: usize) -> Self {
        Self { start: self.start.wrapping_add(row * self.stride + column), ..self }
    }
}
// SAFETY: tasks write disjoint elements; see `multiply_block`.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// `out[a.rows, cols] (+)= scale · a · b` for the first `a.cols` rows and `cols` columns of a packed `b`.
pub(crate) fn multiply(out: &mut [f32], stride: usize, a: Operand, b: &Panels, cols: usize, how: Into) {
    a.check();
    assert!(a.cols <= b.rows && cols <= b.cols, "inner axes agree");
    if a.rows == 0 || cols == 0 {
        return;
    }
    assert!(cols <= stride && (a.rows - 1) * stride + cols <= out.len(), "the product fits its destination");
    let out = Out { start: out.as_mut_ptr(), stride };
    let panels = cols.div_ceil(WIDTH);
    if !how.parallel {
        return multiply_block(out, a, b, (0, panels), cols, how);
    }
    let task_rows = (TASK_VALUES / a.cols.max(1) / HEIGHT).clamp(8, 32) * HEIGHT;
    let row_blocks = a.rows.div_ceil(task_rows);
    let taken = if row_blocks >= 8 { panels } else { TASK_PANELS };
    let column_blocks = panels.div_ceil(taken);
    (0..row_blocks * column_blocks).into_par_iter().for_each(|task| {
        let (row, panel) = (task % row_blocks * task_rows, task / row_blocks * taken);
        let rows = a.rows(row, task_rows.min(a.rows - row));
        multiply_block(out.from(row, 0), rows, b, (panel, panels.min(panel + taken)), cols, how);
    });
}

/// All rows of `a` against panels `first..last`. The caller made sure that `out` has `a.rows` rows of at least `cols`
/// values, and that no other task writes those columns of those rows.
fn multiply_block(out: Out, a: Operand, b: &Panels, (first, last): (usize, usize), cols: usize, how: Into) {
    for panel in first..last {
        let width = WIDTH.min(cols - panel * WIDTH);
        let out = out.from(0, panel * WIDTH);
        let mut start = 0;
        loop {
            let depth = DEPTH.min(a.cols - start);
            let lanes = &b.panel(panel, start + depth)[start..];
            let edge = Edge { width, add: how.add || start > 0, scale: how.scale };
            column_of_tiles(out, a, start, lanes, edge);
            start += depth;
            if start >= a.cols {
                break;
            }
        }
    }
}

/// How a tile enters its destination; the first `width` of its columns count.
#[derive(Clone, Copy)]
struct Edge {
    width: usize,
    add: bool,
    scale: f32,
}

vectorized! {
    /// Every row of `a`, from column `start` on, against one panel.
    fn column_of_tiles(out: Out, a: Operand, start: usize, lanes: &[[f32; WIDTH]], edge: Edge) {
        let mut row = 0;
        while row < a.rows {
            let height = HEIGHT.min(a.rows - row);
            // SAFETY: `Operand::check` keeps row `row + height - 1` and column `start + lanes.len() - 1` inside the
            // data, and the caller of `multiply_block` keeps rows of `width` values inside the destination.
            unsafe {
                let from = a.data.as_ptr().add(row * a.row_step + start * a.col_step);
                let to = out.from(row, 0);
                let steps = (a.row_step, a.col_step);
                match height {
                    HEIGHT => tile::<HEIGHT>(to, from, steps, lanes, edge),
                    5 => tile::<5>(to, from, steps, lanes, edge),
                    4 => tile::<4>(to, from, steps, lanes, edge),
                    3 => tile::<3>(to, from, steps, lanes, edge),
                    2 => tile::<2>(to, from, steps, lanes, edge),
                    _ => tile::<1>(to, from, steps, lanes, edge),
                }
            }
            row += height;
        }
    }
}

/// `M` rows against one panel.
///
/// # Safety
/// `from` must be readable at `row · steps.0 + k · steps.1` for each row below `M` and k below `lanes.len()`; `out` must
/// be writable in `M` rows of `width`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indexed, the loops unroll and the sums stay in registers")]
unsafe fn tile<const M: usize>(
    out: Out,
    from: *const f32,
    steps: (usize, usize),
    lanes: &[[f32; WIDTH]],
    Edge { width, add, scale }: Edge,
) {
    let mut sums = [[0.0_f32; WIDTH]; M];
    let mut column = from;
    for lanes in lanes {
        for row in 0..M {
            // SAFETY: the caller's promise.
            let value = unsafe { *column.add(row * steps.0) };
            for lane in 0..WIDTH {
                sums[row][lane] = value.mul_add(lanes[lane], sums[row][lane]);
            }
        }
        column = column.wrapping_add(steps.1);
    }
    if width < WIDTH {
        for (row, sums) in sums.iter().enumerate() {
            // SAFETY: the caller's promise; no other reference to these values exists while the product runs.
            let to = unsafe { std::slice::from_raw_parts_mut(out.from(row, 0).start, width) };
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum.mul_add(scale, if add { *to } else { 0.0 }));
        }
        return;
    }
    for row in 0..M {
        // SAFETY: as above, with a whole row of the tile.
        let to = unsafe { &mut *out.from(row, 0).start.cast::<[f32; WIDTH]>() };
        let before = if add { *to } else { [0.0; WIDTH] };
        for lane in 0..WIDTH {
            to[lane] = sums[row][lane].mul_add(scale, before[lane]);
        }
    }
}

thread_local! {
    static PACKED: Cell<Panels> = const { Cell::new(Panels { data: Vec::new(), rows: 0, cols: 0 }) };
}

/// `out[a.rows, b.cols] (+)= scale · a · b`; `stride` values from row to row of `out`.
pub(crate) fn product(out: &mut [f32], stride: usize, a: Operand, b: Operand, how: Into) {
    product_with(out, stride, a, b, &[], how);
}

/// [`product`] with `b` plus its gains.
pub(crate) fn product_with(out: &mut [f32], stride: usize, a: Operand, b: Operand, gains: &[Gain], how: Into) {
    assert_eq!(a.cols, b.rows, "inner axes agree");
    b.check();
    // Taken out while in use: a thread that waits for its tasks may run another product.
    let mut panels = PACKED.take();
    let depth = b.rows.clamp(1, LONGEST_PACKED);
    let columns = (MOST_PACKED / depth / WIDTH).max(1) * WIDTH;
    for first in (0..b.cols).step_by(columns) {
        let count = columns.min(b.cols - first);
        let mut start = 0;
        loop {
            let taken = depth.min(b.rows - start);
            panels.pack_with(b.columns(first, count).rows(start, taken), (start, first), gains, how.parallel);
            let how = Into { add: how.add || start > 0, ..how };
            multiply(&mut out[first..], stride, a.columns(start, taken), &panels, count, how);
            start += taken;
            if start >= b.rows {
                break;
            }
        }
    }
    PACKED.set(panels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::numbers;

    /// A matrix inside a larger one, either way round.
    fn operand(data: &[f32], rows: usize, cols: usize, transposed: bool) -> Operand<'_> {
        match transposed {
            true => Operand { data, rows: cols, cols: rows, row_step: rows + 3, col_step: 1 }.transposed(),
            false => Operand { data, rows, cols, row_step: cols + 3, col_step: 1 },
        }
    }

    #[test]
    fn products_of_every_shape_and_layout_agree_with_plain_sums() {
        let data = (numbers(60_000, 1), numbers(60_000, 2));
        for (rows, depth, cols) in [(1, 1, 1), (6, 16, 16), (7, 193, 17), (100, 5, 130), (13, 400, 65), (97, 64, 33)] {
            for case in 0..8 {
                let (a_t, b_t, add) = (case & 1 > 0, case & 2 > 0, case & 4 > 0);
                let (a, b) = (operand(&data.0, rows, depth, a_t), operand(&data.1, depth, cols, b_t));
                let stride = cols + 2;
                let before = numbers(rows * stride, 3);
                let mut out = before.clone();
                product(&mut out, stride, a, b, Into { add, scale: 0.5, parallel: true });
                for (index, (out, before)) in out.iter().zip(&before).enumerate() {
                    let (row, col) = (index / stride, index % stride);
                    let at = |m: Operand, row, col| f64::from(m.data[row * m.row_step + col * m.col_step]);
                    let sum: f64 = (0..depth).map(|k| at(a, row, k) * at(b, k, col.min(cols - 1))).sum();
                    let kept = if add || col >= cols { f64::from(*before) } else { 0.0 };
                    let expected = if col < cols { kept + 0.5 * sum } else { kept };
                    assert!((f64::from(*out) - expected).abs() < 1e-4, "{rows} × {depth} × {cols}, case {case}");
                }
            }
        }
    }

    #[test]
    fn an_operand_that_gains_a_product_is_the_sum_of_both() {
        let (depth, cols, rank) = (70, 90, 5);
        let (x, w, small) = (numbers(9 * depth, 1), numbers(depth * cols, 2), numbers(1000, 3));
        let plain = |data, rows, cols| Operand { data, rows, cols, row_step: cols, col_step: 1 };
        let gain =
            Gain { left: plain(&small, 30, rank), right: plain(&small[150..], rank, 41), row: 11, col: 23, scale: 0.5 };
        let mut sum = w.clone();
        for (row, col) in (0..30).flat_map(|row| (0..41).map(move |col| (row, col))) {
            let product: f32 = (0..rank).map(|r| small[row * rank + r] * small[150 + r * 41 + col]).sum();
            sum[(row + 11) * cols + col + 23] += 0.5 * product;
        }
        let how = Into { add: false, scale: 1.0, parallel: true };
        let (mut ours, mut plainly) = (vec![0.0; 9 * cols], vec![0.0; 9 * cols]);
        product_with(&mut ours, cols, plain(&x, 9, depth), plain(&w, depth, cols), &[gain], how);
        product(&mut plainly, cols, plain(&x, 9, depth), plain(&sum, depth, cols), how);
        assert!(ours.iter().zip(&plainly).all(|(a, b)| (a - b).abs() < 1e-4));
        let (y, mut ours, mut plainly) = (numbers(9 * cols, 4), vec![0.0; 9 * depth], vec![0.0; 9 * depth]);
        let turned = plain(&w, depth, cols).transposed();
        product_with(&mut ours, depth, plain(&y, 9, cols), turned, &[gain.transposed()], how);
        product(&mut plainly, depth, plain(&y, 9, cols), plain(&sum, depth, cols).transposed(), how);
        assert!(ours.iter().zip(&plainly).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_row_depends_neither_on_its_companions_nor_on_threads_nor_on_zeros_behind() {
        let (depth, cols) = (500, 700);
        let (x, w) = (numbers(200 * depth, 1), numbers(depth * cols, 2));
        let b = Operand { data: &w, rows: depth, cols, row_step: cols, col_step: 1 };
        let a = |rows, cols| Operand { data: &x, rows, cols, row_step: depth, col_step: 1 };
        let how = Into { add: false, scale: 1.0, parallel: true };
        let mut all = vec![0.0; 200 * cols];
        product(&mut all, cols, a(200, depth), b, how);
        for rows in [1, 5, 31] {
            let mut few = vec![0.0; rows * cols];
            product(&mut few, cols, a(rows, depth), b, Into { parallel: false, ..how });
            assert_eq!(few, all[..rows * cols]);
        }
        let padded: Vec<f32> = x[..300].iter().copied().chain([0.0; 200]).collect();
        let (mut short, mut long) = (vec![0.0; cols], vec![0.0; cols]);
        product(&mut short, cols, a(1, 300), b.rows(0, 300), how);
        product(&mut long, cols, Operand { data: &padded, ..a(1, depth) }, b, how);
        assert_eq!(short, long);
    }
}
