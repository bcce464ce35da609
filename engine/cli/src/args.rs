//! What can be typed. Help text is the doc comment of each argument.

use std::path::PathBuf;

use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use llmflow_runtime::plan::Selection;

use crate::render::graph;

/// One YAML file from raw rows to a served language model: typed, cached, resumable, with its full lineage.
#[derive(Parser, Debug)]
#[command(name = "llmflow", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Arguments that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Print JSON: one event a line on `run` and `resume`, one document elsewhere
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour; NO_COLOR turns `auto` off
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
    /// One line a happening instead of the live view
    #[arg(long, global = true)]
    pub plain: bool,
    /// Where state lies, instead of the nearest `.llmflow`
    #[arg(long, global = true, env = "LLMFLOW_HOME", hide_env_values = true, value_name = "FOLDER")]
    pub home: Option<PathBuf>,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: what stages print
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// A pipeline file with its params.
#[derive(Args, Clone, Debug)]
pub struct PipelineArgs {
    /// The pipeline file; without it, the only one in this folder
    pub pipeline: Option<PathBuf>,
    /// Rehearse: at most N rows of a source and N steps of a training, through every stage; nothing is published
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Set a param, or a param of a stage: `rank=32`, `sft.lora_r=32`
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Read params from a YAML or JSON file: `rank: 32`, `sft.lora_r: 32`; --set wins
    #[arg(long, value_name = "FILE")]
    pub params_file: Option<PathBuf>,
    /// Lay one of the file's `profiles` over its params, `with` and `resources`
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
}

/// Which stages of a pipeline.
#[derive(Args, Clone, Debug, Default)]
pub struct SelectionArgs {
    /// Only these stages and what they need; a name means all of a matrix
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
    /// Only these stages, what depends on them, and what those need
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// Run what is named, or everything, although its result is there
    #[arg(long)]
    pub force: bool,
    /// Compute anew what only another device has computed: by default a GPU's result serves on the CPU, and the other way round
    #[arg(long)]
    pub exact: bool,
}

impl SelectionArgs {
    pub fn selection(&self) -> Selection {
        let (only, from) = (names(&self.only), names(&self.from));
        Selection { only, from, force: self.force, exact: self.exact, ..Selection::default() }
    }
}

/// Names that commas keep apart; one of a matrix has commas of its own: `sft@lr=0.1,rank=8`.
fn names(given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for text in given {
        let mut is_first = true;
        for piece in text.split(',') {
            let goes_on = !is_first && piece.contains('=') && !piece.contains('@');
            match names.last_mut().filter(|_| goes_on) {
                Some(name) => name.extend([",", piece]),
                None => names.push(piece.to_owned()),
            }
            is_first = false;
        }
    }
    names
}

/// How remote sources are pinned.
#[derive(Args, Clone, Copy, Debug)]
pub struct LockArgs {
    /// Refuse to change `llmflow.lock`: a remote source that is not in it is an error
    #[arg(long, conflicts_with = "refresh")]
    pub locked: bool,
    /// Ask every remote source anew what it holds, and change `llmflow.lock`
    #[arg(long)]
    pub refresh: bool,
}

