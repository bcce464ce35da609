//! Params, ports and plan of `train.sft`.

use llmflow_contract::{Artifact, Context, Failure, Kind, Known, Made, Operator, StagePlan, inputs, kinds, outputs};
use llmflow_model::training::AdamWConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    language_model,
    synth::{empty_line, speaker},
    train::{
        self, Teaching,
        settings::{Method, Scheduler, Settings, Targets},
        show,
    },
};

/// What learns, from which tokens, how long and how fast. Names are those of transformers, TRL and PEFT.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// `lora`: small matrices beside the frozen model.
    #[serde(alias = "finetuning_type")]
    #[schemars(extend("x-aliases" = ["finetuning_type"]))]
    pub method: Method,
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
    /// Rows of a step.
    #[serde(alias = "batch_size", alias = "micro_batch_size")]
    #[schemars(range(min = 1, max = 65536), extend("x-aliases" = ["batch_size", "micro_batch_size"]))]
    pub per_device_train_batch_size: u32,
    /// A step takes this many times the rows; passes are cut to fit memory anyway.
    #[schemars(range(min = 1, max = 65536))]
    pub gradient_accumulation_steps: u32,
    /// Longest row, in tokens; the rest is cut. Default: 1,024, or the model's context if that is shorter.
    #[serde(alias = "cutoff_len", alias = "sequence_len", alias = "max_seq_length")]
    #[schemars(range(min = 2, max = 1_048_576), extend("x-aliases" = ["cutoff_len", "sequence_len", "max_seq_length"]))]
    pub max_length: Option<u32>,
    /// Of chats, learn only what the assistant says.
    pub assistant_only_loss: bool,
    /// The system line of chats that bring none; `null` leaves it to the template.
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
    /// Steps between two measurements of `eval`; without it, once an epoch.
    #[schemars(range(min = 1))]
    pub eval_steps: Option<u64>,
    /// Steps between two checkpoints; without it, they are some fifteen seconds apart.
    #[schemars(range(min = 1), extend("x-role" = "tuning"))]
    pub save_steps: Option<u64>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            lora_r: 16,
            lora_alpha: None,
            lora_target_modules: Targets::default(),
            learning_rate: 2e-4,
            lr_scheduler_type: Scheduler::Linear,
            warmup_ratio: 0.0,
            warmup_steps: None,
            num_train_epochs: 1.0,
            max_steps: None,
            per_device_train_batch_size: 8,
            gradient_accumulation_steps: 1,
            max_length: None,
            assistant_only_loss: true,
            system: empty_line(),
            max_grad_norm: 1.0,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            eval_steps: None,
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
            eval_steps: self.eval_steps,
            save_steps: self.save_steps,
        }
    }
    pub(super) fn alpha(&self) -> f64 {
        self.lora_alpha.unwrap_or(2.0 * f64::from(self.lora_r))
    }
}

inputs! {
    pub struct In {
        /// The model that learns; it stays as it is.
        pub model: Artifact<kinds::Model>,
        /// Rows to learn from.
        pub data: Vec<Artifact<Teaching>>,
        /// Rows to measure on, never learned from.
        pub eval: Option<Artifact<Teaching>>,
    }
}

outputs! {
    pub struct Out {
        /// What was learned: small matrices beside the model.
        pub adapter: Made<kinds::Adapter>,
    }
}

/// `train.sft`
pub struct Sft;

impl Operator for Sft {
    const NAME: &'static str = "train.sft";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check_turns(known, Some("data"))?;
        for port in ["data", "eval"] {
            train::check_kinds(known, port, <Teaching as llmflow_contract::PortKind>::ACCEPTS)?;
        }
        let model = known.facts("model");
        if let Some(context) = model.context {
            train::longest(params.max_length, context)?;
        }
        train::check_targets(&params.lora_target_modules)?;
        let frozen = model.parameters.unwrap_or(train::USUAL_PARAMETERS);
        let learned = train::adapter_parameters(frozen, params.lora_r);
        let tokens = train::tokens_ahead(known.rows("data"), &params.settings());
        let mut plan = StagePlan::derived::<Self>()
            .output("adapter", Kind::of("adapter"), train::adapter_facts(known, &["data"]))
            .needs(train::needs(known, frozen, learned, tokens))
            .numerics(speaker::numerics())
            .seeded()
            .extends(params.settings().reads_no_length())
            .trains_on(&["data"]);
        plan = show::declare(plan, "mean negative ln p of a learned token");
        if known.input("eval").is_some() {
            plan = show::declare_eval(plan);
        }
        Ok(plan
            .metric("learned_tokens", "tokens learned in one reading of all rows")
            .metric("rows", "rows learned from")
            .metric("cut", "rows cut at `max_length`")
            .metric("dropped", "rows with nothing to learn")
            .metric("rank", "rank of the small matrices")
            .metric("parameters", "numbers that learned"))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
