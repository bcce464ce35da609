//! The registry: every operator under its name, its types erased.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use serde_json::Value;

use crate::{
    AnyMade, Arity, Bound, Context, Failure, Inputs, Kind, Known, Locked, Operator, Outputs, ParamInfo, Port, PortSpec,
    Remote, Role, SecretName, StagePlan, params_of,
};

type PlanFn = fn(Value, &Known) -> Result<(Value, StagePlan), Failure>;
type RemoteFn = fn(Value) -> Result<Option<Remote>, Failure>;
type ResolveFn = fn(Value, Option<&str>, &Context) -> Result<Locked, Failure>;
type FetchFn = fn(Value, &Context) -> Result<(), Failure>;
type RunFn = fn(Value, Bound, &Context) -> Result<Vec<(Port, AnyMade)>, Failure>;
type ServeFn = fn(Value, Bound, &Context, &dyn Fn(SocketAddr)) -> Result<(), Failure>;

/// One operator, erased.
#[derive(Clone)]
pub struct Entry {
    pub name: &'static str,
    pub version: u32,
    pub doc: &'static str,
    /// Found out when first asked for: a command that plans nothing needs none, and all of them take 3 ms.
    pub params: Arc<LazyLock<Vec<ParamInfo>>>,
    pub inputs: Vec<PortSpec>,
    pub outputs: Vec<PortSpec>,
    /// Whether the user names the inputs; `inputs` is then empty.
    pub inputs_by_name: bool,
    /// Whether params name the outputs; `outputs` is then empty.
    pub outputs_by_name: bool,
    /// Whether a stage's name alone means the first output.
    pub has_main_output: bool,
    pub serves: &'static [&'static str],
    /// Whether it runs code of the user's.
    pub is_foreign: bool,
    /// Environment variables with keys to its remote sources.
    pub credentials: &'static [&'static str],
    schema: fn() -> Value,
    named_outputs: fn(&Value) -> Option<Vec<Port>>,
    plan: PlanFn,
    remote: RemoteFn,
    resolve: ResolveFn,
    fetch: FetchFn,
    run: RunFn,
    serve: ServeFn,
}

/// The operator that can serve a kind, and the port it takes it on.
pub struct Served<'a> {
    pub entry: &'a Entry,
    pub port: Port,
}

impl Entry {
    /// JSON Schema of the params.
    pub fn schema(&self) -> Value {
        (self.schema)()
    }
    /// Settled params and the plan.
    pub fn plan(&self, params: Value, known: &Known) -> Result<(Value, StagePlan), Failure> {
        (self.plan)(params, known)
    }
    /// Whether any param says where to read: if none does, `remote` need not be asked.
    pub fn reads_sources(&self) -> bool {
        self.params.iter().any(|param| param.role == Role::Source)
    }
    /// The remote source that params name.
    pub fn remote(&self, params: Value) -> Result<Option<Remote>, Failure> {
        (self.remote)(params)
    }
    pub fn resolve(&self, params: Value, revision: Option<&str>, ctx: &Context) -> Result<Locked, Failure> {
        (self.resolve)(params, revision, ctx)
    }
    /// Params are settled.
    pub fn fetch(&self, params: Value, ctx: &Context) -> Result<(), Failure> {
        (self.fetch)(params, ctx)
    }
    pub fn run(&self, params: Value, inputs: Bound, ctx: &Context) -> Result<Vec<(Port, AnyMade)>, Failure> {
        (self.run)(params, inputs, ctx)
    }
    pub fn serve(
        &self,
        params: Value,
        inputs: Bound,
        ctx: &Context,
        ready: &dyn Fn(SocketAddr),
    ) -> Result<(), Failure> {
        (self.serve)(params, inputs, ctx, ready)
    }
    /// The outputs these params name, main output first; `None` if the params are refused.
    pub fn named_outputs(&self, params: &Value) -> Option<Vec<Port>> {
        (self.named_outputs)(params)
    }
    /// The secrets that params of role secret name: those a worker is given.
    pub fn secrets(&self, params: &Value) -> Vec<SecretName> {
        let mut names = Vec::new();
        for param in self.params.iter().filter(|param| param.role == Role::Secret) {
            SecretName::collect(&params[&param.name], &mut names);
        }
        names
    }
    /// Whether a param can name a secret.
    pub fn takes_secrets(&self) -> bool {
        self.params.iter().any(|param| param.role == Role::Secret)
    }
    /// First line of the doc.
    pub fn summary(&self) -> &str {
        self.doc.trim().lines().next().unwrap_or_default().trim()
    }
    pub fn param(&self, name: &str) -> Option<&ParamInfo> {
        self.params.iter().find(|param| param.name == name || param.aliases.iter().any(|alias| alias == name))
    }
    /// Whether a bare `in` has a meaning.
    pub fn main_input(&self) -> Option<&PortSpec> {
        self.inputs.first()
    }
    /// Ports that must be given.
    pub fn required_inputs(&self) -> impl Iterator<Item = &PortSpec> {
        self.inputs.iter().filter(|spec| spec.arity != Arity::Optional)
    }
}

