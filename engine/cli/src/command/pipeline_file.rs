//! Which pipeline file is meant.

use std::path::{Path, PathBuf};

use llmflow_contract::{Failure, Registry};
use llmflow_runtime::{
    pipeline::{self, Loaded, Overrides, SourceFile},
    remote::{self, Locking},
    run::Options,
};

use crate::{
    args::{LockArgs, PipelineArgs, RemoteArgs},
    render::typed::quoted,
};

/// The named file, else the only YAML file of this folder.
///
/// # Errors
/// `cli/pipeline` if there is none, or more than one.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(".").map_err(|error| Failure::io("listing", ".", &error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())))
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml") && holds_stages(path))
        .collect();
    found.sort();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::input("cli/pipeline", "there is no pipeline file in this folder")
            .help("name one: llmflow run FILE.yaml")),
        [first, ..] => {
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::input("cli/pipeline", format!("which pipeline? here are {}", names.join(", ")))
                .help(format!("name it after the command: {}", quoted(&first.display().to_string()))))
        }
    }
}

/// A file that has a line `stages:` is meant as a pipeline.
fn holds_stages(path: &Path) -> bool {
    let is_small = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= 8 << 20);
    is_small && std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with("stages:")))
}

/// What `run`, `plan` and `fetch` are asked.
pub fn options(args: &PipelineArgs, remote: RemoteArgs, home: Option<&Path>) -> Result<Options, Failure> {
    let overrides = overrides(args)?;
    let locking = match remote.lock {
        LockArgs { locked: true, .. } => Locking::Fixed,
        LockArgs { refresh: true, .. } => Locking::Refresh,
        _ => Locking::Extend,
    };
    let remote = remote::Options { locking, is_offline: remote.offline };
    let pipeline = find(args.pipeline.as_deref())?;
    Ok(Options { pipeline, home: home.map(Path::to_owned), overrides, remote, ..Options::default() })
}

/// What is asked in place of what the file says.
///
/// # Errors
/// A file of params that cannot be read.
pub fn overrides(args: &PipelineArgs) -> Result<Overrides, Failure> {
    let params_file = args.params_file.as_deref().map(SourceFile::read_params).transpose()?;
    // As the run's record has it: it is named again from anywhere.
    let params_file = params_file.map(|file| SourceFile { path: file.absolute_path(), ..file });
    let (set, profile, limit) = (args.set.clone(), args.profile.clone(), args.limit);
    Ok(Overrides { set, params_file, profile, limit, ..Overrides::default() })
}

/// The file as far as it can be read: for its name, and for what it deploys.
pub fn load(options: &Options, registry: &Registry) -> Result<Loaded, Failure> {
    Ok(pipeline::load(SourceFile::read(&options.pipeline)?, &options.overrides, registry))
}
