//! What learns: a whole decoder, or small matrices beside a frozen one.

use candle_core::{Device, Tensor};

use super::{Uniform, example::Pass};
use crate::{
    Result,
    transformer::{Decoder, Parameters, Tape, lora::Lora},
    weights::{Adapter, AdapterConfig},
};

/// A decoder that learns whole, or small matrices that learn beside it.
#[derive(Clone, Debug)]
pub struct Policy {
    decoder: Decoder,
    lora: Option<Lora>,
}

impl Policy {
    /// Every parameter learns. Keep no clone of the decoder: it would be copied at the first step.
    pub fn whole(decoder: Decoder) -> Self {
        Self { decoder, lora: None }
    }

    /// The decoder is frozen. A is drawn uniformly from ±1/√in (Kaiming, a = √5), B is zero, as PEFT starts.
    pub fn adapted(decoder: Decoder, mut lora: Lora, uniform: &mut Uniform) -> Self {
        for span in lora.parameters.spans().to_vec().iter().filter(|span| span.name.ends_with("lora_A")) {
            let bound = 1.0 / (span.shape[1] as f64).sqrt();
            let values = &mut lora.parameters.values[span.range()];
            values.iter_mut().for_each(|value| *value = ((2.0 * uniform() - 1.0) * bound) as f32);
        }
        Self { decoder, lora: Some(lora) }
    }

    /// What learns.
    pub fn parameters(&self) -> &Parameters {
        self.lora.as_ref().map_or_else(|| self.decoder.parameters(), |lora| &lora.parameters)
    }
    pub(super) fn parameters_mut(&mut self) -> &mut Parameters {
        match &mut self.lora {
            Some(lora) => &mut lora.parameters,
            None => self.decoder.parameters_mut(),
        }
    }
    /// The decoder alone, small matrices off.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// ln p of every supervised token, in order; learns nothing.
    pub(super) fn logprobs(&self, pass: &Pass) -> Result<Vec<f32>> {
        let x = self.decoder.forward(&pass.packed, self.lora.as_ref(), None)?;
        Ok(self.decoder.judge(&x, &pass.targets).iter().map(|one| one.logprob).collect())
    }

    /// Adds the gradient of Σ g·ln p to `grads`, every g the same and known beforehand. Returns ln p of each token.
    pub(super) fn learn(&self, pass: &Pass, coefficient: f32, grads: &mut [f32]) -> Result<Vec<f32>> {
        let mut tape = Tape::default();
        let x = self.decoder.forward(&pass.packed, self.lora.as_ref(), Some(&mut tape))?;
        Ok(self.back(pass, &x, tape, &vec![coefficient; pass.targets.len()], grads))
    }

    /// The same where g depends on ln p: `weigh` is shown all of the pass and gives all g.
    pub(super) fn learn_weighed(
        &self,
        pass: &Pass,
        weigh: impl FnOnce(&[f32]) -> Vec<f32>,
        grads: &mut [f32],
    ) -> Result<()> {
        let mut tape = Tape::default();
        let x = self.decoder.forward(&pass.packed, self.lora.as_ref(), Some(&mut tape))?;
        let logprobs: Vec<f32> = self.decoder.judge(&x, &pass.targets).iter().map(|one| one.logprob).collect();
        let coefficients = weigh(&logprobs);
        self.back(pass, &x, tape, &coefficients, grads);
        Ok(())
    }

    fn back(&self, pass: &Pass, x: &[f32], tape: Tape, coefficients: &[f32], grads: &mut [f32]) -> Vec<f32> {
        let own = self.lora.is_none().then_some(&mut grads[..]);
        let (mut dx, logprobs) = self.decoder.judge_backward(x, &pass.targets, coefficients, own);
        self.decoder.backward(&pass.packed, self.lora.as_ref(), tape, &mut dx, grads);
        logprobs
    }

    /// The small matrices as a PEFT adapter, if small matrices are what learns. `base` is for people.
    ///
    /// # Errors
    /// [`crate::ModelError::Tensor`] if memory runs out.
    pub fn adapter(&self, base: &str) -> Result<Option<Adapter>> {
        let Some(lora) = &self.lora else { return Ok(None) };
        let mut modules = std::collections::BTreeMap::new();
        let mut targets = std::collections::BTreeSet::new();
        let tensor = |name: &str| -> Result<Tensor> {
            let span = lora.parameters.find(name).expect("A and B come together");
            let values = &lora.parameters.values[span.range()];
            Ok(Tensor::from_slice(values, span.shape.as_slice(), &Device::Cpu)?)
        };
        for span in lora.parameters.spans() {
            let Some(path) = span.name.strip_suffix(".lora_A") else { continue };
            let (layer, module) = path.rsplit_once('.').expect("a name has its layer and module");
            let block = if matches!(module, "gate_proj" | "up_proj" | "down_proj") { "mlp" } else { "self_attn" };
            targets.insert(module.to_owned());
            let pair = (tensor(&span.name)?, tensor(&format!("{path}.lora_B"))?);
            modules.insert(format!("model.{layer}.{block}.{module}"), pair);
        }
        let config = AdapterConfig {
            rank: lora.rank,
            alpha: f64::from(lora.scale) * lora.rank as f64,
            dropout: 0.0,
            rank_stabilized: false,
            target_modules: targets.into_iter().collect(),
            base: base.to_owned(),
        };
        Ok(Some(Adapter { config, modules }))
    }
}
