//! The command line: what people type, and how LLMflow answers.
//!
//! Must not know: any operator by name, tensors, how a stage is scheduled.
//! Start at [`main`]: it reads the arguments and hands over to one file of [`command`]; what people see is in [`render`].

mod args;
mod command;
mod interrupt;
pub mod render;
pub mod report;
mod template;

use std::process::ExitCode;

use clap::Parser;
use llmflow_contract::Registry;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use render::{
    notes::{Above, Notes},
    screen::Screen,
};
pub use template::Template;

/// Reads the arguments, does what they ask with these operators and templates, and gives the exit code of DESIGN.md §6.
pub fn main(registry: Registry, templates: &[Template]) -> ExitCode {
    llmflow_runtime::tls::use_ring();
    let cli = Cli::parse(); // what cannot be read ends here with exit code 2
    keep_logs(&cli);
    let screen = Screen::new(&cli.global);
    ExitCode::from(screen.close(command::dispatch(cli, &registry, templates, &screen)))
}

/// Sends what is logged to standard error: of a worker that becomes its stage's log; elsewhere a warning is a note to the
/// user. `LLMFLOW_LOG` filters it.
fn keep_logs(cli: &Cli) {
    let level = match (&cli.command, cli.global.verbose) {
        (Command::Worker, _) => "info",
        (_, 2..) => "debug",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_env("LLMFLOW_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time();
    let _ = match &cli.command {
        Command::Worker => logs.with_writer(std::io::stderr).try_init(),
        _ => logs.event_format(Notes::default()).with_writer(|| Above).try_init(),
    }; // a second start in one process keeps the first
}
