//! Params, ports and plan of `tokenizer.train`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Needs, Operator, StagePlan, Work, inputs, kinds, outputs,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// How large a vocabulary, from how frequent pairs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(crate = "llmflow_contract::schemars")]
pub struct Params {
    /// Tokens, the 256 bytes and three special ones included; fewer where the texts give no more.
    #[schemars(range(min = 259, max = 1_000_000))]
    pub vocab_size: usize,
    /// How often a pair must occur to become a token.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_frequency: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { vocab_size: 32_000, min_frequency: 2 }
    }
}

inputs! {
    pub struct In {
        /// Texts, or chats whose turns are read as texts.
        pub data: Vec<Artifact<kinds::Readable>>,
    }
}

outputs! {
    pub struct Out {
        /// The tokenizer, with a chat template.
        pub tokenizer: Made<kinds::Tokenizer>,
    }
}

/// `tokenizer.train`
pub struct TrainTokenizer;

impl Operator for TrainTokenizer {
    const NAME: &'static str = "tokenizer.train";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(_: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        let rows = known.rows("data").unwrap_or_default();
        let needs = Needs {
            cores: known.machine.cores.clamp(1, 4),
            memory_bytes: (128 << 20) + rows * 8192,
            work: Work::Rows(rows),
            ..Needs::default()
        };
        Ok(StagePlan::derived::<Self>()
            .output("tokenizer", Kind::of("tokenizer"), Facts::default())
            .metric("vocab", "tokens of the vocabulary")
            .needs(needs)
            .trains_on(&["data"]))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
