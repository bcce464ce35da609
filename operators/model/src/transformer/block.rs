//! One decoder block on packed rows: forward with what the backward pass needs, and backward.
//!
//! Norm outputs and the feed-forward activation are computed again in the backward pass instead of being kept.

use super::{
    Decoder, Packed, attention,
    linear::{self, ADD, SET, View},
    lora::Lora,
    memory::Buffer,
    norm, swiglu,
    vector::add,
};

/// What a backward pass needs of each block.
#[derive(Debug, Default)]
pub struct Tape {
    pub(crate) blocks: Vec<Saved>,
}

#[derive(Debug)]
pub(crate) struct Saved {
    input: Buffer,         // [rows, hidden]
    input_rms: Vec<f32>,   // [rows]
    qkv: Buffer,           // [rows, q | k | v], turned
    attended: Buffer,      // [rows, heads · head_dim]
    log_sum_exp: Vec<f32>, // [rows, heads]
    middle: Buffer,        // [rows, hidden]
    middle_rms: Vec<f32>,  // [rows]
    gate_up: Buffer,       // [rows, gate | up]
}

impl Decoder {
    /// `x` `[rows, hidden]` in place. `keep` takes what the backward pass needs; `seen` is shown the keys and values.
    pub(crate) fn block_forward(
        &self,
        layer: usize,
        x: &mut [f32],
        packed: &Packed,
        positions: &[usize],
        lora: Option<&Lora>,
    ) -> Saved {
        let (config, rows) = (&self.config, packed.rows());
        let (hidden, inner, heads) = (config.hidden, config.intermediate, self.heads());
        let input = self.memory.copy(x);
        let mut normed = self.memory.take(rows * hidden);
        let input_rms = norm::forward(&mut normed, x, self.vector(layer, "input_layernorm"), config.rms_eps as f32);
        let mut qkv = self.memory.take(rows * heads.qkv_width());
        self.linear(layer, 0..3, lora, &mut qkv, View::new(&normed, rows, hidden), false);
        self.rotary.apply(&mut qkv, heads.qkv_width(), heads.heads + heads.kv_heads, positions, false);
        let mut attended = self.memory.take(rows * heads.q_width());
        let log_sum_exp = attention::forward(&mut attended, &qkv, packed, heads);
        self.linear(layer, 3..4, lora, x, View::new(&attended, rows, heads.q_width()), true);
        let middle = self.memory.copy(x);
        let weight = self.vector(layer, "post_attention_layernorm");
        let middle_rms = norm::forward(&mut normed, x, weight, config.rms_eps as f32);
        let mut gate_up = self.memory.take(rows * 2 * inner);
        self.linear(layer, 4..6, lora, &mut gate_up, View::new(&normed, rows, hidden), false);
        let mut active = self.memory.take(rows * inner);
        swiglu::forward(&mut active, &gate_up, inner);
        self.linear(layer, 6..7, lora, x, View::new(&active, rows, inner), true);
        Saved { input, input_rms, qkv, attended, log_sum_exp, middle, middle_rms, gate_up }
    }

    /// Adjacent linear layers as one product, and the small matrices beside them.
    fn linear(
        &self,
        layer: usize,
        of: std::ops::Range<usize>,
        lora: Option<&Lora>,
        y: &mut [f32],
        x: View,
        keep: bool,
    ) {
        let weight = self.matrix(layer, of.clone());
        let parts = lora.map_or(Vec::new(), |lora| lora.parts(layer, &self.widths(of)));
        let gains = lora.map_or(Vec::new(), |lora| lora.gains(&parts, weight.cols));
        linear::forward_with(y, x, weight, &gains, if keep { ADD } else { SET });
    }

