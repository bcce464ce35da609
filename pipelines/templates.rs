//! The pipelines that `llmflow init` writes, with the data they read, from inside the program.

use llmflow_cli::Template;

/// A file of this folder, under its name here.
macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_bytes!($path))),*] };
}

/// The documents that pipelines teach, and further files.
macro_rules! docs_and {
    ($($path:literal),* $(,)?) => {
        files![
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
            $($path),*
        ]
    };
}

/// The first is the one that is taken where none is named.
pub const ALL: &[Template] = &[
    Template {
        pipeline: include_str!("tiny.yaml"),
        name: "tiny",
        data: docs_and!["data/tiny/corpus.jsonl", "data/tiny/instructions.jsonl", "data/tiny/questions.jsonl",],
    },
    Template {
        pipeline: include_str!("assistant.yaml"),
        name: "assistant",
        data: docs_and!["data/instructions.jsonl", "data/general_prompts.jsonl", "data/questions.jsonl",],
    },
    Template {
        pipeline: include_str!("with_your_trainer.yaml"),
        name: "with_your_trainer",
        data: files!["data/tiny/instructions.jsonl", "data/trainer/bigram.py", "data/trainer/tidy.py"],
    },
];
