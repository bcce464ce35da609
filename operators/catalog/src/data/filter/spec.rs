//! Params, ports and plan of `data.filter`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Known, Made, Needs, Operator, StagePlan, Work, inputs, kinds, outputs,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::Side;

/// The rules; one that is not set is off.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Params {
    /// Least words (Unicode word boundaries).
    pub min_words: Option<u64>,
    /// Most words.
    pub max_words: Option<u64>,
    /// Least characters.
    pub min_chars: Option<u64>,
    /// Most characters.
    pub max_chars: Option<u64>,
    /// Least mean length of a word, in characters.
    #[schemars(range(min = 0.0))]
    pub min_mean_word_length: Option<f64>,
    /// Most mean length of a word, in characters.
    #[schemars(range(min = 0.0))]
    pub max_mean_word_length: Option<f64>,
    /// Most share of non-empty lines that repeat an earlier one.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_repeated_lines: Option<f64>,
    /// Most share of five-word runs that repeat an earlier one.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_repeated_ngrams: Option<f64>,
    /// Least share of letters among the characters that are no white space.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_alpha_ratio: Option<f64>,
    /// Most share of characters, white space aside, that are neither letters nor digits.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_symbol_ratio: Option<f64>,
    /// Which side of a row the rules look at: the whole `text`, its `prompt` or its `answer`.
    pub field: Side,
}

impl Params {
    /// Refuses bounds that no row can meet.
    fn check(&self) -> Result<(), Failure> {
        let crossed =
            |low: Option<f64>, high: Option<f64>| matches!((low, high), (Some(low), Some(high)) if low > high);
        let as_f64 = |bound: Option<u64>| bound.map(|bound| bound as f64);
        for (name, low, high) in [
            ("min_words", as_f64(self.min_words), as_f64(self.max_words)),
            ("min_chars", as_f64(self.min_chars), as_f64(self.max_chars)),
            ("min_mean_word_length", self.min_mean_word_length, self.max_mean_word_length),
        ] {
            if crossed(low, high) {
                let other = name.replacen("min", "max", 1);
                return Err(Failure::input(
                    "param/range",
                    format!("`{name}` is above `{other}`: no row can meet both"),
                )
                .param(name));
            }
        }
        Ok(())
    }
}

inputs! {
    pub struct In {
        /// The rows to judge.
        pub data: Artifact<kinds::AnyDataset>,
    }
}

outputs! {
    pub struct Out {
        /// The rows that break no rule, in order.
        pub data: Made<kinds::AnyDataset>,
    }
}

/// `data.filter`
pub struct Filter;

impl Operator for Filter {
    const NAME: &'static str = "data.filter";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        params.check()?;
        let mut plan = StagePlan::derived::<Self>();
        if let Some(input) = known.input("data") {
            plan = plan.output("data", input.kind.clone(), Facts { rows: None, ..input.facts.clone() });
        }
        let rows = known.rows("data").unwrap_or_default();
        let needs = Needs { cores: known.machine.cores.clamp(1, 4), work: Work::Rows(rows), ..Needs::default() };
        Ok(plan
            .metric("rows", "rows read")
            .metric("kept", "rows that break no rule")
            .metric("dropped", "rows that break one")
            .needs(needs)
            .rows_from(&["data"]))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
