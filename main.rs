//! The program `llmflow`: the command line and the operators, composed.

use std::process::ExitCode;

fn main() -> ExitCode {
    llmflow_cli::main(llmflow_catalog::registry())
}
