//! Params, ports and plan of `synth.answer`.

use llmflow_contract::{Artifact, Context, Failure, Known, Made, Operator, StagePlan, inputs, kinds, outputs};
use llmflow_dataset::RowKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    language_model,
    synth::{empty_line, facts_from, speaker},
};

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A conversation that ends with it: `dataset/chat`.
    #[default]
    Chat,
    /// The rejected side of a pair: `dataset/preference`.
    Preference,
}

impl Form {
    pub(super) fn kind(self) -> RowKind {
        match self {
            Self::Chat => RowKind::Chat,
            Self::Preference => RowKind::Preference,
        }
    }
}

/// The better side of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// The written answer of the row.
    #[default]
    Reference,
}

/// Which answers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those that ended by themselves.
    Finished,
    /// Those cut at the limit too.
    All,
}

/// Which prompts are asked where `max_rows` leaves some out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The first.
    First,
    /// Drawn by the seed, in their order.
    #[default]
    Random,
}

/// How to answer and what to keep.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// What becomes of an answer: `chat` or `preference`.
    #[serde(rename = "as")]
    pub form: Form,
    /// The better side of a pair: `reference`, the written answer.
    pub chosen: Chosen,
    /// Answers a prompt.
    #[schemars(range(min = 1, max = 64))]
    pub n: u32,
    /// 0 takes the likeliest token.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temperature: f32,
    /// Share of probability to draw from.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub top_p: f32,
    /// Longest answer, in tokens.
    #[schemars(range(min = 1, max = 65536))]
    pub max_new_tokens: u32,
    /// `finished` or `all`; default: finished for `chat`, all for `preference`.
    pub keep: Option<Keep>,
    /// Most prompts asked; all without it.
    #[schemars(range(min = 1), extend("x-limit" = true))]
    pub max_rows: Option<u64>,
    /// Which prompts `max_rows` takes: `random` or `first`.
    pub select: Select,
    /// The system line; `null` leaves it to the template.
    pub system: Option<String>,
    /// Answers written at once.
    #[schemars(range(min = 1, max = 1024), extend("x-role" = "tuning"))]
    pub batch_size: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            form: Form::Chat,
            chosen: Chosen::Reference,
            n: 1,
            temperature: 0.0,
            top_p: 1.0,
            max_new_tokens: 64,
            keep: None,
            max_rows: None,
            select: Select::Random,
            system: empty_line(),
            batch_size: 16,
        }
    }
}

impl Params {
    pub(super) fn keeps_cut(&self) -> bool {
        match self.keep {
            Some(keep) => keep == Keep::All,
            None => self.form == Form::Preference,
        }
    }
}

inputs! {
    pub struct In {
        /// The model that answers.
        pub model: Artifact<kinds::Runnable>,
        /// What it is asked; of chats all but the last assistant turn.
        pub prompts: Artifact<kinds::Askable>,
    }
}

outputs! {
    pub struct Out {
        /// Conversations or pairs, in the order of the prompts.
        pub data: Made<kinds::AnyDataset>,
    }
}

/// `synth.answer`
pub struct Answer;

impl Operator for Answer {
    const NAME: &'static str = "synth.answer";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check_turns(known, None)?;
        if params.n > 1 && params.temperature == 0.0 {
            let message = "`n` above 1 gives the same answer again at `temperature` 0";
            return Err(Failure::input("param/range", message).param("n").help("set `temperature: 0.7`"));
        }
        let rows = known.rows("prompts");
        let asked = rows.map(|rows| rows.min(params.max_rows.unwrap_or(u64::MAX)));
        let mut plan = StagePlan::derived::<Self>()
            .output("data", params.form.kind().kind(), facts_from(known, "prompts"))
            .metric("asked", "prompts asked")
            .metric("kept", "rows made")
            .metric("dropped", "answers dropped, by any rule")
            .needs(speaker::needs(known, asked))
            .numerics(speaker::numerics())
            .rows_from(&["prompts"]);
        if params.temperature > 0.0 || (params.max_rows.is_some() && params.select == Select::Random) {
            plan = plan.seeded();
        }
        Ok(plan)
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
