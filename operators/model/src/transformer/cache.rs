//! Keys and values of a sequence being written, and the decoding step over several such sequences.

use rayon::prelude::*;

use super::{
    Decoder, Packed,
    linear::decode,
    norm, swiglu,
    vector::{dot, exp_and_sum, max, vectorized},
};
use crate::Result;

/// Keys and values of one sequence.
#[derive(Clone, Debug)]
pub struct Cache {
    /// By layer: `[len, k | v]`, all key heads side by side.
    layers: Vec<Vec<f32>>,
    len: usize,
}

impl Cache {
    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Decoder {
    /// Reads prompts, none empty. Returns a cache for each, and the logits after its last token `[prompts, vocab]`.
    ///
    /// # Errors
    /// Those of [`Decoder::forward`].
    pub fn read(&self, prompts: &[&[u32]]) -> Result<(Vec<Cache>, Vec<f32>)> {
        let packed = Packed::separate(prompts);
        let heads = self.heads();
        let (width, start) = (heads.qkv_width(), heads.q_width());
        let mut caches: Vec<Cache> =
            prompts.iter().map(|prompt| Cache { layers: Vec::new(), len: prompt.len() }).collect();
        let x = self.forward_with(&packed, None, |saved| {
            let qkv = Self::keys_of(&saved);
            for (cache, segment) in caches.iter_mut().zip(packed.segments()) {
                let rows = qkv[segment.first * width..][..segment.len * width].chunks_exact(width);
                cache.layers.push(rows.flat_map(|row| row[start..].iter().copied()).collect());
            }
        })?;
        let hidden = self.config.hidden;
        let last: Vec<f32> = packed
            .segments()
            .iter()
            .flat_map(|segment| x[(segment.first + segment.len - 1) * hidden..][..hidden].iter().copied())
            .collect();
        let (normed, _) = self.final_norm(&last);
        Ok((caches, self.decoded_logits(&normed)))
    }

    fn decoded_logits(&self, normed: &[f32]) -> Vec<f32> {
        let rows = normed.len() / self.config.hidden;
        let mut logits = vec![0.0; rows * self.config.vocab];
        decode(&mut logits, normed, rows, self.head());
        logits
    }

    /// Appends one token to each sequence. Returns the logits after it, `[sequences, vocab]`.
    ///
    /// # Errors
    /// [`crate::ModelError::Invalid`] for a token outside the vocabulary, or where the context is full.
    pub fn step(&self, tokens: &[u32], caches: &mut [&mut Cache]) -> Result<Vec<f32>> {
        if caches.iter().any(|cache| cache.len >= self.longest()) {
            return Err(crate::ModelError::Invalid(format!("the context of {} tokens is full", self.longest())));
        }
        let (config, heads, rows) = (&self.config, self.heads(), tokens.len());
        let (hidden, inner, eps) = (config.hidden, config.intermediate, config.rms_eps as f32);
        let positions: Vec<usize> = caches.iter().map(|cache| cache.len).collect();
        let mut x = self.embed(tokens)?;
        let mut normed = vec![0.0; rows * hidden];
        let mut qkv = vec![0.0; rows * heads.qkv_width()];
        let mut attended = vec![0.0; rows * heads.q_width()];
        let (mut gate_up, mut active) = (vec![0.0; rows * 2 * inner], vec![0.0; rows * inner]);
        let mut delta = vec![0.0; rows * hidden];
        for layer in 0..config.layers {
            norm::forward(&mut normed, &x, self.vector(layer, "input_layernorm"), eps);
            decode(&mut qkv, &normed, rows, self.matrix(layer, 0..3));
            self.rotary.apply(&mut qkv, heads.qkv_width(), heads.heads + heads.kv_heads, &positions, false);
            let work = attended.par_chunks_exact_mut(heads.q_width()).zip(qkv.par_chunks_exact(heads.qkv_width()));
            work.zip(caches.par_iter_mut()).for_each(|((out, qkv), cache)| {
                let (q, kv) = qkv.split_at(heads.q_width());
                cache.layers[layer].extend_from_slice(kv);
                look_back(out, q, &cache.layers[layer], heads);
            });
            decode(&mut delta, &attended, rows, self.matrix(layer, 3..4));
            super::vector::add(&mut x, &delta);
            norm::forward(&mut normed, &x, self.vector(layer, "post_attention_layernorm"), eps);
            decode(&mut gate_up, &normed, rows, self.matrix(layer, 4..6));
            swiglu::forward(&mut active, &gate_up, inner);
            decode(&mut delta, &active, rows, self.matrix(layer, 6..7));
            super::vector::add(&mut x, &delta);
        }
        caches.iter_mut().for_each(|cache| cache.len += 1);
        let (normed, _) = self.final_norm(&x);
        Ok(self.decoded_logits(&normed))
    }
}

/// Attention of one query row to a cache `[len, k | v]`.
fn look_back(out: &mut [f32], q: &[f32], cache: &[f32], heads: super::attention::Heads) {
    let (dim, kv_width) = (heads.head_dim, heads.kv_heads * heads.head_dim);
    let mut scores = vec![0.0; cache.len() / (2 * kv_width)];
    for head in 0..heads.heads {
        let kv = head / (heads.heads / heads.kv_heads) * dim;
        let (q, out) = (&q[head * dim..][..dim], &mut out[head * dim..][..dim]);
        look_back_head(out, &mut scores, q, (cache, 2 * kv_width, kv, kv_width + kv), heads.scale());
    }
}

vectorized! {
    /// One head; of a cache row, its width and where the head's key and value begin.
    fn look_back_head(
        out: &mut [f32],
        scores: &mut [f32],
        q: &[f32],
        cache: (&[f32], usize, usize, usize),
        scale: f32,
    ) {
        let (rows, width, key, value) = cache;
        let dim = q.len();
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(width)) {
            *score = dot(q, &row[key..][..dim]) * scale;
        }
        let top = max(scores);
        let inverse = 1.0 / exp_and_sum(scores, top);
        out.fill(0.0);
        for (score, row) in scores.iter().zip(rows.chunks_exact(width)) {
            let p = score * inverse;
            for (out, value) in out.iter_mut().zip(&row[value..][..dim]) {
                *out = p.mul_add(*value, *out);
            }
        }
    }
}
