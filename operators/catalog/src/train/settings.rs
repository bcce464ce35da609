//! How long and how fast to learn, whatever is learned: what `with` says, settled.

use llmflow_model::{
    training::{AdamWConfig, Schedule, Shape, TrainerConfig},
    transformer::lora::MODULES,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// It does not.
    Constant,
    /// To zero at the last step.
    #[default]
    Linear,
    /// Half a cosine, to zero at the last step.
    Cosine,
}

/// What learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Small matrices beside the frozen model.
    #[default]
    Lora,
}

/// Where the small matrices lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    Named(NamedTargets),
    /// These linear layers of every block.
    Modules(Vec<Module>),
}

/// Sets of linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamedTargets {
    /// Every linear layer of every block.
    AllLinear,
}

/// A linear layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl Default for Targets {
    fn default() -> Self {
        Self::Named(NamedTargets::AllLinear)
    }
}

impl Targets {
    /// The layers' names, each once, in their order in a block.
    pub fn names(&self) -> Vec<&'static str> {
        match self {
            Self::Named(NamedTargets::AllLinear) => MODULES.to_vec(),
            Self::Modules(modules) => {
                let chosen = |index: &usize| modules.iter().any(|module| *module as usize == *index);
                (0..MODULES.len()).filter(chosen).map(|index| MODULES[index]).collect()
            }
        }
    }
}

/// How long and how fast.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Rows of a step.
    pub batch_size: usize,
    pub epochs: f64,
    /// Decides instead of `epochs`.
    pub max_steps: Option<u64>,
    pub learning_rate: f64,
    pub scheduler: Scheduler,
    pub warmup_ratio: f64,
    /// Decides instead of `warmup_ratio`.
    pub warmup_steps: Option<u64>,
    pub optimizer: AdamWConfig,
    pub max_grad_norm: f64,
    /// Steps between two measurements; without it, once an epoch.
    pub eval_steps: Option<u64>,
    /// Steps between two checkpoints; time decides too.
    pub save_steps: Option<u64>,
}

impl Settings {
    pub fn warmup(&self, total_steps: u64) -> u64 {
        self.warmup_steps.unwrap_or((self.warmup_ratio * total_steps as f64).ceil() as u64)
    }
    pub fn trainer(&self, total_steps: u64) -> TrainerConfig {
        let shape = match self.scheduler {
            Scheduler::Constant => Shape::Constant,
            Scheduler::Linear => Shape::Linear,
            Scheduler::Cosine => Shape::Cosine,
        };
        let warmup_steps = self.warmup(total_steps);
        let schedule = Schedule { shape, peak: self.learning_rate, warmup_steps, total_steps };
        TrainerConfig { schedule, optimizer: self.optimizer, max_grad_norm: self.max_grad_norm }
    }
    /// Do the bytes up to a step not depend on how many steps there are? The rate must neither fall nor rise by a share of them.
    pub fn reads_no_length(&self) -> bool {
        self.scheduler == Scheduler::Constant && (self.warmup_steps.is_some() || self.warmup_ratio == 0.0)
    }
    /// All that the bytes after a step depend on beside the rows: two runs that agree here may go on from one another.
    pub fn fingerprint(&self, rows: usize, total_steps: u64) -> String {
        let length = (!self.reads_no_length()).then_some(total_steps);
        let Self { batch_size, learning_rate, scheduler, optimizer, max_grad_norm, .. } = self;
        let warmup = self.warmup(total_steps);
        format!(
            "{rows} rows by {batch_size}, {scheduler:?} {learning_rate} after {warmup}, {length:?} steps, {optimizer:?}, \
             {max_grad_norm}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_all_linear_layers_or_those_named_in_the_order_of_a_block() {
        let parse = |text: &str| serde_json::from_str::<Targets>(text).unwrap().names();
        assert_eq!(parse("\"all-linear\""), MODULES);
        assert_eq!(parse("[\"v_proj\", \"q_proj\", \"v_proj\"]"), ["q_proj", "v_proj"]);
        assert!(serde_json::from_str::<Targets>("[\"lm_head\"]").is_err());
    }
}
