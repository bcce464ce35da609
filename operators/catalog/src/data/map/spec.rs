//! Params, ports and plan of `data.map`.

use std::collections::BTreeMap;

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Known, Made, Needs, Numerics, Operator, SecretName, StagePlan, Work, inputs,
    kinds, outputs,
};
use llmflow_dataset::RowKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    data::load::OnBadRow,
    run::{command, placeholder, script},
};

/// What every row is passed through.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The program and its arguments, a word each; no shell reads them. `{seed}`, `{scratch}` and `{cores}` are replaced.
    pub command: Vec<String>,
    /// Scripts and folders of scripts, relative to the pipeline file: copied to where the program runs, keyed by content. Of a folder hidden entries, `__pycache__`, links to folders and special files are left out.
    #[serde(default)]
    #[schemars(extend("x-role" = "source"))]
    pub files: Vec<String>,
    /// Variables of its environment; placeholders are replaced here too.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets: `{API_KEY: "${secret.API_KEY}"}`.
    #[serde(default)]
    #[schemars(extend("x-role" = "secret"))]
    pub secrets: BTreeMap<String, SecretName>,
    /// The kind that comes back, such as `dataset/prompt`; the kind that goes in, if it is not set.
    #[serde(default)]
    pub out: Option<String>,
    /// Rows a start of the program.
    #[serde(default = "thousand")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch: u32,
    /// What to do where a row comes back malformed, or from nowhere: `set_aside` sets aside what it came from.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Answers that were given before are taken again.
    #[serde(default = "yes")]
    #[schemars(extend("x-role" = "tuning"))]
    pub reuse: bool,
    /// It gives the same rows for the same rows and seed, on every machine.
    #[serde(default)]
    #[schemars(extend("x-role" = "tuning"))]
    pub deterministic: bool,
}

fn thousand() -> u32 {
    1_000
}
fn yes() -> bool {
    true
}

inputs! {
    pub struct In {
        /// The rows to pass through.
        pub data: Artifact<kinds::AnyDataset>,
    }
}

outputs! {
    pub struct Out {
        /// What came back, in the order of the rows it came from.
        pub data: Made<kinds::AnyDataset>,
    }
}

impl Params {
    /// Every text in which placeholders are replaced.
    fn texts(&self) -> impl Iterator<Item = &String> {
        self.command.iter().chain(self.env.values())
    }

    fn check(&self) -> Result<(), Failure> {
        command::check_program(&self.command, "command: [python3, map.py]")?;
        command::check_variables(&self.env, &self.secrets)?;
        match placeholder::names(self.texts()).iter().find(|name| name.contains('.')) {
            Some(name) => Err(Failure::input("command/placeholder", format!("`{{{name}}}` stands for nothing here"))
                .param("command")
                .help("rows come on standard input and go back on standard output; `run.command` has paths")),
            None => Ok(()),
        }
    }

    /// The kind that comes back.
    pub(super) fn kind(&self, given: Option<RowKind>) -> Result<Option<RowKind>, Failure> {
        let Some(name) = &self.out else { return Ok(given) };
        RowKind::find(name).map(Some).ok_or_else(|| {
            let all = RowKind::ALL.map(RowKind::name).join(", ");
            Failure::input("command/kind", format!("`{name}` is no kind of dataset"))
                .param("out")
                .help(format!("it is one of {all}"))
        })
    }
}

/// What is still known of rows that went through.
pub(super) fn facts_of(before: &Facts) -> Facts {
    Facts { used_for: before.used_for, licences: before.licences.clone(), ..Facts::default() }
}

/// `data.map`
pub struct Map;

impl Operator for Map {
    const NAME: &'static str = "data.map";
    const VERSION: u32 = 1;
    const IS_FOREIGN: bool = true;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        params.check()?;
        let mut plan = StagePlan::derived::<Self>();
        let input = known.input("data");
        if let Some(kind) = params.kind(input.and_then(|input| RowKind::find(input.kind.as_str())))? {
            plan = plan.output("data", kind.kind(), facts_of(&known.facts("data")));
        }
        for source in script::sources(script::find(&params.files, &known.base)?) {
            plan = plan.source(source);
        }
        if placeholder::names(params.texts()).iter().any(|name| name == "seed") {
            plan = plan.seeded();
        }
        if !params.deterministic {
            plan = plan.numerics(Numerics::Stochastic);
        }
        let rows = known.rows("data").unwrap_or_default();
        Ok(plan
            .metric("rows", "rows passed through")
            .metric("kept", "rows that came back, as they were or changed")
            .metric("made", "further rows")
            .metric("dropped", "rows that did not come back")
            .metric("set_aside", "rows whose answer was malformed")
            .needs(Needs { memory_bytes: 256 << 20, work: Work::Rows(rows), ..Needs::default() })
            .rows_from(&["data"]))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
