//! How to make it again: the command, the file, the machine.

use std::path::{Path, PathBuf};

use super::{
    super::data::ReportData,
    Block,
    words::{listed, moment},
};
use crate::render::{
    asked::Asked,
    format::{bytes, counted, duration},
};

pub fn reproduce(data: &ReportData) -> Vec<Block> {
    let file = data.source.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let command = asked(data).command_elsewhere(file.as_deref().unwrap_or("pipeline.yaml"));
    let mut blocks = vec![
        Block::Code { text: command, is_numbered: false },
        Block::Text(
            "The same file, inputs and seed give the same digests on machines of the same numerics class.".to_owned(),
        ),
        Block::Facts(facts(data)),
    ];
    if !data.source.text.is_empty() {
        let code = Block::Code { text: data.source.text.clone(), is_numbered: true };
        blocks.push(Block::Fold { title: "The pipeline as it ran".to_owned(), blocks: vec![code] });
    }
    blocks
}

/// What was asked, as it is typed in the folder of the pipeline.
fn asked(data: &ReportData) -> Asked {
    let folder = data.source.path.parent().unwrap_or(Path::new(""));
    let from_folder = |path: &PathBuf| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let params_file = data.source.asked.params_file.as_ref().map(from_folder);
    Asked { params_file, ..data.source.asked.clone() }
}

fn facts(data: &ReportData) -> Vec<(String, String)> {
    let compute = &data.machine.compute;
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push((name.to_owned(), value));
        }
    };
    add("run", data.run.clone());
    add("started", moment(data.started_ms));
    add("took", data.seconds.map(duration).unwrap_or_default());
    let params = data.source.params.iter().map(|(name, value)| format!("{name} {value}"));
    add("params", params.collect::<Vec<_>>().join(" · "));
    add("llmflow", data.machine.versions.join(", "));
    add("machine", data.machine.names.join(", "));
    if compute.cores > 0 {
        add(
            "processor",
            format!("{}, {} of memory", counted(compute.cores.into(), "thread"), bytes(compute.memory_bytes)),
        );
    }
    let names: Vec<String> = compute.gpus.iter().map(|gpu| gpu.name.clone()).collect();
    add("GPUs", gpus(&names, compute.usable_gpus.max(compute.asked_gpus)));
    add("file", data.source.path.display().to_string());
    add("home", data.machine.home.display().to_string());
    let published: Vec<String> = data.published.iter().map(|path| path.display().to_string()).collect();
    add("published", published.join(", "));
    facts
}

/// A GPU that was there and not used is said.
fn gpus(found: &[String], used: u32) -> String {
    let names = listed(found);
    match (found.len(), used as usize) {
        (0, _) => "none".to_owned(),
        (_, 0) => format!("{names}: found, not used"),
        (count, used) if used < count => format!("{names}: {used} of {count} used"),
        _ => names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_gpu_is_said() {
        assert_eq!(gpus(&[], 0), "none");
        assert_eq!(gpus(&["H100".into()], 0), "H100: found, not used");
        assert_eq!(gpus(&["A".into(), "B".into()], 2), "A and B");
    }
}
