//! The program `llmflow`: the command line, the operators and the templates, composed.

use std::process::ExitCode;

#[path = "pipelines/templates.rs"]
mod templates;

fn main() -> ExitCode {
    llmflow_cli::main(llmflow_catalog::registry(), templates::ALL)
}