/// How remote sources are pinned, and whether they may be asked.
#[derive(Args, Clone, Copy, Debug)]
pub struct RemoteArgs {
    #[command(flatten)]
    pub lock: LockArgs,
    /// Leave the network alone: what is not on this machine is an error (`llmflow fetch` brings it)
    #[arg(long, conflicts_with = "refresh")]
    pub offline: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Write a pipeline to begin with, and its data, into a folder
    Init(InitArgs),
    /// Check a pipeline file: names, types, ranges, cycles; run nothing
    Check(PipelineArgs),
    /// Say what `run` would do, and why
    Plan(PlanArgs),
    /// Download every remote source of a pipeline, so that a run needs no network
    Fetch(FetchArgs),
    /// Run a pipeline; what is done already is not done again
    Run(RunArgs),
    /// Go on with a run: its own file and params, from where it stood
    Resume(ResumeArgs),
    /// List the newest runs
    Runs(RunsArgs),
    /// Show a run, a stage, or the rows of a dataset
    Show(ShowArgs),
    /// Print what a stage printed
    Logs(LogsArgs),
    /// Say why a stage ran, or why it did not
    Explain(ExplainArgs),
    /// Say why two runs differ, and in what
    Diff(DiffArgs),
    /// Show what an artifact was made from and what was made of it, down to one row
    Lineage(LineageArgs),
    /// Copy what a stage gave to a place of yours
    Export(ExportArgs),
    /// Read the store again and say what is damaged, and whose it is
    Verify(VerifyArgs),
    /// Delete what no kept run needs and what is older than an hour; than a week in a store that is no folder
    Gc(GcArgs),
    /// Name a run, so that gc keeps it; without arguments, list the names
    Tag(TagArgs),
    /// List the operators, or describe one
    Operators(OperatorsArgs),
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// Show what this machine offers, and what of it is used
    Devices,
    /// Try out the machine and the state, and say what to do where something is broken
    Doctor(DoctorArgs),
    /// Keep a model up as an OpenAI-compatible server
    Serve(ServeArgs),
    /// Talk to a model that a run made
    Chat(ChatArgs),
    /// Print the script that lets a shell complete what you type
    ///
    /// bash: `source <(llmflow completions bash)` in ~/.bashrc; zsh: `llmflow completions zsh > ~/.zfunc/_llmflow`;
    /// fish: `llmflow completions fish > ~/.config/fish/completions/llmflow.fish`
    Completions(CompletionsArgs),
    /// A worker process
    #[command(name = "__worker", hide = true)]
    Worker,
    /// The child that looks for GPUs
    #[command(name = "__devices", hide = true)]
    LookForDevices,
}

#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Where to; without it, this folder
    pub folder: Option<PathBuf>,
    /// Which pipeline: `tiny` has the whole life of a model in a minute; a wrong name lists them all
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
}

#[derive(Args, Clone, Copy, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// End with exit code 4 where something is left to run
    #[arg(long)]
    pub exit_code: bool,
    /// Draw the stages as a graph
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub graph: Option<graph::Format>,
}

#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    pub lock: LockArgs,
}

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Run at most N stages at once
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Start nothing more once a stage has failed
    #[arg(long)]
    pub fail_fast: bool,
    /// Keep the deployed model up afterwards
    #[arg(long)]
    pub serve: bool,
    /// Only say what would run, as `plan` does
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ResumeArgs {
    /// The run; without it, the newest that is not finished
    pub run: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub struct RunsArgs {
    /// How many
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Only runs of this pipeline
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Only runs that ended so
    #[arg(long, value_name = "STATUS", value_parser = ["running", "done", "failed", "refused", "interrupted"])]
    pub status: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// `@` (newest run), `@-1`, a run's name or tag, `RUN/STAGE`, `RUN/STAGE.PORT`
    #[arg(default_value = "@")]
    pub address: String,
    /// Print the first N rows of a dataset
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "5", value_parser = at_least_one)]
    pub rows: Option<usize>,
    /// Print only rows that contain this text
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Print the rows that the stage dropped or set aside, with the rule
    #[arg(long)]
    pub dropped: bool,
    /// Print the N-th sample of the stage's report, what is learned of it marked
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["rows", "grep", "dropped"])]
    pub example: Option<u32>,
    /// Show every stage of a long run; every param and metric of a stage, its tables and samples
    #[arg(long)]
    pub all: bool,
    /// Open the run's report in the browser
    #[arg(long, conflicts_with_all = ["rows", "grep", "dropped", "example"])]
    pub open: bool,
}

#[derive(Args, Clone, Debug)]
pub struct LogsArgs {
    /// A stage of a run: `@/sft`
    pub address: String,
    /// Which attempt, from 1; without it, the last
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Go on printing until the stage ends
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A stage of a run: `@/sft`
    pub address: String,
}

#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// The older run, or a stage of it: `@-1`, `@-1/sft`; alone, the run to compare with the one before it
    #[arg(value_name = "A")]
    pub before: Option<String>,
    /// The newer run, or a stage of it
    #[arg(value_name = "B")]
    pub now: Option<String>,
    /// Show the questions whose answers changed
    #[arg(long)]
    pub answers: bool,
    /// Show which rows of the datasets differ, and what became of them
    #[arg(long)]
    pub rows: bool,
    /// Show everything that differs, not the first of each
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Clone, Debug)]
pub struct LineageArgs {
    /// A stage or one of its outputs: `@/sft.adapter`; or a whole run: `@`
    #[arg(default_value = "@")]
    pub address: String,
    /// Follow one row back to its source and on to its end: its id, or the start of it
    #[arg(long, value_name = "ID")]
    pub row: Option<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = LineageFormat::Text)]
    pub format: LineageFormat,
    /// The new folder of a crate
    #[arg(long, value_name = "FOLDER", required_if_eq("format", "ro-crate"))]
    pub to: Option<PathBuf>,
}