/// Every operator under its name.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
    order: Vec<&'static str>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operator. Two of one name are a bug found by the first test that runs.
    pub fn with<O: Operator>(mut self) -> Self {
        let entry = Entry {
            name: O::NAME,
            version: O::VERSION,
            doc: O::DOC,
            params: Arc::new(LazyLock::new(params_of::<O::Params>)),
            inputs: O::Inputs::specs(),
            outputs: O::Outputs::specs(),
            inputs_by_name: O::Inputs::BY_NAME,
            outputs_by_name: O::Outputs::BY_NAME,
            has_main_output: O::Outputs::HAS_MAIN,
            serves: O::SERVES,
            is_foreign: O::IS_FOREIGN,
            credentials: O::CREDENTIALS,
            schema: crate::params::schema_of::<O::Params>,
            named_outputs: |params| Some(O::named_outputs(&parse::<O>(params.clone()).ok()?)),
            plan: |params, known| {
                let mut params = parse::<O>(params)?;
                let plan = O::plan(&mut params, known)?;
                let settled = serde_json::to_value(&params).map_err(|error| Failure::bug(error.to_string()))?;
                Ok((settled, plan))
            },
            remote: |params| O::remote(&parse::<O>(params)?),
            resolve: |params, revision, ctx| O::resolve(&parse::<O>(params)?, revision, ctx),
            fetch: |params, ctx| O::fetch(&parse::<O>(params)?, ctx),
            run: |params, inputs, ctx| Ok(O::run(parse::<O>(params)?, O::Inputs::bind(inputs)?, ctx)?.into_made()),
            serve: |params, inputs, ctx, ready| O::serve(parse::<O>(params)?, O::Inputs::bind(inputs)?, ctx, ready),
        };
        assert!(self.entries.insert(O::NAME, entry).is_none(), "two operators are named `{}`", O::NAME);
        self.order.push(O::NAME);
        self
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }
    /// In life-cycle order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.order.iter().map(|name| &self.entries[name])
    }
    /// The operator that keeps this kind up as a service.
    pub fn serving(&self, kind: &Kind) -> Option<Served<'_>> {
        self.entries().find_map(|entry| {
            let port = entry.inputs.iter().find(|spec| spec.accepts.accepts(kind))?;
            entry
                .serves
                .iter()
                .any(|served| *served == kind.as_str() || (*served == "model" && kind.as_str() == "adapter"))
                .then(|| Served { entry, port: port.port.clone() })
        })
    }
}

fn parse<O: Operator>(params: Value) -> Result<O::Params, Failure> {
    serde_json::from_value(params)
        .map_err(|error| Failure::input("param/invalid", format!("params of `{}`: {error}", O::NAME)))
}
