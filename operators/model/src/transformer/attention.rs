//! Causal attention of packed sequences with grouped heads, forward and backward.
//!
//! A task takes a segment and the heads that share a key head. Queries go in blocks, so memory grows with the length and
//! not with its square; the backward pass recomputes the probabilities from each row's log-sum-exp. Products add over
//! keys in the order of their positions, so a row's result does not depend on whether its prefix is shared.
//!
//! Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for grouped heads; Dao et al. 2022 for the backward pass.

use rayon::prelude::*;

use super::{
    linear::{Into, View},
    packed::{Packed, Segment},
    product::{Panels, multiply},
    vector::{add, dot, exp, exp_and_sum, max, vectorized},
};

/// Heads of one attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Values a row of q, k and v side by side: `[q | k | v]`.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
    fn k_start(&self, kv_head: usize) -> usize {
        (self.heads + kv_head) * self.head_dim
    }
    fn v_start(&self, kv_head: usize) -> usize {
        (self.heads + self.kv_heads + kv_head) * self.head_dim
    }
}

const BLOCK_ROWS: usize = 96; // rows of scores at once: 96 × 1,024 keys fit the second-level cache
const FEW_TASKS: usize = 16; // with fewer than this, heads that share a key head are tasks of their own
const SET: Into = Into { add: false, scale: 1.0, parallel: false };
const ADD: Into = Into { add: true, scale: 1.0, parallel: false };

/// Query heads `first..first + count`, which share a key head, of one segment or group of segments.
#[derive(Clone, Copy, Debug)]
struct Task {
    of: usize,
    first: usize,
    count: usize,
    kv_head: usize,
}

fn tasks(of: usize, shape: Heads) -> Vec<Task> {
    let count = if of * shape.kv_heads < FEW_TASKS { 1 } else { shape.group() };
    let heads = (0..shape.heads).step_by(count);
    let of_heads = |of| heads.clone().map(move |first| Task { of, first, count, kv_head: first / shape.group() });
    (0..of).flat_map(of_heads).collect()
}

/// Values from row to row of `seen` scores: an odd number of cache lines, so that a column's lines spread over the cache.
fn padded(seen: usize) -> usize {
    (seen.div_ceil(16) | 1) * 16
}

/// Copies columns `start..start + width` of the given rows, `stride` apart, to the end of `to`.
fn gather(to: &mut Vec<f32>, from: &[f32], stride: usize, segment: &Segment, start: usize, width: usize) {
    for row in segment.first..segment.first + segment.len {
        to.extend_from_slice(&from[row * stride + start..][..width]);
    }
}

/// The keys a segment sees: its parent's, then its own.
fn sources<'a>(packed: &'a Packed, segment: &'a Segment) -> impl Iterator<Item = &'a Segment> {
    segment.parent.map(|parent| &packed.segments()[parent]).into_iter().chain(std::iter::once(segment))
}

/// Keys and values that a segment sees, each `[keys, head_dim]`.
fn keys_and_values(qkv: &[f32], packed: &Packed, own: &Segment, kv_head: usize, shape: Heads) -> (Vec<f32>, Vec<f32>) {
    let (dim, total) = (shape.head_dim, own.position + own.len);
    let (mut keys, mut values) = (Vec::with_capacity(total * dim), Vec::with_capacity(total * dim));
    for source in sources(packed, own) {
        gather(&mut keys, qkv, shape.qkv_width(), source, shape.k_start(kv_head), dim);
        gather(&mut values, qkv, shape.qkv_width(), source, shape.v_start(kv_head), dim);
    }
    (keys, values)
}

/// Blocks of a segment's queries: the block, and how many queries come before it.
fn blocks(own: Segment, count: usize) -> impl Iterator<Item = (Segment, usize)> {
    let queries = (BLOCK_ROWS / count).max(1);
    (0..own.len)
        .step_by(queries)
        .map(move |start| (Segment { first: own.first + start, len: queries.min(own.len - start), ..own }, start))
}

