//! Params, ports and plan of `eval.perplexity`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Operator, StagePlan, inputs, kinds, outputs,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    language_model,
    synth::{empty_line, speaker},
};

/// How text is cut and what is counted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Tokens of a window; at most the model's context.
    #[schemars(range(min = 2, max = 1_048_576))]
    pub window: u32,
    /// Most windows read, from the first; all without it.
    #[schemars(range(min = 1), extend("x-limit" = true))]
    pub max_windows: Option<u64>,
    /// Of chats, count only what the assistant says.
    pub assistant_only: bool,
    /// The system line of chats; `null` leaves it to the template.
    pub system: Option<String>,
    /// Windows computed at once.
    #[schemars(range(min = 1, max = 1024), extend("x-role" = "tuning"))]
    pub batch_size: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { window: 1024, max_windows: None, assistant_only: true, system: empty_line(), batch_size: 4 }
    }
}

inputs! {
    pub struct In {
        /// The model to measure.
        pub model: Artifact<kinds::Runnable>,
        /// What it shall predict.
        pub data: Artifact<kinds::Readable>,
    }
}

outputs! {
    pub struct Out {
        /// The figures, and the mean of each window.
        pub results: Made<kinds::ReportFile>,
    }
}

/// `eval.perplexity`
pub struct Perplexity;

impl Operator for Perplexity {
    const NAME: &'static str = "eval.perplexity";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check_turns(known, Some("data"))?;
        if let Some(context) = known.facts("model").context.filter(|context| u64::from(params.window) > *context) {
            let message =
                format!("a window of {} tokens is longer than the model's context of {context}", params.window);
            return Err(Failure::input("param/range", message).param("window"));
        }
        Ok(StagePlan::derived::<Self>()
            .output("results", Kind::of("report"), Facts::default())
            .metric("nll", "mean negative ln p of a token, in nats")
            .metric("perplexity", "e to the nll")
            .metric("tokens", "tokens predicted")
            .needs(speaker::needs(known, known.rows("data")))
            .numerics(speaker::numerics()))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
