//! The same decoder written with candle's tensors in float64, whose gradients candle derives by itself: what ours must equal.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{ops, rotary_emb};

use super::{
    Decoder, Packed, Parameters,
    lora::Lora,
    tests::{SEQUENCES, decoder, gradient, lora, loss},
};
use crate::Config;

/// Relative error of a whole gradient that float32 sums of a few hundred terms may have.
const TOLERANCE: f64 = 1e-5;

type Vars = BTreeMap<String, Var>;

fn vars(parameters: &Parameters) -> Result<Vars> {
    let var = |span: &super::Span| {
        let values: Vec<f64> = parameters.values[span.range()].iter().map(|value| f64::from(*value)).collect();
        Ok((span.name.clone(), Var::from_vec(values, span.shape.as_slice(), &Device::Cpu)?))
    };
    parameters.spans().iter().map(var).collect()
}

/// A decoder, and the small matrices beside it if there are any.
struct Reference<'a> {
    config: &'a Config,
    frozen: &'a Vars,
    small: Option<(&'a Vars, f64)>,
}

impl Reference<'_> {
    /// y = x·(W + s·B·A)ᵀ
    fn linear(&self, x: &Tensor, layer: usize, block: &str, module: &str) -> Result<Tensor> {
        let frozen = self.frozen[&format!("model.layers.{layer}.{block}.{module}.weight")].as_tensor();
        let weight = match self.small {
            None => frozen.clone(),
            Some((small, scale)) => {
                let [a, b] =
                    ["lora_A", "lora_B"].map(|name| small[&format!("layers.{layer}.{module}.{name}")].as_tensor());
                (frozen + (b.matmul(a)? * scale)?)?
            }
        };
        x.matmul(&weight.t()?)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        ops::rms_norm_slow(x, self.frozen[&format!("model.{name}.weight")].as_tensor(), self.config.rms_eps as f32)
    }

    /// `[tokens, width]` → `[1, heads, tokens, head_dim]`, rotated.
    fn heads(&self, x: &Tensor, heads: usize, angles: Option<&(Tensor, Tensor)>) -> Result<Tensor> {
        let (tokens, _) = x.dims2()?;
        let x = x.reshape((1, tokens, heads, self.config.head_dim))?.transpose(1, 2)?.contiguous()?;
        let x = match angles {
            Some((cos, sin)) => rotary_emb::rope_slow(&x, cos, sin)?,
            None => x,
        };
        let repeats = self.config.heads / heads; // each key serves as many queries
        let (_, _, tokens, width) = x.dims4()?;
        let spread = x.unsqueeze(2)?.broadcast_as((1, heads, repeats, tokens, width))?.contiguous()?;
        spread.reshape((1, heads * repeats, tokens, width))
    }

    fn angles(&self, tokens: usize) -> Result<(Tensor, Tensor)> {
        let half = self.config.head_dim / 2;
        let angle = |i: usize| {
            let frequency = self.config.rope_theta.powf(-((i % half) as f64) / half as f64);
            (i / half) as f64 * frequency
        };
        let of = |f: fn(f64) -> f64| {
            let values: Vec<f64> = (0..tokens * half).map(|i| f(angle(i))).collect();
            Tensor::from_vec(values, (tokens, half), &Device::Cpu)
        };
        Ok((of(f64::cos)?, of(f64::sin)?))
    }

    /// ln p of every token of the vocabulary after each token, `[tokens, vocab]`.
    fn logprobs(&self, tokens: &[u32]) -> Result<Tensor> {
        let (config, count) = (self.config, tokens.len());
        let embedding = self.frozen["model.embed_tokens.weight"].as_tensor();
        let mut x = embedding.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        let angles = self.angles(count)?;
        let hidden: Vec<f64> =
            (0..count * count).map(|i| if i % count > i / count { f64::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(hidden, (1, 1, count, count), &Device::Cpu)?;
        for layer in 0..config.layers {
            let h = self.norm(&x, &format!("layers.{layer}.input_layernorm"))?;
            let project = |name: &str| self.linear(&h, layer, "self_attn", name);
            let q = self.heads(&project("q_proj")?, config.heads, Some(&angles))?;
            let k = self.heads(&project("k_proj")?, config.kv_heads, Some(&angles))?;
            let v = self.heads(&project("v_proj")?, config.kv_heads, None)?;
            let scores = (q.matmul(&k.t()?.contiguous()?)? / (config.head_dim as f64).sqrt())?.broadcast_add(&mask)?;
            let seen = ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
            let seen = seen.transpose(1, 2)?.contiguous()?.reshape((count, config.heads * config.head_dim))?;
            x = (x + self.linear(&seen, layer, "self_attn", "o_proj")?)?;
            let h = self.norm(&x, &format!("layers.{layer}.post_attention_layernorm"))?;
            let gate = ops::silu(&self.linear(&h, layer, "mlp", "gate_proj")?)?;
            let inner = (gate * self.linear(&h, layer, "mlp", "up_proj")?)?;
            x = (x + self.linear(&inner, layer, "mlp", "down_proj")?)?;
        }
        let logits = self.norm(&x, "norm")?.matmul(&embedding.t()?)?;
        ops::log_softmax(&logits, D::Minus1)
    }

    /// The loss of `tests::loss`: each target weighs more than the one before it.
    fn loss(&self) -> Result<Tensor> {
        let mut loss = Tensor::zeros((), DType::F64, &Device::Cpu)?;
        let mut index = 0;
        for tokens in SEQUENCES {
            let logprobs = self.logprobs(tokens)?;
            for (position, token) in tokens.iter().enumerate().skip(1) {
                index += 1;
                let one = logprobs.get(position - 1)?.get(*token as usize)?;
                loss = (loss - (one * (0.1 * f64::from(index)))?)?;
            }
        }
        Ok(loss)
    }
}

/// Loss and gradients of the reference against ours.
fn compare(decoder: &Decoder, lora: Option<&Lora>) {
    let frozen = vars(&decoder.parameters).unwrap();
    let small = lora.map(|lora| (vars(&lora.parameters).unwrap(), f64::from(lora.scale)));
    let small = small.as_ref().map(|(vars, scale)| (vars, *scale));
    let theirs = Reference { config: &decoder.config, frozen: &frozen, small }.loss().unwrap();
    let packed = Packed::sharing(&SEQUENCES);
    let (ours, value) = (loss(decoder, lora, &packed), theirs.to_scalar::<f64>().unwrap());
    assert!((ours - value).abs() < TOLERANCE * value.abs(), "loss: {ours} {value}");

    let store = theirs.backward().unwrap();
    let ours = gradient(decoder, lora, &packed);
    let parameters = lora.map_or(&*decoder.parameters, |lora| &lora.parameters);
    let learned = small.map_or(&frozen, |(small, _)| small);
    for span in parameters.spans() {
        let theirs = store.get(learned[&span.name].as_tensor()).expect("every parameter has a gradient");
        let theirs = theirs.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let ours = ours[span.range()].iter().map(|value| f64::from(*value));
        let error: f64 = theirs.iter().zip(ours).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let size: f64 = theirs.iter().map(|a| a.powi(2)).sum::<f64>().sqrt();
        assert!(size > 0.0 && error < TOLERANCE * size, "{}: off by {:.1e} of {size:.1e}", span.name, error / size);
    }
}

#[test]
fn loss_and_every_gradient_are_those_that_candle_derives_in_float64() {
    compare(&decoder(), None);
}

#[test]
fn gradients_of_small_matrices_are_those_that_candle_derives_in_float64() {
    let decoder = decoder();
    compare(&decoder, Some(&lora(&decoder)));
}
