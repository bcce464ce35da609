//! Params, ports and plan of `train.pretrain`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Operator, StagePlan, inputs, kinds, outputs,
};
use llmflow_model::{Config, TextTokenizer, training::AdamWConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    language_model::failure,
    synth::speaker,
    train::{
        self,
        encode::end_of_text,
        settings::{Scheduler, Settings},
        show,
    },
};

/// The shape of the model, how long and how fast it learns. Names are those of `config.json` and transformers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Width of the residual stream; a multiple of 32 can be quantized.
    #[serde(alias = "hidden")]
    #[schemars(range(min = 8, max = 16384), extend("x-aliases" = ["hidden"]))]
    pub hidden_size: u32,
    /// Width of the feed-forward block; default: 8/3 of `hidden_size`, to the next multiple of 32.
    #[schemars(range(min = 8, max = 65536))]
    pub intermediate_size: Option<u32>,
    /// Blocks.
    #[serde(alias = "layers")]
    #[schemars(range(min = 1, max = 256), extend("x-aliases" = ["layers"]))]
    pub num_hidden_layers: u32,
    /// Query heads; they share `hidden_size`.
    #[serde(alias = "heads")]
    #[schemars(range(min = 1, max = 256), extend("x-aliases" = ["heads"]))]
    pub num_attention_heads: u32,
    /// Key and value heads, each shared by as many query heads; default: `num_attention_heads`.
    #[serde(alias = "kv_heads")]
    #[schemars(range(min = 1, max = 256), extend("x-aliases" = ["kv_heads"]))]
    pub num_key_value_heads: Option<u32>,
    /// Tokens it sees at once, in training and afterwards.
    #[serde(alias = "context", alias = "seq_len", alias = "sequence_len", alias = "max_position_embeddings")]
    #[schemars(
        range(min = 8, max = 32768),
        extend("x-aliases" = ["context", "seq_len", "sequence_len", "max_position_embeddings"])
    )]
    pub max_length: u32,
    /// Base of the rotary frequencies.
    #[schemars(range(min = 100.0, max = 1e9))]
    pub rope_theta: f64,
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
    /// How often the text is read; a part is allowed.
    #[serde(alias = "epochs", alias = "num_epochs")]
    #[schemars(range(min = 0.001, max = 10000.0), extend("x-role" = "horizon", "x-aliases" = ["epochs", "num_epochs"]))]
    pub num_train_epochs: f64,
    /// Steps to take; instead of `num_train_epochs`.
    #[serde(alias = "steps")]
    #[schemars(range(min = 1, max = 100_000_000), extend("x-role" = "horizon", "x-aliases" = ["steps"], "x-limit" = true))]
    pub max_steps: Option<u64>,
    /// Windows of a step.
    #[serde(alias = "batch_size", alias = "micro_batch_size")]
    #[schemars(range(min = 1, max = 65536), extend("x-aliases" = ["batch_size", "micro_batch_size"]))]
    pub per_device_train_batch_size: u32,
    /// Largest norm of a step's gradient; 0 never clips.
    #[serde(alias = "clip_grad_norm")]
    #[schemars(range(min = 0.0, max = 1e6), extend("x-aliases" = ["clip_grad_norm"]))]
    pub max_grad_norm: f64,
    /// Share of a matrix that a step at rate 1 takes off; norms never decay.
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
            hidden_size: 256,
            intermediate_size: None,
            num_hidden_layers: 6,
            num_attention_heads: 8,
            num_key_value_heads: None,
            max_length: 512,
            rope_theta: 10_000.0,
            learning_rate: 1e-3,
            lr_scheduler_type: Scheduler::Cosine,
            warmup_ratio: 0.05,
            warmup_steps: None,
            num_train_epochs: 1.0,
            max_steps: None,
            per_device_train_batch_size: 8,
            max_grad_norm: 1.0,
            weight_decay: 0.1,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            eval_steps: None,
            save_steps: None,
        }
    }
}

impl Params {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            batch_size: self.per_device_train_batch_size as usize,
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

