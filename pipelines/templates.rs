//! The pipelines that `llmflow init` writes, with the data they read, from inside the program.

use llmflow_cli::Template;

/// A file of this folder, under its name here.
macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_bytes!($path))),*] };
}

/// The first is the one that is taken where none is named.
pub const ALL: &[Template] = &[
    Template {
        pipeline: include_str!("tiny.yaml"),
        name: "tiny",
        data: files![
            "data/docs/caching.md",
            "data/docs/command_line.md",
            "data/docs/data.md",
            "data/docs/evaluation.md",
            "data/docs/lineage.md",
            "data/docs/overview.md",
            "data/docs/pipeline_file.md",
            "data/docs/running.md",
            "data/docs/shipping.md",
            "data/docs/store.md",
            "data/docs/training.md",
            "data/tiny/corpus.jsonl",
            "data/tiny/instructions.jsonl",
            "data/tiny/questions.jsonl",
        ],
    },
    Template {
        pipeline: include_str!("assistant.yaml"),
        name: "assistant",
        data: files![
            "data/docs/caching.md",
            "data/docs/command_line.md",
            "data/docs/data.md",
            "data/docs/evaluation.md",
            "data/docs/lineage.md",
            "data/docs/overview.md",
            "data/docs/pipeline_file.md",
            "data/docs/running.md",
            "data/docs/shipping.md",
            "data/docs/store.md",
            "data/docs/training.md",
            "data/instructions.jsonl",
            "data/general_prompts.jsonl",
            "data/questions.jsonl",
        ],
    },
    Template {
        pipeline: include_str!("with_your_trainer.yaml"),
        name: "with_your_trainer",
        data: files!["data/tiny/instructions.jsonl", "data/trainer/bigram.py", "data/trainer/tidy.py"],
    },
];
