//! A few operators that do nothing, to check pipelines against.

use std::collections::BTreeMap;

use llmflow_contract::{
    Artifact, Bound, Context, Failure, Made, Named, Operator, Port, Registry, inputs, kinds, outputs,
    schemars::{self, JsonSchema},
};
use serde::{Deserialize, Serialize};

pub fn registry() -> Registry {
    Registry::new().with::<Load>().with::<Dedup>().with::<Split>().with::<Sft>().with::<Compare>().with::<Command>()
}

macro_rules! operator {
    ($name:ident, $text:literal, $params:ty, $inputs:ty, $outputs:ty) => {
        pub struct $name;
        impl Operator for $name {
            const NAME: &'static str = $text;
            const VERSION: u32 = 1;
            const DOC: &'static str = concat!("Stands in for ", $text, ".");
            type Params = $params;
            type Inputs = $inputs;
            type Outputs = $outputs;
            fn run(_: Self::Params, _: Self::Inputs, _: &Context) -> Result<Self::Outputs, Failure> {
                Err(Failure::bug("never run"))
            }
        }
    };
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct LoadParams {
    /// Where the rows lie.
    #[schemars(extend("x-role" = "source"))]
    path: String,
    /// How they are written.
    #[serde(default)]
    format: Format,
    /// What the server asks for.
    #[serde(default)]
    #[schemars(extend("x-role" = "secret"))]
    token: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Alpaca,
    Chat,
    Text,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DedupParams {
    /// Least similarity of two rows that count as one.
    #[schemars(range(min = 0.0, max = 1.0))]
    threshold: f64,
    /// Values a signature has.
    #[schemars(range(min = 1, max = 4096))]
    num_perm: u32,
    /// What is kept.
    keep: Keep,
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub struct Keep {
    /// Least overlap.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_overlap: f64,
}

impl Default for DedupParams {
    fn default() -> Self {
        Self { threshold: 0.8, num_perm: 112, keep: Keep::default() }
    }
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub struct SplitParams {
    /// Share of rows held out.
    #[schemars(range(min = 0.0, max = 1.0))]
    test_size: f64,
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub struct SftParams {
    /// Rank of the adapter.
    #[schemars(range(min = 1, max = 1024), extend("x-aliases" = ["rank"]))]
    #[serde(alias = "rank")]
    lora_r: u32,
    /// Step size.
    #[schemars(extend("x-aliases" = ["lr"]))]
    #[serde(alias = "lr")]
    learning_rate: f64,
    /// Learn answers alone.
    assistant_only_loss: bool,
    /// Which matrices.
    lora_target_modules: Modules,
    /// A system line for every row.
    system: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Modules {
    Named(String),
    Listed(Vec<String>),
}

impl Default for Modules {
    fn default() -> Self {
        Self::Named("all-linear".into())
    }
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub struct NoParams {}

outputs! { pub struct Rows { /// The rows.
pub rows: Made<kinds::Chat> } }
outputs! { #[no_main_output] pub struct Parts { /// To train on.
pub train: Made<kinds::Chat>, /// Held out.
pub test: Made<kinds::Chat> } }
outputs! { pub struct Adapter { /// The adapter.
pub adapter: Made<kinds::Adapter> } }
inputs! { pub struct Many { /// What to put together.
pub data: Vec<Artifact<kinds::Chat>> } }
inputs! { pub struct One { /// What to split.
pub data: Artifact<kinds::Chat> } }
inputs! { pub struct Training { /// Rows to learn.
pub data: Artifact<kinds::Chat>, /// Rows to measure on.
pub eval: Option<Artifact<kinds::Chat>> } }
inputs! { pub struct Pair { /// Before.
pub baseline: Artifact<kinds::ReportFile>, /// After.
pub candidate: Artifact<kinds::ReportFile> } }

operator!(Load, "data.load", LoadParams, (), Rows);
operator!(Dedup, "data.dedup", DedupParams, Many, Rows);
operator!(Split, "data.split", SplitParams, One, Parts);
operator!(Sft, "train.sft", SftParams, Training, Adapter);
operator!(Compare, "eval.compare", NoParams, Pair, ());

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct CommandParams {
    /// The program and its arguments.
    command: Vec<String>,
    /// What it leaves, with their kinds.
    outputs: BTreeMap<String, String>,
    /// Variables of its environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Variables whose values are secrets.
    #[serde(default)]
    #[schemars(extend("x-role" = "secret"))]
    secrets: BTreeMap<String, String>,
    /// Most bytes that it may leave.
    #[serde(default)]
    max_output_bytes: u64,
}

/// An operator whose params name its outputs.
pub struct Command;

impl Operator for Command {
    const NAME: &'static str = "run.command";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Stands in for run.command.";
    type Params = CommandParams;
    type Inputs = Bound;
    type Outputs = Named;
    fn named_outputs(params: &Self::Params) -> Vec<Port> {
        params.outputs.keys().map(|name| Port::from(name.as_str())).collect()
    }
    fn run(_: Self::Params, _: Self::Inputs, _: &Context) -> Result<Self::Outputs, Failure> {
        Err(Failure::bug("never run"))
    }
}