/// Attends each row of `qkv` `[rows, q | k | v]` into `out` `[rows, heads · head_dim]`. Returns the log-sum-exp of each
/// row's scores `[rows, heads]`.
pub(crate) fn forward(out: &mut [f32], qkv: &[f32], packed: &Packed, shape: Heads) -> Vec<f32> {
    let dim = shape.head_dim;
    let results: Vec<(Task, Vec<f32>, Vec<f32>)> = tasks(packed.segments().len(), shape)
        .into_par_iter()
        .with_max_len(1)
        .map(|task| {
            let (out, lse) = segment_forward(qkv, packed, task, shape);
            (task, out, lse)
        })
        .collect();
    let mut lse = vec![0.0; packed.rows() * shape.heads];
    for (task, part, part_lse) in results {
        let segment = &packed.segments()[task.of];
        for row in 0..segment.len {
            let width = task.count * dim;
            let place = (segment.first + row) * shape.q_width() + task.first * dim;
            out[place..][..width].copy_from_slice(&part[row * width..][..width]);
            let place = (segment.first + row) * shape.heads + task.first;
            lse[place..][..task.count].copy_from_slice(&part_lse[row * task.count..][..task.count]);
        }
    }
    lse
}

fn segment_forward(qkv: &[f32], packed: &Packed, task: Task, shape: Heads) -> (Vec<f32>, Vec<f32>) {
    let (dim, count, own) = (shape.head_dim, task.count, &packed.segments()[task.of]);
    let (keys, values) = keys_and_values(qkv, packed, own, task.kv_head, shape);
    let total = own.position + own.len;
    let (mut key_panels, mut value_panels) = (Panels::default(), Panels::default());
    key_panels.pack(View::new(&keys, total, dim).operand().transposed(), false);
    value_panels.pack(View::new(&values, total, dim).operand(), false);
    let mut out = vec![0.0; own.len * count * dim]; // [len, count, head_dim]
    let mut lse = vec![0.0; own.len * count];
    let mut queries = Vec::new(); // [block · count, head_dim]
    let mut scores = vec![0.0; BLOCK_ROWS.max(count).min(own.len * count) * padded(total)];
    for (block, start) in blocks(*own, count) {
        let (rows, seen) = (block.len * count, own.position + start + block.len);
        queries.clear();
        gather(&mut queries, qkv, shape.qkv_width(), &block, task.first * dim, count * dim);
        let q = View::new(&queries, rows, dim).operand();
        let stride = padded(seen);
        multiply(&mut scores, stride, q, &key_panels, seen, Into { scale: shape.scale(), ..SET });
        for (row, scores) in scores.chunks_exact_mut(stride).take(rows).enumerate() {
            let visible = own.position + start + row / count + 1;
            lse[start * count + row] = soften(&mut scores[..seen], visible);
        }
        let p = View { data: &scores, rows, cols: seen, stride };
        multiply(&mut out[start * count * dim..], dim, p.operand(), &value_panels, dim, SET);
    }
    (out, lse)
}

vectorized! {
    /// Softmax of the first `visible` scores, zero behind; returns their log-sum-exp.
    fn soften(scores: &mut [f32], visible: usize) -> f32 {
        let (seen, hidden) = scores.split_at_mut(visible);
        hidden.fill(0.0);
        let top = max(seen);
        let total = exp_and_sum(seen, top);
        let inverse = 1.0 / total;
        for p in seen {
            *p *= inverse;
        }
        top + total.ln()
    }
}

vectorized! {
    /// Scores `p` become probabilities, and their gradients `d_s` those of the scores; both zero behind `visible`.
    fn soften_backward(p: &mut [f32], d_s: &mut [f32], visible: usize, norm: f32, o: &[f32], d_o: &[f32], scale: f32) {
        let inner = dot(o, d_o);
        for (p, d_s) in p[..visible].iter_mut().zip(&mut d_s[..visible]) {
            *p = exp(*p - norm);
            *d_s = *p * (*d_s - inner) * scale;
        }
        p[visible..].fill(0.0);
        d_s[visible..].fill(0.0);
    }
}

/// The gradient `d_qkv` in `qkv` `[rows, q | k | v]`, given that in the result; `kept` is the result, its log-sum-exp, and
/// `qkv`.
pub(crate) fn backward(
    d_qkv: &mut [f32],
    d_out: &[f32],
    kept: (&[f32], &[f32], &[f32]),
    packed: &Packed,
    shape: Heads,
) {
    let (dim, stride) = (shape.head_dim, shape.qkv_width());
    let results: Vec<(Task, Gradients)> = tasks(packed.groups().len(), shape)
        .into_par_iter()
        .with_max_len(1)
        .map(|task| {
            let segments = packed.groups()[task.of].clone();
            let first = packed.segments()[segments.start].first;
            let last = packed.segments()[segments.end - 1];
            let rows = last.first + last.len - first;
            let (q, k, v) = (vec![0.0; rows * task.count * dim], vec![0.0; rows * dim], vec![0.0; rows * dim]);
            let mut part = Gradients { first, q, k, v };
            for segment in segments {
                let own = &packed.segments()[segment];
                segment_backward(&mut part, d_out, kept, packed, own, (task, shape));
            }
            (task, part)
        })
        .collect();
    d_qkv.fill(0.0);
    for (task, part) in results {
        let width = task.count * dim;
        for row in 0..part.k.len() / dim {
            let place = &mut d_qkv[(part.first + row) * stride..][..stride];
            place[task.first * dim..][..width].copy_from_slice(&part.q[row * width..][..width]);
            add(&mut place[shape.k_start(task.kv_head)..][..dim], &part.k[row * dim..][..dim]);
            add(&mut place[shape.v_start(task.kv_head)..][..dim], &part.v[row * dim..][..dim]);
        }
    }
}