/// How a lineage is written.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineageFormat {
    /// For a terminal
    Text,
    /// For Markdown that draws diagrams
    Mermaid,
    /// For Graphviz
    Dot,
    /// OpenLineage events of the run, a JSON line each
    Openlineage,
    /// A folder for archives: the run's results, and in JSON-LD what they were made from
    RoCrate,
}

#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Make `lineage.db` anew from what the store remembers; the old file is kept beside it
    #[arg(long)]
    pub rebuild: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A stage or one of its outputs: `@/sft.adapter`; with --format, a whole run: `@`
    pub address: String,
    /// A file or a folder that is not there yet; `.jsonl` and `.parquet` take the rows of a dataset
    pub path: Option<PathBuf>,
    /// Write a whole run in a form that others read, without PATH into `RUN-crate`
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
}

/// How a whole run is written.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder for archives: the run's results, and in JSON-LD what they were made from
    RoCrate,
}

#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Read this share of the files, drawn by chance: `5%`; records and manifests are read all the same
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = share)]
    pub sample: f64,
    /// Set aside what is damaged: the next run makes it anew
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub at: StoreArgs,
}

#[derive(Args, Clone, Debug)]
pub struct GcArgs {
    /// Only say what would go, and what it would cost
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Keep the newest N runs of each pipeline file
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub keep: usize,
    /// Keep every run of the last N days too
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_days: u64,
    /// Delete what programs and judges of rows answered if nothing asked for it in N days (on an object store: if it is
    /// older); a stage that needs it asks, and pays, again
    #[arg(long, value_name = "N")]
    pub answer_days: Option<u64>,
    #[command(flatten)]
    pub at: StoreArgs,
}

#[derive(Args, Clone, Debug)]
pub struct TagArgs {
    /// `@` (newest run), `@-1`, a run's name or tag
    #[arg(requires = "name")]
    pub run: Option<String>,
    /// Letters, digits, `.`, `-`, `_`: `release-2`
    pub name: Option<String>,
    /// Take this name away
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    pub remove: Option<String>,
    #[command(flatten)]
    pub at: StoreArgs,
}

/// Which store.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// Another store than the home's own: `s3://bucket/prefix`
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "write a number from 1 on".to_owned())
}

/// Reads `5%` as 0.05.
fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| "write a share from 0% to 100%".to_owned())
}

#[derive(Args, Clone, Debug)]
pub struct OperatorsArgs {
    /// An operator, or a family such as `data`
    pub name: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// A stage that gives a model: `@/gguf`
    pub address: String,
    /// Set a param of the server: `port=8080`
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub struct ChatArgs {
    /// A stage that gives a model: `@/gguf`
    pub address: String,
    /// Ask this and end; without it, a conversation
    pub question: Option<String>,
    /// The system line
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// 0 takes the likeliest token
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }

    /// What people read with `--help`: a change of it is seen in review.
    #[test]
    fn the_help_of_every_command_is_as_it_was() {
        let mut text = Cli::command().term_width(100).render_long_help().to_string();
        let mut cli = Cli::command().term_width(100);
        cli.build();
        for command in cli.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let help = command.render_long_help();
            text.push_str(&format!("\n--- {}\n{help}", command.get_name()));
        }
        insta::assert_snapshot!("help", text);
    }

    #[test]
    fn a_comma_ends_a_stage_unless_it_stands_in_the_name_of_one_of_a_matrix() {
        let cli = Cli::try_parse_from(["llmflow", "run", "a.yaml", "--only", "a,t@a=1,b=2,c", "--only", "t@a=1,b=3"]);
        let Command::Run(run) = cli.unwrap().command else { panic!("another command") };
        assert_eq!(run.selection.selection().only, ["a", "t@a=1,b=2", "c", "t@a=1,b=3"]);
    }

    #[test]
    fn global_arguments_may_stand_behind_the_command() {
        let cli =
            Cli::try_parse_from(["llmflow", "run", "a.yaml", "--set", "rank=32", "--json", "--home", "x"]).unwrap();
        assert!(cli.global.json && cli.global.home.is_some());
        assert!(matches!(cli.command, Command::Run(run) if run.pipeline.set == ["rank=32"]));
        assert!(Cli::try_parse_from(["llmflow", "runs", "-q", "-v"]).is_err());
    }
}
