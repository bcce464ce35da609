//! Params, ports and plan of `run.command`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use llmflow_contract::{
    Arity, Bound, Context, Facts, Failure, Kind, KindSet, Known, KnownInput, Named, Needs, Numerics, Operator, Port,
    PortSpec, SecretName, StagePlan, Work,
};
use llmflow_dataset::RowKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::{left, placeholder, script};

/// What to run, and what it reads and leaves.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The program and its arguments, a word each; no shell reads them. `{in.NAME}`, `{out.NAME}`, `{seed}`, `{scratch}` and `{cores}` are replaced.
    pub command: Vec<String>,
    /// Scripts and folders of scripts, relative to the pipeline file: copied to where the program runs, keyed by content. Of a folder hidden entries, `__pycache__`, links to folders and special files are left out.
    #[serde(default)]
    #[schemars(extend("x-role" = "source"))]
    pub files: Vec<String>,
    /// What it leaves, the main output first: names with their kinds (`model`, `adapter`, `tokenizer`, `gguf`, `report`, `files`, `dataset/…`).
    pub outputs: IndexMap<String, String>,
    /// Variables of its environment; placeholders are replaced here too.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets: `{HF_TOKEN: "${secret.HF_TOKEN}"}`.
    #[serde(default)]
    #[schemars(extend("x-role" = "secret"))]
    pub secrets: BTreeMap<String, SecretName>,
    /// Metrics it tells, for gates: it fails if it never tells one of them. Others are shown only.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Inputs it only measures on: rows marked `eval` may go in there though it makes a model.
    #[serde(default)]
    pub measures_on: Vec<String>,
    /// Datasets are handed over as folders of Parquet parts, not as JSON Lines.
    #[serde(default)]
    pub raw: bool,
    /// It gives the same bytes for the same inputs and seed, on every machine.
    #[serde(default)]
    #[schemars(extend("x-role" = "tuning"))]
    pub deterministic: bool,
    /// Most bytes that all outputs together may have: beyond, it is stopped.
    #[serde(default = "hundred_gib")]
    #[schemars(range(min = 1), extend("x-role" = "tuning"))]
    pub max_output_bytes: u64,
}

fn hundred_gib() -> u64 {
    100 << 30
}

/// Kinds that hold what was learned.
const LEARNED: [&str; 4] = ["model", "adapter", "tokenizer", "gguf"];

impl Params {
    /// Kinds by port, main output first.
    pub(super) fn ports(&self) -> impl Iterator<Item = (Port, Kind)> {
        self.outputs.iter().map(|(name, kind)| (Port::from(name.as_str()), Kind::new(kind.as_str())))
    }

    /// Every text in which placeholders are replaced.
    fn texts(&self) -> impl Iterator<Item = &String> {
        self.command.iter().chain(self.env.values())
    }

    fn check(&self, known: &Known) -> Result<(), Failure> {
        check_program(&self.command, "command: [python3, train.py, \"{in.data}\", \"{out.model}\"]")?;
        if self.outputs.is_empty() {
            return Err(Failure::input("command/no-outputs", "`outputs` names none: nothing would be kept")
                .param("outputs")
                .help("outputs: {model: model}"));
        }
        for (name, kind) in &self.outputs {
            let param = format!("outputs.{name}");
            check_name(name, &param)?;
            let is_known = RowKind::find(kind).is_some() || left::KINDS.contains(&kind.as_str());
            if !is_known {
                let all = left::KINDS.into_iter().chain(RowKind::ALL.map(RowKind::name));
                return Err(Failure::input("command/kind", format!("`{kind}` is no kind of output"))
                    .param(&param)
                    .help(format!("it is one of {}", all.collect::<Vec<_>>().join(", "))));
            }
        }
        for port in known.inputs.keys() {
            check_name(port.as_str(), "command")?;
        }
        check_variables(&self.env, &self.secrets)?;
        self.check_placeholders(known)?;
        match self.measures_on.iter().find(|name| !known.inputs.contains_key(name.as_str())) {
            Some(name) => Err(Failure::input("command/unknown-input", format!("there is no input `{name}`"))
                .param("measures_on")
                .help("name inputs as `in` does")),
            None => Ok(()),
        }
    }

    /// Every placeholder stands for something, and everything declared has one.
    fn check_placeholders(&self, known: &Known) -> Result<(), Failure> {
        let used = placeholder::names(self.texts());
        for name in &used {
            let (side, is_known) = match name.split_once('.') {
                Some(("in", input)) => ("input", known.inputs.contains_key(input)),
                Some((_, output)) => ("output", self.outputs.contains_key(output)),
                None => continue,
            };
            if !is_known {
                return Err(Failure::input("command/placeholder", format!("`{{{name}}}` names no {side}"))
                    .param("command")
                    .help(format!("declare an {side} of that name")));
            }
        }
        let inputs = known.inputs.keys().map(|port| format!("in.{port}"));
        let outputs = self.outputs.keys().map(|name| format!("out.{name}"));
        match inputs.chain(outputs).find(|name| !used.contains(name)) {
            Some(name) => {
                let message = format!("`{{{name}}}` is nowhere in the command: the program cannot know where that is");
                Err(Failure::input("command/unused", message).param("command"))
            }
            None => Ok(()),
        }
    }

