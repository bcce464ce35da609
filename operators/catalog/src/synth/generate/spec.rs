//! Params, ports and plan of `synth.generate`.

use llmflow_contract::{Artifact, Context, Failure, Kind, Known, Made, Operator, StagePlan, inputs, kinds, outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    language_model,
    synth::{empty_line, facts_from, speaker},
};

/// What the model writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The question that a sentence of a document answers.
    #[default]
    QuestionForSentence,
}

/// What a question must be to stay.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Least share of the question's telling words that its answer has too.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_overlap: f64,
    /// Least nats a token by which the question makes its answer likelier.
    pub min_gain: f64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { min_overlap: 0.3, min_gain: 0.5 }
    }
}

/// How to write and what to keep.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// What the model writes: `question_for_sentence`.
    pub task: Task,
    /// 0 takes the likeliest token.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temperature: f32,
    /// Longest question, in tokens.
    #[schemars(range(min = 1, max = 1024))]
    pub max_new_tokens: u32,
    /// What a question must be to stay.
    pub keep: Keep,
    /// Most rows made; as many as the documents give without it.
    #[schemars(range(min = 1), extend("x-limit" = true))]
    pub max_rows: Option<u64>,
    /// The system line; `null` leaves it to the template.
    pub system: Option<String>,
    /// Questions written at once.
    #[schemars(range(min = 1, max = 1024), extend("x-role" = "tuning"))]
    pub batch_size: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            task: Task::QuestionForSentence,
            temperature: 0.0,
            max_new_tokens: 32,
            keep: Keep::default(),
            max_rows: None,
            system: empty_line(),
            batch_size: 16,
        }
    }
}

inputs! {
    pub struct In {
        /// The model that asks.
        pub model: Artifact<kinds::Runnable>,
        /// What it asks about: Markdown or plain text.
        pub documents: Artifact<kinds::Text>,
    }
}

outputs! {
    pub struct Out {
        /// A question and its sentence each.
        pub data: Made<kinds::Chat>,
    }
}

/// `synth.generate`
pub struct Generate;

impl Operator for Generate {
    const NAME: &'static str = "synth.generate";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check_turns(known, None)?;
        let plan = StagePlan::derived::<Self>()
            .output("data", Kind::of("dataset/chat"), facts_from(known, "documents"))
            .metric("written", "questions written")
            .metric("kept", "rows made")
            .needs(speaker::needs(known, None))
            .numerics(speaker::numerics())
            .rows_from(&["documents"]);
        Ok(if params.temperature > 0.0 { plan.seeded() } else { plan })
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
