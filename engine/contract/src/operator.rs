//! [`Operator`]: the code behind a stage.

use std::net::SocketAddr;

use crate::{Context, Failure, Inputs, Known, Locked, Outputs, Params, Port, Remote, StagePlan};

/// One kind of step: reads typed artifacts, writes typed artifacts, and touches nothing else.
pub trait Operator: Sized + 'static {
    /// Family, then verb or method: `data.dedup`.
    const NAME: &'static str;
    /// Raised when equal inputs give other bytes; a golden digest test guards it.
    const VERSION: u32;
    /// The module doc: for its user, with a YAML example that a test checks.
    const DOC: &'static str;
    type Params: Params;
    type Inputs: Inputs;
    type Outputs: Outputs;

    /// Pure and fast, in the engine: at planning, and again when the stage is ready. Settles every `auto`.
    ///
    /// # Errors
    /// Class `input`, with the param at fault: reported at its place in the pipeline file.
    fn plan(_params: &mut Self::Params, _known: &Known) -> Result<StagePlan, Failure> {
        Ok(StagePlan::derived::<Self>())
    }

    /// Names of the outputs, main output first, where params name them (`Outputs` is [`crate::Named`]).
    fn named_outputs(_params: &Self::Params) -> Vec<Port> {
        Vec::new()
    }

    /// The remote source that these params name, if they name one that can change: `plan` then finds it in
    /// [`Known::locked`]. Pure.
    ///
    /// # Errors
    /// Class `input`, with the param at fault.
    fn remote(_params: &Self::Params) -> Result<Option<Remote>, Failure> {
        Ok(None)
    }

    /// What that source holds now; at `revision`, if one is given. Blocking, in the engine, before planning.
    ///
    /// # Errors
    /// Class `environment` if it cannot be reached; class `input` if there is no such thing.
    fn resolve(_params: &Self::Params, _revision: Option<&str>, _ctx: &Context) -> Result<Locked, Failure> {
        Err(Failure::bug(format!("`{}` names a remote source it cannot resolve", Self::NAME)))
    }

    /// Brings what `run` would fetch to [`Context::downloads`], so that `run` needs no network. Blocking; params are
    /// settled.
    fn fetch(_params: &Self::Params, _ctx: &Context) -> Result<(), Failure> {
        Ok(())
    }

    /// Blocking, in a worker. May own threads.
    fn run(params: Self::Params, inputs: Self::Inputs, ctx: &Context) -> Result<Self::Outputs, Failure>;

    /// Whether it runs code of the user's: a worker that did is not used again.
    const IS_FOREIGN: bool = false;

    /// Environment variables with keys to its remote sources, such as `HF_TOKEN`: the engine and the worker of a stage
    /// that reads one have them, no other worker.
    const CREDENTIALS: &'static [&'static str] = &[];

    /// Kinds it can keep up as a service; `serve`, `chat` and `run --serve` look them up in the registry.
    const SERVES: &'static [&'static str] = &[];

    /// Calls `ready` with its address, then serves until cancelled. No key, nothing published.
    fn serve(
        _params: Self::Params,
        _inputs: Self::Inputs,
        _ctx: &Context,
        _ready: &dyn Fn(SocketAddr),
    ) -> Result<(), Failure> {
        Err(Failure::bug(format!("`{}` serves nothing", Self::NAME)))
    }
}
