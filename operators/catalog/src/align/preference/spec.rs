//! Params, ports and plan of `align.preference`.

use llmflow_contract::{Artifact, Context, Failure, Kind, Known, Made, Operator, StagePlan, inputs, kinds, outputs};
use llmflow_model::{
    objective::{Preference, PreferenceLoss},
    training::AdamWConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    language_model,
    synth::{empty_line, speaker},
    train::{
        self,
        settings::{Method, Scheduler, Settings, Targets},
        show,
    },
};

/// How a pair is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// The DPO of the paper.
    #[default]
    Sigmoid,
    /// Stops pulling once the margin is 1.
    Hinge,
    /// Aims at a margin of 1/(2·beta) a token instead of ever more.
    Ipo,
}

/// What is preferred how strongly, how long and how fast. Names are those of transformers, TRL and PEFT.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// `lora`: small matrices beside the frozen model.
    #[serde(alias = "finetuning_type")]
    #[schemars(extend("x-aliases" = ["finetuning_type"]))]
    pub method: Method,
    /// How a pair is judged: `sigmoid` (DPO), `hinge` or `ipo`.
    #[serde(alias = "pref_loss")]
    #[schemars(extend("x-aliases" = ["pref_loss"]))]
    pub loss_type: LossType,
    /// How dear it is to leave the model it started from.
    #[serde(alias = "pref_beta", alias = "rl_beta")]
    #[schemars(range(min = 1e-6, max = 100.0), extend("x-aliases" = ["pref_beta", "rl_beta"]))]
    pub beta: f64,
    /// Weight of the chosen answer's mean loss; 0 leaves it out.
    #[serde(alias = "pref_ftx")]
    #[schemars(range(min = 0.0, max = 100.0), extend("x-aliases" = ["pref_ftx"]))]
    pub rpo_alpha: f64,
    /// Rank of the small matrices: more learns more, costs memory.
    #[serde(alias = "lora_rank", alias = "r")]
    #[schemars(range(min = 1, max = 1024), extend("x-aliases" = ["lora_rank", "r"]))]
    pub lora_r: u32,
    /// The small product is multiplied by this over `lora_r`; default: twice `lora_r`.
    #[schemars(range(min = 0.001, max = 65536.0))]
    pub lora_alpha: Option<f64>,
    /// `all-linear`, or a list of layers such as `[q_proj, v_proj]`.
    #[serde(alias = "lora_target")]
    #[schemars(extend("x-aliases" = ["lora_target"]))]
    pub lora_target_modules: Targets,
    /// Rate after the warm-up.
    #[serde(alias = "lr")]
    #[schemars(range(min = 1e-9, max = 1.0), extend("x-aliases" = ["lr"]))]
    pub learning_rate: f64,
    /// How the rate falls: `constant`, `linear` or `cosine`, the latter two to zero at the last step.
    #[serde(alias = "lr_scheduler")]
    #[schemars(extend("x-aliases" = ["lr_scheduler"]))]
    pub lr_scheduler_type: Scheduler,
    /// Share of the steps in which the rate rises from zero.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: f64,
    /// Steps in which the rate rises; instead of `warmup_ratio`.
    pub warmup_steps: Option<u64>,
    /// How often each row is read; a part is allowed.
    #[serde(alias = "epochs", alias = "num_epochs")]
    #[schemars(range(min = 0.001, max = 10000.0), extend("x-role" = "horizon", "x-aliases" = ["epochs", "num_epochs"]))]
    pub num_train_epochs: f64,
    /// Steps to take; instead of `num_train_epochs`.
    #[serde(alias = "steps")]
    #[schemars(range(min = 1, max = 100_000_000), extend("x-role" = "horizon", "x-aliases" = ["steps"], "x-limit" = true))]
    pub max_steps: Option<u64>,
    /// Pairs of a step.
    #[serde(alias = "batch_size", alias = "micro_batch_size")]
    #[schemars(range(min = 1, max = 65536), extend("x-aliases" = ["batch_size", "micro_batch_size"]))]
    pub per_device_train_batch_size: u32,
    /// A step takes this many times the rows; passes are cut to fit memory anyway.
    #[schemars(range(min = 1, max = 65536))]
    pub gradient_accumulation_steps: u32,
    /// Longest prompt with its answer, in tokens; the rest is cut. Default: 1,024, or the model's context if that is shorter.
    #[serde(alias = "cutoff_len", alias = "sequence_len", alias = "max_seq_length")]
    #[schemars(range(min = 2, max = 1_048_576), extend("x-aliases" = ["cutoff_len", "sequence_len", "max_seq_length"]))]
    pub max_length: Option<u32>,
    /// The system line of prompts that bring none; `null` leaves it to the template.
    pub system: Option<String>,
    /// Largest norm of a step's gradient; 0 never clips.
    #[serde(alias = "clip_grad_norm")]
    #[schemars(range(min = 0.0, max = 1e6), extend("x-aliases" = ["clip_grad_norm"]))]
    pub max_grad_norm: f64,
    /// Share of a matrix that a step at rate 1 takes off.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f32,
    /// Memory of AdamW's mean gradient.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub adam_beta1: f32,
    /// Memory of AdamW's mean squared gradient.
    #[schemars(range(min = 0.0, max = 0.99999))]
    pub adam_beta2: f32,
    /// Steps between two checkpoints; without it, they are some fifteen seconds apart.
    #[schemars(range(min = 1), extend("x-role" = "tuning"))]
    pub save_steps: Option<u64>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            loss_type: LossType::Sigmoid,
            beta: 0.1,
            rpo_alpha: 0.0,
            lora_r: 8,
            lora_alpha: None,
            lora_target_modules: Targets::default(),
            learning_rate: 5e-5,
            lr_scheduler_type: Scheduler::Linear,
            warmup_ratio: 0.0,
            warmup_steps: None,
            num_train_epochs: 1.0,
            max_steps: None,
            per_device_train_batch_size: 8,
            gradient_accumulation_steps: 1,
            max_length: None,
            system: empty_line(),
            max_grad_norm: 1.0,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            save_steps: None,
        }
    }
}