/// Gradients of one task, rows from `first` on.
struct Gradients {
    first: usize,
    q: Vec<f32>, // [rows, count, head_dim]
    k: Vec<f32>, // [rows, head_dim]
    v: Vec<f32>,
}

fn segment_backward(
    part: &mut Gradients,
    d_out: &[f32],
    (out, lse, qkv): (&[f32], &[f32], &[f32]),
    packed: &Packed,
    own: &Segment,
    (task, shape): (Task, Heads),
) {
    let (dim, count, width) = (shape.head_dim, task.count, shape.q_width());
    let (keys, values) = keys_and_values(qkv, packed, own, task.kv_head, shape);
    let total = own.position + own.len;
    let (k_view, v_view) = (View::new(&keys, total, dim).operand(), View::new(&values, total, dim).operand());
    let mut panels: [Panels; 5] = Default::default(); // kᵀ, k, vᵀ; of each block, q and d_o
    panels[0].pack(k_view.transposed(), false);
    panels[1].pack(k_view, false);
    panels[2].pack(v_view.transposed(), false);
    let (mut d_keys, mut d_values) = (vec![0.0; total * dim], vec![0.0; total * dim]);
    let size = BLOCK_ROWS.max(count).min(own.len * count) * padded(total);
    let (mut p, mut d_s) = (vec![0.0; size], vec![0.0; size]);
    let (mut q, mut o, mut d_o) = (Vec::new(), Vec::new(), Vec::new()); // each [block · count, head_dim]
    for (block, start) in blocks(*own, count) {
        [&mut q, &mut o, &mut d_o].into_iter().for_each(Vec::clear);
        gather(&mut q, qkv, shape.qkv_width(), &block, task.first * dim, count * dim);
        gather(&mut o, out, width, &block, task.first * dim, count * dim);
        gather(&mut d_o, d_out, width, &block, task.first * dim, count * dim);
        let (rows, seen) = (block.len * count, own.position + start + block.len);
        let stride = padded(seen);
        let (q_view, d_o_view) = (View::new(&q, rows, dim).operand(), View::new(&d_o, rows, dim).operand());
        multiply(&mut p, stride, q_view, &panels[0], seen, Into { scale: shape.scale(), ..SET });
        multiply(&mut d_s, stride, d_o_view, &panels[2], seen, SET);
        for row in 0..rows {
            let visible = own.position + start + row / count + 1;
            let norm = lse[(block.first + row / count) * shape.heads + task.first + row % count];
            let (p, d_s) = (&mut p[row * stride..][..seen], &mut d_s[row * stride..][..seen]);
            let (o, d_o) = (&o[row * dim..][..dim], &d_o[row * dim..][..dim]);
            soften_backward(p, d_s, visible, norm, o, d_o, shape.scale());
        }
        let p = View { data: &p, rows, cols: seen, stride }.operand();
        let d_s = View { data: &d_s, rows, cols: seen, stride }.operand();
        let place = (block.first - part.first) * count * dim;
        multiply(&mut part.q[place..], dim, d_s, &panels[1], dim, SET);
        panels[3].pack(q_view, false);
        panels[4].pack(d_o_view, false);
        multiply(&mut d_keys, dim, d_s.transposed(), &panels[3], dim, ADD);
        multiply(&mut d_values, dim, p.transposed(), &panels[4], dim, ADD);
    }
    let mut taken = 0;
    for source in sources(packed, own) {
        let (place, size) = ((source.first - part.first) * dim, source.len * dim);
        add(&mut part.k[place..][..size], &d_keys[taken..][..size]);
        add(&mut part.v[place..][..size], &d_values[taken..][..size]);
        taken += size;
    }
}
