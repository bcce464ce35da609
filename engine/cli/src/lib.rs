//! The command line: what people type, and how LLMflow answers.
//!
//! Must not know: any operator by name, tensors, how a stage is scheduled.
//! Start at [`main`]: it reads the arguments and hands over to one file of [`command`]; what people see is in [`render`].

mod args;
mod command;
mod interrupt;
pub mod render;
pub mod report;

use std::process::ExitCode;

use clap::Parser;
use llmflow_contract::Registry;

use args::Cli;
use render::screen::Screen;

/// Reads the arguments, does what they ask with these operators, and gives the exit code of DESIGN.md §6.
pub fn main(registry: Registry) -> ExitCode {
    let cli = Cli::parse(); // what cannot be read ends here with exit code 2
    let screen = Screen::new(&cli.global);
    ExitCode::from(command::dispatch(cli, &registry, &screen))
}