    /// The input an adapter among the outputs belongs to.
    pub(super) fn base<'a>(&self, models: impl Iterator<Item = &'a Port>) -> Result<Option<&'a Port>, Failure> {
        let Some((name, _)) = self.outputs.iter().find(|(_, kind)| *kind == "adapter") else { return Ok(None) };
        let models: Vec<&Port> = models.collect();
        match models[..] {
            [base] => Ok(Some(base)),
            _ => {
                let message = format!("an adapter belongs to one model, {} go in", models.len());
                Err(Failure::input("command/base", message)
                    .param(&format!("outputs.{name}"))
                    .help("give the model it is trained on as an input, and no other"))
            }
        }
    }
}

/// A name that is a file name too.
fn check_name(name: &str, param: &str) -> Result<(), Failure> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !is_plain || name.is_empty() || name.len() > 64 {
        return Err(Failure::input("command/name", format!("`{name}` is no name of an input or output"))
            .param(param)
            .help("up to 64 of a-z, 0-9, _ and -"));
    }
    if matches!(name, "report" | "trace") {
        let message = format!("`{name}` is what every stage has beside its outputs");
        return Err(Failure::input("command/name", message).param(param).help("choose another name"));
    }
    Ok(())
}

/// A command begins with a program; `example` is shown where it does not.
pub(crate) fn check_program(command: &[String], example: &str) -> Result<(), Failure> {
    match command.first().is_none_or(String::is_empty) {
        true => Err(Failure::input("command/empty", "`command` names no program").param("command").help(example)),
        false => Ok(()),
    }
}

/// Variables that say which GPUs the stage was leased.
const LEASED: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"];

/// Names that an environment can hold, and that are not the lease's.
pub(crate) fn check_variables(
    env: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, SecretName>,
) -> Result<(), Failure> {
    let is_variable = |name: &str| {
        !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let named = env.keys().map(|name| ("env", name)).chain(secrets.keys().map(|name| ("secrets", name)));
    for (param, name) in named {
        if !is_variable(name) {
            return Err(Failure::input("command/variable", format!("`{name}` is no name of a variable")).param(param));
        }
        if LEASED.contains(&name.as_str()) {
            let message = format!("`{name}` is set by LLMflow: it says which GPUs the stage has");
            return Err(Failure::input("command/variable", message)
                .param(param)
                .help("`resources: {gpus: N}` gives GPUs to the stage; without it the command sees none"));
        }
    }
    Ok(())
}

fn takes_model(input: &KnownInput) -> bool {
    input.kind.as_str() == "model"
}

/// `run.command`
pub struct RunCommand;

impl Operator for RunCommand {
    const NAME: &'static str = "run.command";
    const VERSION: u32 = 1;
    const IS_FOREIGN: bool = true;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = Bound;
    type Outputs = Named;

    fn named_outputs(params: &Params) -> Vec<Port> {
        params.ports().map(|(port, _)| port).collect()
    }

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        params.check(known)?;
        let first = |port: &Port| known.input(port.as_str());
        let models = known.inputs.keys().filter(|port| first(port).is_some_and(takes_model));
        let base = params.base(models)?.and_then(first);
        let rows: Vec<&Port> =
            known.inputs.keys().filter(|port| first(port).is_some_and(|i| i.kind.is_dataset())).collect();
        let licences = licences(known.inputs.values().flatten().map(|input| &input.facts));
        let is_learning = params.outputs.values().any(|kind| LEARNED.contains(&kind.as_str()));
        let measured = |port: &&&Port| !params.measures_on.iter().any(|name| name == port.as_str());
        let mut plan = StagePlan::derived::<Self>();
        plan.inputs = known.inputs.keys().map(any_port).collect();
        plan.trains_on =
            if is_learning { rows.iter().filter(measured).map(|port| (*port).clone()).collect() } else { Vec::new() };
        plan.rows_from = rows.into_iter().cloned().collect();
        plan.outputs = params
            .ports()
            .map(|(port, kind)| {
                let base = base.and_then(|base| base.digest).filter(|_| kind.as_str() == "adapter");
                (port, kind, Facts { licences: licences.clone(), base, ..Facts::default() })
            })
            .collect();
        plan.sources = script::sources(script::find(&params.files, &known.base)?).collect();
        plan.seeded = placeholder::names(params.texts()).iter().any(|name| name == "seed");
        if !params.deterministic {
            plan = plan.numerics(Numerics::Stochastic);
        }
        for name in &params.metrics {
            plan = plan.metric(name, "as the command tells it");
        }
        let rows = known.inputs.keys().filter_map(|port| known.rows(port.as_str())).sum();
        Ok(plan.needs(Needs { memory_bytes: 512 << 20, work: Work::Rows(rows), ..Needs::default() }))
    }

    fn run(params: Params, inputs: Bound, ctx: &Context) -> Result<Named, Failure> {
        super::run::run(&params, inputs, ctx)
    }
}

/// Every licence once.
pub(super) fn licences<'a>(facts: impl Iterator<Item = &'a Facts>) -> Vec<String> {
    let mut licences: Vec<String> = facts.flat_map(|facts| facts.licences.iter().cloned()).collect();
    licences.sort();
    licences.dedup();
    licences
}

fn any_port(port: &Port) -> PortSpec {
    PortSpec {
        port: port.clone(),
        accepts: KindSet::of(&["*"]),
        arity: Arity::One,
        doc: "Whatever the command reads.".into(),
    }
}