impl Params {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            batch_size: self.per_device_train_batch_size as usize * self.gradient_accumulation_steps as usize,
            epochs: self.num_train_epochs,
            max_steps: self.max_steps,
            learning_rate: self.learning_rate,
            scheduler: self.lr_scheduler_type,
            warmup_ratio: self.warmup_ratio,
            warmup_steps: self.warmup_steps,
            optimizer: AdamWConfig {
                beta_1: self.adam_beta1,
                beta_2: self.adam_beta2,
                weight_decay: self.weight_decay,
                ..AdamWConfig::default()
            },
            max_grad_norm: self.max_grad_norm,
            eval_steps: None,
            save_steps: self.save_steps,
        }
    }
    pub(super) fn objective(&self) -> Preference {
        let loss = match self.loss_type {
            LossType::Sigmoid => PreferenceLoss::Sigmoid,
            LossType::Hinge => PreferenceLoss::Hinge,
            LossType::Ipo => PreferenceLoss::Ipo,
        };
        Preference { loss, beta: self.beta, rpo_alpha: self.rpo_alpha }
    }
    pub(super) fn alpha(&self) -> f64 {
        self.lora_alpha.unwrap_or(2.0 * f64::from(self.lora_r))
    }
}

inputs! {
    pub struct In {
        /// The model that learns; it stays as it is, and is the reference.
        pub model: Artifact<kinds::Model>,
        /// Pairs of a better and a worse answer.
        pub data: Vec<Artifact<kinds::Preference>>,
    }
}

outputs! {
    pub struct Out {
        /// What was learned: small matrices beside the model.
        pub adapter: Made<kinds::Adapter>,
    }
}

/// `align.preference`
pub struct AlignPreference;

impl Operator for AlignPreference {
    const NAME: &'static str = "align.preference";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check_turns(known, Some("data"))?;
        train::check_kinds(known, "data", <kinds::Preference as llmflow_contract::PortKind>::ACCEPTS)?;
        let model = known.facts("model");
        if let Some(context) = model.context {
            train::longest(params.max_length, context)?;
        }
        train::check_targets(&params.lora_target_modules)?;
        let frozen = model.parameters.unwrap_or(train::USUAL_PARAMETERS);
        let learned = train::adapter_parameters(frozen, params.lora_r);
        // Two answers a pair, and a forward pass of each before the first step.
        let tokens = train::tokens_ahead(known.rows("data"), &params.settings()).map(|tokens| 3.0 * tokens);
        let plan = StagePlan::derived::<Self>()
            .output("adapter", Kind::of("adapter"), train::adapter_facts(known, &["data"]))
            .needs(train::needs(known, frozen, learned, tokens))
            .numerics(speaker::numerics())
            .seeded()
            .extends(params.settings().reads_no_length())
            .trains_on(&["data"]);
        Ok(show::declare(plan, "mean loss of a pair")
            .metric("margin", "mean reward of chosen less rejected answers, over the last tenth of the steps")
            .metric("chosen_reward", "beta times how much likelier chosen answers became, over the last tenth")
            .metric("rejected_reward", "the same of rejected answers")
            .metric("accuracy", "share of pairs whose chosen reward is the higher, over the last tenth")
            .metric("chosen_nll", "mean negative ln p of a chosen token, over the last tenth")
            .metric("rows", "pairs learned from")
            .metric("cut", "pairs cut at `max_length`")
            .metric("dropped", "pairs with nothing to learn")
            .metric("rank", "rank of the small matrices")
            .metric("parameters", "numbers that learned"))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
