//! Params, ports and plan of `eval.compare`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Needs, Operator, StagePlan, inputs, kinds, outputs,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The figures that are compared.
pub(super) const METRICS: [&str; 3] = ["acc", "acc_norm", "gold_logprob"];

/// How certainty is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Questions drawn anew with replacement, the same for both models; percentile interval.
    #[default]
    PairedBootstrap,
}

/// How to compare.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// How certainty is judged: `paired_bootstrap`.
    pub test: Test,
    /// How often the questions are drawn anew.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub samples: u32,
    /// How the report calls the candidate.
    pub candidate_name: String,
    /// How the report calls the baseline.
    pub baseline_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            test: Test::PairedBootstrap,
            samples: 10_000,
            candidate_name: "tuned model".into(),
            baseline_name: "base".into(),
        }
    }
}

inputs! {
    pub struct In {
        /// Results of the model to beat.
        pub baseline: Artifact<kinds::ReportFile>,
        /// Results of the model in question, on the same questions.
        pub candidate: Artifact<kinds::ReportFile>,
    }
}

outputs! {
    pub struct Out {
        /// The comparison.
        pub comparison: Made<kinds::ReportFile>,
    }
}

/// `eval.compare`
pub struct Compare;

impl Operator for Compare {
    const NAME: &'static str = "eval.compare";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(_params: &mut Params, _known: &Known) -> Result<StagePlan, Failure> {
        let mut plan = StagePlan::derived::<Self>()
            .output("comparison", Kind::of("report"), Facts::default())
            .metric("n", "questions");
        for name in METRICS {
            plan = plan
                .metric(format!("{name}.baseline"), format!("{name} of the baseline"))
                .metric(format!("{name}.candidate"), format!("{name} of the candidate"))
                .metric(format!("{name}_delta"), format!("{name} of the candidate minus that of the baseline"))
                .metric(format!("{name}_delta.lower95"), "lower end of its 95 % interval")
                .metric(format!("{name}_delta.upper95"), "upper end of its 95 % interval");
        }
        Ok(plan.needs(Needs { memory_bytes: 256 << 20, ..Needs::default() }).seeded())
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