    /// Gradients of adjacent linear layers: into the small matrices, or into the weights themselves where `lora` is none.
    #[expect(clippy::too_many_arguments, reason = "a backward product has this many operands")]
    fn linear_backward(
        &self,
        layer: usize,
        of: std::ops::Range<usize>,
        lora: Option<&Lora>,
        grads: &mut [f32],
        dy: &[f32],
        x: View,
        wants_input: bool,
    ) -> Buffer {
        let weight = self.matrix(layer, of.clone());
        let parts = lora.map_or(Vec::new(), |lora| lora.parts(layer, &self.widths(of.clone())));
        let dy_view = View::new(dy, x.rows, weight.rows);
        let mut dx = self.memory.take(if wants_input { x.rows * x.cols } else { 0 });
        if wants_input {
            let gains = lora.map_or(Vec::new(), |lora| lora.gains(&parts, weight.cols));
            linear::backward_input_with(&mut dx, dy_view, weight, &gains, SET);
        }
        match lora {
            Some(lora) => lora.add_backward(&parts, grads, (dy, weight.rows), x),
            None => linear::backward_weight(&mut grads[self.matrix_range(layer, of)], dy_view, x, ADD),
        }
        dx
    }

    /// Turns the gradient of the block's result, `dx`, into that of its input.
    pub(crate) fn block_backward(
        &self,
        layer: usize,
        dx: &mut [f32],
        saved: Saved,
        (packed, positions): (&Packed, &[usize]),
        lora: Option<&Lora>,
        grads: &mut [f32],
    ) {
        let (config, rows) = (&self.config, packed.rows());
        let (hidden, inner, heads) = (config.hidden, config.intermediate, self.heads());
        let mut gate_up = saved.gate_up;
        let mut active = self.memory.take(rows * inner);
        swiglu::forward(&mut active, &gate_up, inner);
        let d_active = self.linear_backward(layer, 6..7, lora, grads, dx, View::new(&active, rows, inner), true);
        swiglu::backward(&mut gate_up, &d_active, inner);
        let mut normed = self.memory.take(rows * hidden);
        let weight = self.vector(layer, "post_attention_layernorm");
        norm::forward(&mut normed, &saved.middle, weight, config.rms_eps as f32);
        let d_normed = self.linear_backward(layer, 4..6, lora, grads, &gate_up, View::new(&normed, rows, hidden), true);
        norm::backward(dx, &d_normed, &saved.middle, weight, &saved.middle_rms);
        if lora.is_none() {
            let place = &mut grads[self.vector_range(layer, "post_attention_layernorm")];
            norm::backward_weight(place, &d_normed, &saved.middle, &saved.middle_rms);
        }
        let attended = View::new(&saved.attended, rows, heads.q_width());
        let d_attended = self.linear_backward(layer, 3..4, lora, grads, dx, attended, true);
        let mut d_qkv = self.memory.take(rows * heads.qkv_width());
        let kept = (&saved.attended[..], &saved.log_sum_exp[..], &saved.qkv[..]);
        attention::backward(&mut d_qkv, &d_attended, kept, packed, heads);
        self.rotary.apply(&mut d_qkv, heads.qkv_width(), heads.heads + heads.kv_heads, positions, true);
        let weight = self.vector(layer, "input_layernorm");
        norm::forward(&mut normed, &saved.input, weight, config.rms_eps as f32);
        let below = lora.is_none() || layer > 0; // nothing below the first adapted block learns
        let d_normed = self.linear_backward(layer, 0..3, lora, grads, &d_qkv, View::new(&normed, rows, hidden), below);
        if below {
            norm::backward(dx, &d_normed, &saved.input, weight, &saved.input_rms);
        }
        if lora.is_none() {
            let place = &mut grads[self.vector_range(layer, "input_layernorm")];
            norm::backward_weight(place, &d_normed, &saved.input, &saved.input_rms);
        }
    }

    /// Gradient of the embedding rows, added in row order.
    pub(crate) fn embedding_backward(&self, dx: &[f32], packed: &Packed, grads: &mut [f32]) {
        let hidden = self.config.hidden;
        for (token, row) in packed.tokens().iter().zip(dx.chunks_exact(hidden)) {
            add(&mut grads[*token as usize * hidden..][..hidden], row);
        }
    }

    /// The keys and values that a block computed.
    pub(crate) fn keys_of(saved: &Saved) -> &[f32] {
        &saved.qkv
    }
}
