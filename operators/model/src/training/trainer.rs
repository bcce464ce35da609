//! One LoRA training run: steps over batches of token sequences, its state to a folder and back.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};

use super::{AdamW, Schedule, clip};
use crate::{
    ModelError, Result,
    objective::sft,
    transformer::{Decoder, Packed, Tape, Target, lora::Lora, vector::add},
    weights::{Adapter, AdapterConfig},
};

/// A sequence to learn from: `loss_mask` marks the tokens that are supervised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    pub loss_mask: Vec<bool>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Mean negative log-likelihood of the batch's supervised tokens, before the step.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub rate: f64,
}

/// Small matrices that learn beside a frozen decoder.
#[derive(Clone, Debug)]
pub struct Trainer {
    decoder: Decoder,
    pub lora: Lora,
    optimizer: AdamW,
    pub schedule: Schedule,
    /// 0: never clip.
    pub max_grad_norm: f64,
}

/// Most tokens of one pass: a larger batch is cut into several, whose gradients add up.
const MAX_ROWS: usize = 1024;

impl Trainer {
    /// Draws A uniformly from ±1/√in (Kaiming, a = √5) with `uniform`, numbers in [0, 1); B is zero.
    pub fn new(
        decoder: Decoder,
        mut lora: Lora,
        schedule: Schedule,
        weight_decay: f32,
        max_grad_norm: f64,
        uniform: &mut dyn FnMut() -> f32,
    ) -> Self {
        for span in lora.parameters.spans().to_vec().iter().filter(|span| span.name.ends_with("lora_A")) {
            let bound = 1.0 / (span.shape[1] as f32).sqrt();
            lora.parameters.values[span.range()].iter_mut().for_each(|value| *value = (2.0 * uniform() - 1.0) * bound);
        }
        let optimizer = AdamW::new(lora.parameters.values.len(), weight_decay);
        Self { decoder, lora, optimizer, schedule, max_grad_norm }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps
    }

    /// Learns from a batch; the loss counts every supervised token of the batch equally.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if nothing is supervised; those of [`Decoder::forward`].
    pub fn step(&mut self, batch: &[Example]) -> Result<Stepped> {
        let supervised = batch.iter().map(supervised_tokens).sum::<usize>();
        if supervised == 0 {
            return Err(ModelError::Invalid("no token of the batch is supervised".into()));
        }
        let mut grads = vec![0.0; self.lora.parameters.values.len()];
        let mut logprobs = Vec::with_capacity(supervised);
        for part in passes(batch) {
            let (packed, targets) = pack(part);
            let mut tape = Tape::default();
            let x = self.decoder.forward(&packed, Some(&self.lora), Some(&mut tape))?;
            let factors = vec![sft(&[], supervised).1 as f32; targets.len()];
            let (mut dx, own) = self.decoder.judge_backward(&x, &targets, &factors, None);
            let mut own_grads = vec![0.0; grads.len()];
            self.decoder.backward(&packed, Some(&self.lora), tape, &mut dx, &mut own_grads);
            add(&mut grads, &own_grads);
            logprobs.extend(own);
        }
        let (grad_norm, factor) = clip(&grads, self.max_grad_norm);
        let rate = self.schedule.rate(self.optimizer.steps);
        self.optimizer.step(&mut self.lora.parameters.values, &grads, rate, factor);
        Ok(Stepped { loss: sft(&logprobs, supervised).0, grad_norm, rate })
    }

    /// Mean negative log-likelihood of supervised tokens, learning nothing.
    ///
    /// # Errors
    /// Those of [`Decoder::forward`].
    pub fn evaluate(&self, examples: &[Example]) -> Result<f64> {
        let mut logprobs = Vec::new();
        for part in passes(examples) {
            let (packed, targets) = pack(part);
            let x = self.decoder.forward(&packed, Some(&self.lora), None)?;
            logprobs.extend(self.decoder.judge(&x, &targets).iter().map(|one| one.logprob));
        }
        Ok(sft(&logprobs, logprobs.len()).0)
    }

