//! The program `llmflow`. Its commands are not joined to the engine yet, and it says so rather than seem to succeed.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("llmflow runs no command yet: its parts are built and tested one by one (README: Under construction)");
    ExitCode::from(101)
}
