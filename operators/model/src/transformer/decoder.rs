//! [`Decoder`]: parameters in memory order, and the passes over all blocks.

use std::{ops::Range, sync::Arc};

use candle_core::{Device, Tensor};

use super::{
    Packed, Parameters, Tape,
    attention::Heads,
    linear::View,
    lora::{Lora, MODULES},
    memory::Memory,
    norm,
    rotary::Rotary,
};
use crate::{Config, ModelError, Result, Weights};

/// Most positions whose angles are kept; longer sequences are refused.
const MAX_POSITIONS: usize = 32_768;

/// A Llama-family decoder. Cheap to clone: the parameters are shared.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub config: Config,
    pub(crate) parameters: Arc<Parameters>,
    pub(crate) rotary: Arc<Rotary>,
    pub(crate) memory: Memory,
}

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn module_name(layer: usize, module: usize) -> String {
    let block = if module < 4 { "self_attn" } else { "mlp" };
    format!("model.layers.{layer}.{block}.{}.weight", MODULES[module])
}

impl Decoder {
    /// Copies the weights into memory order; `weights` may be dropped afterwards.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`], and those of [`Config::check`].
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let mut decoder = Self::zeros(config)?;
        let parameters = Arc::make_mut(&mut decoder.parameters);
        for span in parameters.spans().to_vec() {
            let tensor = weights.get(&span.name)?;
            if tensor.dims() != span.shape {
                return Err(ModelError::Shape { name: span.name, expected: span.shape, found: tensor.dims().to_vec() });
            }
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            parameters.values[span.range()].copy_from_slice(&values);
        }
        Ok(decoder)
    }

    /// A decoder whose parameters are all zero: to be initialised.
    ///
    /// # Errors
    /// Those of [`Config::check`].
    pub fn zeros(config: &Config) -> Result<Self> {
        config.check()?;
        let mut parameters = Parameters::default();
        parameters.push(EMBED, &[config.vocab, config.hidden]);
        let shapes = module_shapes(config);
        for layer in 0..config.layers {
            parameters.push(format!("model.layers.{layer}.input_layernorm.weight"), &[config.hidden]);
            for (module, shape) in shapes.iter().enumerate() {
                parameters.push(module_name(layer, module), shape);
            }
            parameters.push(format!("model.layers.{layer}.post_attention_layernorm.weight"), &[config.hidden]);
        }
        parameters.push("model.norm.weight", &[config.hidden]);
        if !config.tie_embeddings {
            parameters.push(HEAD, &[config.vocab, config.hidden]);
        }
        let positions = config.context.min(MAX_POSITIONS);
        let rotary = Rotary::new(positions, config.head_dim, config.rope_theta, config.rope_interleaved);
        let (parameters, rotary) = (Arc::new(parameters), Arc::new(rotary));
        Ok(Self { config: config.clone(), parameters, rotary, memory: Memory::default() })
    }

    /// The weights under their names, as files hold them.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] if memory runs out.
    pub fn to_weights(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for span in self.parameters.spans() {
            let values = &self.parameters.values[span.range()];
            weights.insert(span.name.clone(), Tensor::from_slice(values, span.shape.as_slice(), &Device::Cpu)?);
        }
        Ok(weights)
    }

    /// Every parameter by name.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }
    /// Every parameter, to change; copies them first if another clone of this decoder still reads them.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        Arc::make_mut(&mut self.parameters)
    }
    /// Longest sequence it computes, in tokens.
    pub fn longest(&self) -> usize {
        self.config.context.min(MAX_POSITIONS)
    }
    /// `[out, in]` of each module in [`MODULES`].
    pub fn module_shapes(&self) -> [[usize; 2]; 7] {
        module_shapes(&self.config)
    }

    /// Runs every block. Returns the residual stream before the last norm, `[rows, hidden]`.
    ///
    /// `tape` takes what [`Decoder::backward`] needs.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for a token outside the vocabulary or a sequence longer than the context.
    pub fn forward(&self, packed: &Packed, lora: Option<&Lora>, tape: Option<&mut Tape>) -> Result<Vec<f32>> {
        let mut tape = tape;
        self.forward_with(packed, lora, |saved| {
            if let Some(tape) = tape.as_deref_mut() {
                tape.blocks.push(saved);
            }
        })
    }

    pub(crate) fn forward_with(
        &self,
        packed: &Packed,
        lora: Option<&Lora>,
        mut each: impl FnMut(super::block::Saved),
    ) -> Result<Vec<f32>> {
        let positions = packed.positions();
        if let Some(last) = positions.iter().max().filter(|last| **last >= self.longest()) {
            let message = format!("a sequence of {} tokens exceeds the context of {}", last + 1, self.longest());
            return Err(ModelError::Invalid(message));
        }
        let mut x = self.embed(packed.tokens())?;
        for layer in 0..self.config.layers {
            each(self.block_forward(layer, &mut x, packed, &positions, lora));
        }
        Ok(x)
    }

    /// Adds gradients to `grads`, given `dx` in the residual stream before the last norm.
    ///
    /// With `lora` the decoder is frozen and `grads` lies like the small matrices' parameters; without, like its own.
    pub fn backward(&self, packed: &Packed, lora: Option<&Lora>, tape: Tape, dx: &mut [f32], grads: &mut [f32]) {
        let positions = packed.positions();
        for (layer, saved) in tape.blocks.into_iter().enumerate().rev() {
            self.block_backward(layer, dx, saved, (packed, &positions), lora, grads);
        }
        if lora.is_none() {
            self.embedding_backward(dx, packed, grads);
        }
    }

    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let hidden = self.config.hidden;
        let mut x = Vec::with_capacity(tokens.len() * hidden);
        for token in tokens {
            if *token as usize >= self.config.vocab {
                let message = format!("token {token} is outside the vocabulary of {}", self.config.vocab);
                return Err(ModelError::Invalid(message));
            }
            x.extend_from_slice(&self.parameters.values[*token as usize * hidden..][..hidden]);
        }
        Ok(x)
    }

    pub(crate) fn final_norm(&self, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut normed = vec![0.0; x.len()];
        let inverse = norm::forward(&mut normed, x, self.last_norm(), self.config.rms_eps as f32);
        (normed, inverse)
    }
    pub(crate) fn last_norm(&self) -> &[f32] {
        self.parameters.get("model.norm.weight").expect("every decoder has a last norm")
    }
    pub(crate) fn head_range(&self) -> Range<usize> {
        let name = if self.config.tie_embeddings { EMBED } else { HEAD };
        self.parameters.find(name).expect("every decoder has a head").range()
    }
    pub(crate) fn head(&self) -> View<'_> {
        View::new(&self.parameters.values[self.head_range()], self.config.vocab, self.config.hidden)
    }
    pub(crate) fn heads(&self) -> Heads {
        Heads { heads: self.config.heads, kv_heads: self.config.kv_heads, head_dim: self.config.head_dim }
    }

    pub(crate) fn vector_range(&self, layer: usize, name: &str) -> Range<usize> {
        let name = format!("model.layers.{layer}.{name}.weight");
        self.parameters.find(&name).expect("every block has its norms").range()
    }
    pub(crate) fn vector(&self, layer: usize, name: &str) -> &[f32] {
        &self.parameters.values[self.vector_range(layer, name)]
    }
    /// Where adjacent modules of one input lie, as one matrix.
    pub(crate) fn matrix_range(&self, layer: usize, of: Range<usize>) -> Range<usize> {
        let find = |module| self.parameters.find(&module_name(layer, module)).expect("every block has its modules");
        find(of.start).start..find(of.end - 1).range().end
    }
    pub(crate) fn matrix(&self, layer: usize, of: Range<usize>) -> View<'_> {
        let inputs = self.module_shapes()[of.start][1];
        let values = &self.parameters.values[self.matrix_range(layer, of)];
        View::new(values, values.len() / inputs, inputs)
    }
    pub(crate) fn widths(&self, of: Range<usize>) -> Vec<(usize, usize)> {
        of.map(|module| (module, self.module_shapes()[module][0])).collect()
    }
}

fn module_shapes(config: &Config) -> [[usize; 2]; 7] {
    let (hidden, inner) = (config.hidden, config.intermediate);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    [[q, hidden], [kv, hidden], [kv, hidden], [hidden, q], [inner, hidden], [inner, hidden], [hidden, inner]]
}