    /// The model's shape over a vocabulary.
    ///
    /// # Errors
    /// `param/range` if heads do not divide what they share.
    fn shape(&self, vocab: usize) -> Result<Config, Failure> {
        const BLOCK: u32 = 32; // weights a scale covers in GGUF's types
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if !hidden.is_multiple_of(2 * heads) {
            let message = format!("{heads} heads cannot share {hidden} dimensions in even parts");
            return Err(Failure::input("param/range", message).param("num_attention_heads"));
        }
        if !heads.is_multiple_of(kv_heads) {
            let message = format!("{heads} query heads cannot share {kv_heads} key heads in equal parts");
            return Err(Failure::input("param/range", message).param("num_key_value_heads"));
        }
        let inner = self.intermediate_size.unwrap_or((hidden * 8).div_ceil(3).next_multiple_of(BLOCK));
        Ok(Config {
            vocab,
            hidden: hidden as usize,
            intermediate: inner as usize,
            layers: self.num_hidden_layers as usize,
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: (hidden / heads) as usize,
            rope_theta: self.rope_theta,
            rms_eps: 1e-5,
            tie_embeddings: true,
            context: self.max_length as usize,
            bos: None,
            eos: Vec::new(),
            rope_interleaved: false,
        })
    }

    /// The model's shape over a tokenizer's vocabulary, with its special tokens.
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub(super) fn config(&self, tokenizer: &TextTokenizer) -> Result<Config, Failure> {
        let mut eos = tokenizer.eos_ids();
        if let Some(end) = end_of_text(tokenizer).filter(|end| !eos.contains(end)) {
            eos.push(end);
        }
        let config = Config { bos: tokenizer.bos(), eos, ..self.shape(tokenizer.vocab_size())? };
        config.check().map_err(failure)?;
        Ok(config)
    }
}

inputs! {
    pub struct In {
        /// What cuts text into tokens.
        pub tokenizer: Artifact<kinds::Tokenizer>,
        /// Text to learn, read in this order and then shuffled.
        pub data: Vec<Artifact<kinds::Readable>>,
        /// Text to measure on, never learned.
        pub eval: Option<Artifact<kinds::Readable>>,
    }
}

outputs! {
    pub struct Out {
        /// The model, with its tokenizer.
        pub model: Made<kinds::Model>,
    }
}

/// `train.pretrain`
pub struct Pretrain;

/// A vocabulary where nobody knows.
const USUAL_VOCAB: u64 = 32_000;
/// Most memory a new model may ask for, in bytes: beyond, a number is more likely a slip.
const MAX_BYTES: u64 = 1 << 40;

impl Operator for Pretrain {
    const NAME: &'static str = "train.pretrain";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        for port in ["data", "eval"] {
            train::check_kinds(known, port, <kinds::Readable as llmflow_contract::PortKind>::ACCEPTS)?;
        }
        let tokenizer = known.facts("tokenizer");
        let shape = params.shape(tokenizer.vocab.unwrap_or(USUAL_VOCAB) as usize)?;
        let parameters = shape.parameters();
        let settings = params.settings();
        let window = (settings.batch_size as u64 * u64::from(params.max_length)) as f64;
        let tokens = match params.max_steps {
            Some(steps) => Some(steps as f64 * window),
            None => train::tokens_ahead(known.rows("data"), &settings),
        };
        let needs = train::needs(known, 0, parameters, tokens);
        if needs.memory_bytes > MAX_BYTES {
            let message =
                format!("a model of {:.0} billion weights is too large to train here", parameters as f64 / 1e9);
            return Err(Failure::input("param/range", message).param("hidden_size"));
        }
        let data = known.inputs.iter().filter(|(port, _)| port.as_str() == "data").flat_map(|(_, inputs)| inputs);
        let facts = Facts {
            tokenizer: tokenizer.tokenizer,
            chat_template: tokenizer.chat_template,
            vocab: tokenizer.vocab,
            architecture: Some("LlamaForCausalLM".into()),
            parameters: tokenizer.vocab.map(|_| parameters),
            context: Some(u64::from(params.max_length)),
            dtype: Some("float32".into()),
            licences: train::licences(data.map(|input| &input.facts)),
            ..Facts::default()
        };
        let mut plan = StagePlan::derived::<Self>()
            .output("model", Kind::of("model"), facts)
            .needs(needs)
            .numerics(speaker::numerics())
            .seeded()
            .extends(settings.reads_no_length())
            .trains_on(&["data"]);
        plan = show::declare(plan, "mean negative ln p of a token");
        if known.input("eval").is_some() {
            plan = show::declare_eval(plan);
        }
        Ok(plan
            .metric("windows", "windows of `max_length` tokens that the text gave")
            .metric("rows", "documents read")
            .metric("vocab", "tokens of the vocabulary")
            .metric("parameters", "numbers that learned"))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