    /// Writes matrices, moments and the step count.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] if the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let steps = Tensor::from_slice(&[self.optimizer.steps as i64], 1, &Device::Cpu)?;
        let state = HashMap::from([
            ("values", tensor(&self.lora.parameters.values)?),
            ("first", tensor(&self.optimizer.first)?),
            ("second", tensor(&self.optimizer.second)?),
            ("steps", steps),
        ]);
        Ok(candle_core::safetensors::save(&state, folder.join("trainer.safetensors"))?)
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`] for the state of another run.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let state = candle_core::safetensors::load(folder.join("trainer.safetensors"), &Device::Cpu)?;
        let find = |name: &str| state.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.into() });
        let expected = self.lora.parameters.values.len();
        for (name, place) in [
            ("values", &mut self.lora.parameters.values),
            ("first", &mut self.optimizer.first),
            ("second", &mut self.optimizer.second),
        ] {
            let values = find(name)?.to_vec1::<f32>()?;
            if values.len() != expected {
                let (expected, found) = (vec![expected], vec![values.len()]);
                return Err(ModelError::Shape { name: name.into(), expected, found });
            }
            *place = values;
        }
        let steps = find("steps")?.to_vec1::<i64>()?;
        self.optimizer.steps = steps.first().and_then(|steps| u64::try_from(*steps).ok()).unwrap_or(0);
        Ok(())
    }

    /// The small matrices as a PEFT adapter.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] if memory runs out.
    pub fn adapter(&self, base: &str) -> Result<Adapter> {
        let mut modules = std::collections::BTreeMap::new();
        let mut targets = std::collections::BTreeSet::new();
        let tensor = |name: &str| -> Result<Tensor> {
            let span = self.lora.parameters.find(name).expect("A and B come together");
            let values = &self.lora.parameters.values[span.range()];
            Ok(Tensor::from_slice(values, span.shape.as_slice(), &Device::Cpu)?)
        };
        for span in self.lora.parameters.spans() {
            let Some(path) = span.name.strip_suffix(".lora_A") else { continue };
            let (layer, module) = path.rsplit_once('.').expect("a name has its layer and module");
            let block = if matches!(module, "gate_proj" | "up_proj" | "down_proj") { "mlp" } else { "self_attn" };
            targets.insert(module.to_owned());
            let pair = (tensor(&span.name)?, tensor(&format!("{path}.lora_B"))?);
            modules.insert(format!("model.{layer}.{block}.{module}"), pair);
        }
        let config = AdapterConfig {
            rank: self.lora.rank,
            alpha: f64::from(self.lora.scale) * self.lora.rank as f64,
            dropout: 0.0,
            rank_stabilized: false,
            target_modules: targets.into_iter().collect(),
            base: base.to_owned(),
        };
        Ok(Adapter { config, modules })
    }
}

/// Supervised tokens; the first of a sequence never is, for nothing precedes it.
pub fn supervised_tokens(example: &Example) -> usize {
    example.loss_mask.iter().skip(1).filter(|supervised| **supervised).count()
}

/// Cuts a batch into passes of at most [`MAX_ROWS`] tokens, or one example.
fn passes(mut batch: &[Example]) -> Vec<&[Example]> {
    let mut parts = Vec::new();
    while !batch.is_empty() {
        let mut rows = 0;
        let fits = batch.iter().take_while(|example| {
            rows += example.ids.len();
            rows <= MAX_ROWS
        });
        let (part, rest) = batch.split_at(fits.count().max(1));
        parts.push(part);
        batch = rest;
    }
    parts
}

fn pack(examples: &[Example]) -> (Packed, Vec<Target>) {
    let ids: Vec<&[u32]> = examples.iter().map(|example| &example.ids[..]).collect();
    let packed = Packed::sharing(&ids);
    let mut targets = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        for position in (1..example.ids.len()).filter(|position| example.loss_mask[*position]) {
            targets.push(Target { row: packed.row(index, position - 1), token: example.ids[position] });
        }
    }
    (packed, targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tests_support::small_checkpoint, training::Shape, transformer::lora::MODULES};

    #[test]
    fn training_lowers_the_loss_and_resuming_equals_never_stopping() {
        let checkpoint = small_checkpoint();
        let decoder = Decoder::new(&checkpoint.config, &checkpoint.weights).unwrap();
        let lora = Lora::zeros(2, decoder.module_shapes(), &MODULES, 4, 8.0);
        let schedule = Schedule { shape: Shape::Linear, peak: 1e-2, warmup_steps: 1, total_steps: 12 };
        let mut state = 7_u32;
        let mut trainer = Trainer::new(decoder, lora, schedule, 0.0, 1.0, &mut || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        });
        let example = |ids: &[u32]| Example { ids: ids.to_vec(), loss_mask: vec![true; ids.len()] };
        let batch = [example(&[1, 2, 3, 4]), example(&[1, 2, 9, 9, 9])];
        let before = trainer.evaluate(&batch).unwrap();
        (0..5).for_each(|_| assert!(trainer.step(&batch).unwrap().loss > 0.0));
        let folder = tempfile::tempdir().unwrap();
        trainer.save(folder.path()).unwrap();
        let mut resumed = trainer.clone();
        resumed.lora.parameters.values.fill(0.0);
        resumed.restore(folder.path()).unwrap();
        for _ in 0..3 {
            assert_eq!(trainer.step(&batch).unwrap(), resumed.step(&batch).unwrap());
        }
        assert_eq!(trainer.lora.parameters.values, resumed.lora.parameters.values);
        assert!(trainer.evaluate(&batch).unwrap() < before);
        assert_eq!(trainer.adapter("base").unwrap().modules.len(), 14);
    }
}
