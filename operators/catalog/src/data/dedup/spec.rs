//! Params, ports and plan of `data.dedup`.

use llmflow_contract::{Artifact, Context, Facts, Failure, Known, Made, Operator, StagePlan, inputs, kinds, outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::{Side, merged_facts, near_duplicate_needs, near_duplicates::Settings, one_kind};

/// What counts as a repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Byte for byte the same text.
    Exact,
    /// Nearly the same text, verified by its true Jaccard similarity.
    #[default]
    Minhash,
}

/// How rows are compared.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Params {
    /// What counts as a repeat: `exact` or `minhash`.
    pub method: Method,
    /// Least Jaccard similarity of two near-duplicates, over sets of word runs.
    #[schemars(range(min = 0.05, max = 1.0), extend("x-aliases" = ["jaccard_threshold"]))]
    #[serde(alias = "jaccard_threshold")]
    pub threshold: f64,
    /// Words of a run.
    #[schemars(range(min = 1, max = 64), extend("x-aliases" = ["n_grams"]))]
    #[serde(alias = "n_grams")]
    pub ngram: usize,
    /// Hashes of a signature: more finds more of the pairs near the threshold.
    #[schemars(range(min = 16, max = 2048), extend("x-aliases" = ["num_permutations"]))]
    #[serde(alias = "num_permutations")]
    pub num_perm: usize,
    /// Which side of a row is compared: the whole `text`, its `prompt` or its `answer`.
    pub field: Side,
}

impl Default for Params {
    fn default() -> Self {
        Self { method: Method::Minhash, threshold: 0.8, ngram: 5, num_perm: 112, field: Side::Text }
    }
}

impl Params {
    pub(super) fn settings(&self) -> Settings {
        Settings { ngram: self.ngram, num_perm: self.num_perm, threshold: self.threshold }
    }
}

inputs! {
    pub struct In {
        /// Datasets of one kind, in order of trust: of equal rows the first stays.
        pub data: Vec<Artifact<kinds::AnyDataset>>,
    }
}

outputs! {
    pub struct Out {
        /// The rows that repeat no earlier one, in order.
        pub data: Made<kinds::AnyDataset>,
    }
}

/// `data.dedup`
pub struct Dedup;

impl Operator for Dedup {
    const NAME: &'static str = "data.dedup";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(_: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        let inputs = one_kind(known)?;
        let facts = Facts { rows: None, ..merged_facts(inputs.iter().map(|input| &input.facts)) };
        let mut plan = StagePlan::derived::<Self>();
        if let Some(first) = inputs.first() {
            plan = plan.output("data", first.kind.clone(), facts);
        }
        Ok(plan
            .metric("rows", "rows read")
            .metric("kept", "rows that repeat no earlier one")
            .metric("dropped", "rows that do")
            .needs(near_duplicate_needs(known))
            .rows_from(&["data"]))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
