//! Params, ports and plan of `eval.benchmark`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Operator, StagePlan, inputs, kinds, outputs,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::synth::{empty_line, speaker};

/// A figure over all questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of questions whose right choice is likeliest.
    Acc,
    /// The same, ln p divided by the bytes of the choice.
    AccNorm,
    /// Mean ln p of the right choice, in nats an answer.
    GoldLogprob,
}

impl Metric {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::GoldLogprob => "gold_logprob",
        }
    }
}

/// How a question is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// The model's chat template: question of the user, choice of the assistant.
    #[default]
    Chat,
    /// `QUESTION\nAnswer: CHOICE`.
    None,
}

/// How many questions are also answered freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Answers {
    /// That many, every n-th question.
    Count(u32),
    Every(All),
}

/// `all`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum All {
    /// Every question.
    All,
}

impl Answers {
    /// Every question.
    pub const ALL: Self = Self::Every(All::All);
}

/// How to ask and what to measure.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Figures to report: `acc`, `acc_norm`, `gold_logprob`.
    pub metrics: Vec<Metric>,
    /// Solved questions shown before each one: the first others of the data.
    #[schemars(range(min = 0, max = 64))]
    pub num_fewshot: u32,
    /// How a question is put: `chat` or `none`.
    pub template: Template,
    /// The system line; `null` leaves it to the template.
    pub system: Option<String>,
    /// Questions also answered freely: a number, or `all`, which measures `key_phrase`.
    pub answers: Answers,
    /// Longest free answer, in tokens.
    #[schemars(range(min = 1, max = 4096))]
    pub max_new_tokens: u32,
    /// Choices scored, and answers written, at once.
    #[schemars(range(min = 1, max = 1024), extend("x-role" = "tuning"))]
    pub batch_size: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            metrics: vec![Metric::Acc, Metric::AccNorm, Metric::GoldLogprob],
            num_fewshot: 0,
            template: Template::Chat,
            system: empty_line(),
            answers: Answers::Count(0),
            max_new_tokens: 48,
            batch_size: 16,
        }
    }
}

inputs! {
    pub struct In {
        /// The model to ask.
        pub model: Artifact<kinds::Runnable>,
        /// The questions.
        pub data: Artifact<kinds::Choice>,
    }
}

outputs! {
    pub struct Out {
        /// One sample a question: its marks, its choices, its free answer.
        pub results: Made<kinds::ReportFile>,
    }
}

/// `eval.benchmark`
pub struct Benchmark;

impl Operator for Benchmark {
    const NAME: &'static str = "eval.benchmark";
    const VERSION: u32 = 2;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        if params.metrics.is_empty() {
            return Err(Failure::input("param/range", "`metrics` names none").param("metrics"));
        }
        let rows = known.rows("data");
        let mut plan = StagePlan::derived::<Self>()
            .output("results", Kind::of("report"), Facts { rows, ..Facts::default() })
            .metric("n", "questions");
        for metric in &params.metrics {
            let name = metric.name();
            plan = plan
                .metric(name, meaning(*metric))
                .metric(format!("{name}_stderr"), format!("standard error of {name}"));
        }
        if params.answers == Answers::ALL {
            plan = plan
                .metric("key_phrase", "share of questions whose free answer has the right key phrase")
                .metric("key_phrase_stderr", "standard error of key_phrase");
        }
        Ok(plan.needs(speaker::needs(known, rows)).numerics(speaker::numerics()))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}

fn meaning(metric: Metric) -> &'static str {
    match metric {
        Metric::Acc => "share of questions whose right choice is likeliest",
        Metric::AccNorm => "the same, ln p per byte of the choice",
        Metric::GoldLogprob => "mean ln p of the right choice, in nats an answer",
    }
}
