//! One file a command: what it asks of the engine, and which screen answers.

mod chat;
mod check;
mod completions;
mod devices;
mod diff;
mod doctor;
mod explain;
mod export;
mod fetch;
mod gc;
mod history;
mod init;
mod lineage;
mod logs;
mod operators;
mod pipeline_file;
mod plan;
mod rebuild;
mod resume;
mod ro_crate;
mod rows;
mod run;
mod runs;
mod schema;
mod serve;
mod show;
mod tag;
mod verify;

use llmflow_contract::{Class, Failure, Registry};
use llmflow_runtime::{device, run as engine, run::Error};

use crate::{
    args::{Cli, Command},
    render::{error, screen::Screen},
    template::Template,
};

/// What a command needs besides its own arguments.
pub struct Setting<'a> {
    pub registry: &'a Registry,
    pub screen: &'a Screen,
    pub templates: &'a [Template],
    /// `--home`
    pub home: Option<std::path::PathBuf>,
}

/// Exit code of a command that did what it was asked.
const DONE: u8 = 0;

/// Does what is asked; the exit code is that of DESIGN.md §6.
pub fn dispatch(cli: Cli, registry: &Registry, templates: &[Template], screen: &Screen) -> u8 {
    let setting = Setting { registry, screen, templates, home: cli.global.home };
    let result = match cli.command {
        Command::Worker => return engine::worker_main(registry).try_into().unwrap_or(1),
        Command::LookForDevices => return device::child_main().try_into().unwrap_or(1),
        Command::Init(args) => init::init(args, &setting),
        Command::Check(args) => check::check(args, &setting),
        Command::Plan(args) => plan::plan(args, &setting),
        Command::Fetch(args) => fetch::fetch(args, &setting),
        Command::Run(args) => run::run(args, &setting),
        Command::Resume(args) => resume::resume(args, &setting),
        Command::Operators(args) => operators::operators(args, &setting),
        Command::Schema => schema::schema(&setting),
        Command::Devices => devices::devices(&setting),
        Command::Runs(args) => runs::runs(args, &setting),
        Command::Show(args) => show::show(args, &setting),
        Command::Lineage(args) => lineage::lineage(args, &setting),
        Command::Logs(args) => logs::logs(args, &setting),
        Command::Doctor(args) if args.rebuild => rebuild::rebuild(&setting),
        Command::Doctor(_) => doctor::doctor(&setting),
        Command::Diff(args) => diff::diff(args, &setting),
        Command::Explain(args) => explain::explain(args, &setting),
        Command::Export(args) => export::export(args, &setting),
        Command::Verify(args) => verify::verify(args, &setting),
        Command::Gc(args) => gc::gc(args, &setting),
        Command::Tag(args) => tag::tag(args, &setting),
        Command::Completions(args) => completions::completions(args, &setting),
        Command::Chat(args) => chat::chat(args, &setting),
        Command::Serve(args) => serve::serve(args, &setting),
    };
    result.unwrap_or_else(|error| report(&error, screen))
}

/// Says why nothing ran.
fn report(error: &Error, screen: &Screen) -> u8 {
    match error {
        Error::Bad(diagnostics) if screen.json => screen.print_json(&serde_json::json!({ "errors": diagnostics })),
        Error::Bad(diagnostics) => screen.warn(&error::diagnostics(diagnostics, screen.talk.0)),
        Error::Failure(failure) if failure.class == Class::Cancelled => screen.say("stopped as asked"),
        Error::Failure(failure) => screen.fail(failure),
    }
    error.exit_code()
}

/// Runs what waits to its end.
fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::environment("cli/threads", "no threads can start").cause(error))?;
    runtime.block_on(future)
}
