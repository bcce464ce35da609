//! Params, ports and plan of `data.split`.

use llmflow_contract::{Artifact, Context, Facts, Failure, Known, Made, Operator, StagePlan, inputs, kinds, outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::near_duplicate_needs;

/// How rows are split.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Params {
    /// Rows of the test side: a share below 1, else a number of rows.
    #[schemars(range(min = 0.0), extend("x-aliases" = ["test"]))]
    #[serde(alias = "test")]
    pub test_size: f64,
    /// Rows at least this alike (Jaccard similarity over sets of word runs) stay together.
    #[schemars(range(min = 0.05, max = 1.0))]
    pub threshold: f64,
    /// Words of a run.
    #[schemars(range(min = 1, max = 64))]
    pub ngram: usize,
    /// Hashes of a signature.
    #[schemars(range(min = 16, max = 2048))]
    pub num_perm: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { test_size: 0.1, threshold: 0.8, ngram: 5, num_perm: 112 }
    }
}

inputs! {
    pub struct In {
        /// The rows to split.
        pub data: Artifact<kinds::AnyDataset>,
    }
}

outputs! {
    #[no_main_output]
    pub struct Out {
        /// The rows to learn from.
        pub train: Made<kinds::AnyDataset>,
        /// The rows to measure on.
        pub test: Made<kinds::AnyDataset>,
    }
}

/// `data.split`
pub struct Split;

impl Operator for Split {
    const NAME: &'static str = "data.split";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        if params.test_size <= 0.0 || (params.test_size >= 1.0 && params.test_size.fract() != 0.0) {
            return Err(Failure::input(
                "param/range",
                format!("`test_size: {}` is neither a share below 1 nor a number of rows", params.test_size),
            )
            .param("test_size"));
        }
        let mut plan = StagePlan::derived::<Self>();
        if let Some(input) = known.input("data") {
            let facts = Facts { rows: None, ..input.facts.clone() };
            plan = plan.output("train", input.kind.clone(), facts.clone()).output("test", input.kind.clone(), facts);
        }
        Ok(plan
            .metric("rows", "rows read")
            .metric("train", "rows to learn from")
            .metric("test", "rows to measure on")
            .needs(near_duplicate_needs(known))
            .seeded()
            .rows_from(&["data"]))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
