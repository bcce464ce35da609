//! `completions`

use clap::CommandFactory;
use llmflow_runtime::run::Error;

use super::{DONE, Setting};
use crate::args::{Cli, CompletionsArgs};

/// Prints the script that makes a shell complete commands and options.
pub fn completions(args: CompletionsArgs, setting: &Setting) -> Result<u8, Error> {
    setting.screen.print(&script(args));
    Ok(DONE)
}

fn script(args: CompletionsArgs) -> String {
    let mut script = Vec::new();
    let mut shown = visible(Cli::command());
    clap_complete::generate(args.shell, &mut shown, "llmflow", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The commands that people type: the program's own children are none of them.
fn visible(whole: clap::Command) -> clap::Command {
    let commands: Vec<clap::Command> = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned().collect();
    let mut shown = clap::Command::new("llmflow").args(whole.get_arguments().cloned()).subcommands(commands);
    shown.build();
    shown
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn every_shell_completes_the_commands_people_type() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(CompletionsArgs { shell });
            for command in Cli::command().get_subcommands() {
                // A whole word: bash names its functions after commands, such as `llmflow__devices`.
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                let is_offered = script.split(|c| !is_part(c)).any(|word| word == command.get_name());
                assert_eq!(is_offered, !command.is_hide_set(), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("home"), "{shell} knows the options");
        }
    }
}
