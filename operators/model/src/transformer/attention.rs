//! Causal attention of packed sequences with grouped heads, forward and backward.
//!
//! Work is split by group of sequences and key head. Queries go in blocks, so memory grows with the length and not with
//! its square; the backward pass recomputes the probabilities from each row's log-sum-exp.
//!
//! Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for grouped heads; Dao et al. 2022 for the backward pass.

use rayon::prelude::*;

use super::{
    linear::{self, Into, View},
    packed::{Packed, Segment},
    vector::{dot, exp, exp_and_sum, max, vectorized},
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

const QUERY_BLOCK: usize = 64; // queries at once: scores of 3 heads × 64 × 1,024 keys fit the second-level cache
const ALONE: Into = Into { add: false, scale: 1.0, parallel: false };
const ALONE_ADD: Into = Into { add: true, scale: 1.0, parallel: false };

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

/// Attends each row of `qkv` `[rows, q | k | v]`. Returns the result `[rows, heads · head_dim]` and the log-sum-exp of
/// each row's scores `[rows, heads]`.
pub(crate) fn forward(qkv: &[f32], packed: &Packed, shape: Heads) -> (Vec<f32>, Vec<f32>) {
    let (dim, group) = (shape.head_dim, shape.group());
    let results: Vec<(usize, usize, Vec<f32>, Vec<f32>)> = tasks(packed, shape)
        .into_par_iter()
        .map(|(index, kv_head)| {
            let (out, lse) = segment_forward(qkv, packed, &packed.segments()[index], kv_head, shape);
            (index, kv_head, out, lse)
        })
        .collect();
    let mut out = vec![0.0; packed.rows() * shape.q_width()];
    let mut lse = vec![0.0; packed.rows() * shape.heads];
    for (index, kv_head, part, part_lse) in results {
        let segment = &packed.segments()[index];
        for row in 0..segment.len {
            let place = (segment.first + row) * shape.q_width() + kv_head * group * dim;
            out[place..][..group * dim].copy_from_slice(&part[row * group * dim..][..group * dim]);
            let place = (segment.first + row) * shape.heads + kv_head * group;
            lse[place..][..group].copy_from_slice(&part_lse[row * group..][..group]);
        }
    }
    (out, lse)
}

fn tasks(packed: &Packed, shape: Heads) -> Vec<(usize, usize)> {
    (0..packed.segments().len()).flat_map(|segment| (0..shape.kv_heads).map(move |head| (segment, head))).collect()
}

fn segment_forward(qkv: &[f32], packed: &Packed, own: &Segment, kv_head: usize, shape: Heads) -> (Vec<f32>, Vec<f32>) {
    let (dim, group, stride) = (shape.head_dim, shape.group(), shape.qkv_width());
    let keys_total = own.position + own.len;
    let (mut keys, mut values) = (Vec::with_capacity(keys_total * dim), Vec::with_capacity(keys_total * dim));
    for source in sources(packed, own) {
        gather(&mut keys, qkv, stride, source, shape.k_start(kv_head), dim);
        gather(&mut values, qkv, stride, source, shape.v_start(kv_head), dim);
    }
    let mut out = vec![0.0; own.len * group * dim]; // [len, group, head_dim]
    let mut lse = vec![0.0; own.len * group];
    for start in (0..own.len).step_by(QUERY_BLOCK) {
        let count = QUERY_BLOCK.min(own.len - start);
        let block = Segment { first: own.first + start, len: count, ..*own };
        let mut queries = Vec::with_capacity(count * group * dim); // [count · group, head_dim]
        gather(&mut queries, qkv, stride, &block, kv_head * group * dim, group * dim);
        let seen = own.position + start + count;
        let mut scores = vec![0.0; count * group * seen];
        let q = View::new(&queries, count * group, dim);
        linear::forward(&mut scores, seen, q, View::new(&keys, seen, dim), Into { scale: shape.scale(), ..ALONE });
        for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
            let visible = own.position + start + row / group + 1;
            lse[start * group + row] = soften(scores, visible);
        }
        let place = &mut out[start * group * dim..][..count * group * dim];
        let p = View::new(&scores, count * group, seen);
        linear::backward_input(place, dim, p, View::new(&values, seen, dim), ALONE);
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

/// The gradient in `qkv` `[rows, q | k | v]`, given that in the result.
pub(crate) fn backward(
    d_out: &[f32],
    out: &[f32],
    lse: &[f32],
    qkv: &[f32],
    packed: &Packed,
    shape: Heads,
) -> Vec<f32> {
    let (dim, group, stride) = (shape.head_dim, shape.group(), shape.qkv_width());
    let tasks: Vec<(usize, usize)> =
        (0..packed.groups().len()).flat_map(|g| (0..shape.kv_heads).map(move |head| (g, head))).collect();
    let results: Vec<_> = tasks
        .into_par_iter()
        .map(|(index, kv_head)| {
            let segments = packed.groups()[index].clone();
            let first = packed.segments()[segments.start].first;
            let last = packed.segments()[segments.end - 1];
            let rows = last.first + last.len - first;
            let mut part = Gradients {
                first,
                q: vec![0.0; rows * group * dim],
                k: vec![0.0; rows * dim],
                v: vec![0.0; rows * dim],
            };
            for segment in segments {
                let own = &packed.segments()[segment];
                segment_backward(&mut part, (d_out, out, lse, qkv), packed, own, kv_head, shape);
            }
            (kv_head, part)
        })
        .collect();
    let mut d_qkv = vec![0.0; packed.rows() * stride];
    for (kv_head, part) in results {
        for row in 0..part.k.len() / dim {
            let place = &mut d_qkv[(part.first + row) * stride..][..stride];
            place[kv_head * group * dim..][..group * dim].copy_from_slice(&part.q[row * group * dim..][..group * dim]);
            place[shape.k_start(kv_head)..][..dim].copy_from_slice(&part.k[row * dim..][..dim]);
            place[shape.v_start(kv_head)..][..dim].copy_from_slice(&part.v[row * dim..][..dim]);
        }
    }
    d_qkv
}

/// Gradients of one group of sequences and one key head, rows from `first` on.
struct Gradients {
    first: usize,
    q: Vec<f32>, // [rows, group, head_dim]
    k: Vec<f32>, // [rows, head_dim]
    v: Vec<f32>,
}

type Saved<'a> = (&'a [f32], &'a [f32], &'a [f32], &'a [f32]);

fn segment_backward(
    part: &mut Gradients,
    (d_out, out, lse, qkv): Saved,
    packed: &Packed,
    own: &Segment,
    kv_head: usize,
    shape: Heads,
) {
    let (dim, group, stride, width) = (shape.head_dim, shape.group(), shape.qkv_width(), shape.q_width());
    let keys_total = own.position + own.len;
    let (mut keys, mut values) = (Vec::with_capacity(keys_total * dim), Vec::with_capacity(keys_total * dim));
    for source in sources(packed, own) {
        gather(&mut keys, qkv, stride, source, shape.k_start(kv_head), dim);
        gather(&mut values, qkv, stride, source, shape.v_start(kv_head), dim);
    }
    let (mut d_keys, mut d_values) = (vec![0.0; keys_total * dim], vec![0.0; keys_total * dim]);
    for start in (0..own.len).step_by(QUERY_BLOCK) {
        let count = QUERY_BLOCK.min(own.len - start);
        let block = Segment { first: own.first + start, len: count, ..*own };
        let (mut q, mut o, mut d_o) = (Vec::new(), Vec::new(), Vec::new()); // each [count · group, head_dim]
        gather(&mut q, qkv, stride, &block, kv_head * group * dim, group * dim);
        gather(&mut o, out, width, &block, kv_head * group * dim, group * dim);
        gather(&mut d_o, d_out, width, &block, kv_head * group * dim, group * dim);
        let seen = own.position + start + count;
        let rows = count * group;
        let (q_view, d_o_view) = (View::new(&q, rows, dim), View::new(&d_o, rows, dim));
        let (k_view, v_view) = (View::new(&keys, seen, dim), View::new(&values, seen, dim));
        let (mut p, mut d_s) = (vec![0.0; rows * seen], vec![0.0; rows * seen]);
        linear::forward(&mut p, seen, q_view, k_view, Into { scale: shape.scale(), ..ALONE });
        linear::forward(&mut d_s, seen, d_o_view, v_view, ALONE);
        for row in 0..rows {
            let visible = own.position + start + row / group + 1;
            let norm = lse[(block.first + row / group) * shape.heads + kv_head * group + row % group];
            let (p, d_s) = (&mut p[row * seen..][..seen], &mut d_s[row * seen..][..seen]);
            let (o, d_o) = (&o[row * dim..][..dim], &d_o[row * dim..][..dim]);
            soften_backward(p, d_s, visible, norm, o, d_o, shape.scale());
        }
        let (p, d_s) = (View::new(&p, rows, seen), View::new(&d_s, rows, seen));
        let place = (block.first - part.first) * group * dim;
        linear::backward_input(&mut part.q[place..][..rows * dim], dim, d_s, k_view, ALONE);
        linear::backward_weight(&mut d_keys[..seen * dim], d_s, q_view, ALONE_ADD);
        linear::backward_weight(&mut d_values[..seen * dim], p, d_o_view, ALONE_ADD);
    }
    let mut taken = 0;
    for source in sources(packed, own) {
        let (place, count) = ((source.first - part.first) * dim, source.len * dim);
        super::vector::add(&mut part.k[place..][..count], &d_keys[taken..][..count]);
        super::vector::add(&mut part.v[place..][..count], &d_values[taken..][..count]);
        taken += count;
    }
}
