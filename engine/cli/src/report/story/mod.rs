//! The story of a run: what to tell, in which order, as blocks without any markup.
//!
//! Owns: the choice and order of sections, every sentence. HTML and Markdown write the same blocks, so they agree.
//! Must not know: any operator by name: a verdict, a funnel, a curve are recognised by what a report holds.

mod data;
mod lineage;
mod outcome;
mod reproduce;
mod stages;
mod training;
mod verdict;
mod words;

use llmflow_contract::{Chart, Funnel, Sample, Table};

use super::{
    chart::{graph::Graph, line::LineChart},
    data::{ReportData, Status},
};

/// A run told from its verdict to the machine it ran on.
#[derive(Clone, Debug)]
pub struct Story {
    pub title: String,
    pub run: String,
    /// `done`, `failed` …
    pub status: &'static str,
    /// Small print under the title: when, how long, how many stages.
    pub facts: Vec<String>,
    /// Only those with something to say.
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug)]
pub struct Section {
    /// Where links lead; of this program.
    pub id: &'static str,
    pub title: &'static str,
    pub blocks: Vec<Block>,
}

/// One thing to show.
#[derive(Clone, Debug)]
pub enum Block {
    /// The sentence to remember.
    Lead(String),
    Text(String),
    Heading(String),
    /// What went wrong, then what is known about it.
    Alert {
        title: String,
        lines: Vec<String>,
    },
    Figures(Vec<Figure>),
    /// Names and values.
    Facts(Vec<(String, String)>),
    Table(Table),
    Readings(Vec<Reading>),
    Lines(Vec<LineChart>),
    /// Charts of one story, beside each other where there is room.
    Charts(Vec<Chart>),
    Funnel(Vec<(String, Funnel)>),
    Graph(Graph),
    Code {
        text: String,
        is_numbered: bool,
    },
    /// Shown when asked for.
    Fold {
        title: String,
        blocks: Vec<Block>,
    },
    Stage(Box<Card>),
}

/// A figure worth large type.
#[derive(Clone, Debug)]
pub struct Figure {
    pub label: String,
    pub value: String,
    pub note: String,
}

/// Texts to read: what was given, then what came of it side by side.
#[derive(Clone, Debug)]
pub struct Reading {
    pub title: String,
    pub figures: Vec<(String, String)>,
    pub shared: Vec<(String, String)>,
    pub sides: Vec<(String, String)>,
    /// Parts of one text in their order: `read`, `learned`.
    pub parts: Vec<(String, String)>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Card {
    pub name: String,
    pub operator: String,
    pub status: Status,
    /// Empty where nothing ran.
    pub time: String,
    pub summary: String,
    pub blocks: Vec<Block>,
}

impl Story {
    pub fn of(data: &ReportData) -> Self {
        let sections = [
            ("trouble", "What went wrong", outcome::trouble(data)),
            ("verdict", "Verdict", verdict::verdict(data)),
            ("answers", "Answers, side by side", verdict::answers(data)),
            ("data", "Data", data::funnel(data)),
            ("training", "Training", training::curves(data)),
            ("gguf", "GGUF", training::packed(data)),
            ("licences", "Licences", lineage::licences(data)),
            ("stages", "Stages", stages::stages(data)),
            ("lineage", "Which data made which model", lineage::models(data)),
            ("reproduce", "Make it again", reproduce::reproduce(data)),
        ];
        Self {
            title: data.pipeline.clone(),
            run: data.run.clone(),
            status: data.status.name(),
            facts: outcome::facts(data),
            sections: sections
                .into_iter()
                .filter(|(_, _, blocks)| !blocks.is_empty())
                .map(|(id, title, blocks)| Section { id, title, blocks })
                .collect(),
        }
    }
}

impl Reading {
    /// Names of texts that both sides share.
    const GIVEN: [&str; 7] = ["question", "prompt", "right", "gold", "reference", "system", "sentence"];

    /// What a part that is read and not learned is called, and those that are learned.
    pub const READ: &str = "read";
    const LEARNED: [&str; 3] = ["learned", "chosen", "rejected"];

    fn of(sample: &Sample) -> Self {
        let is_part = |name: &str| name == Self::READ || Self::LEARNED.contains(&name);
        let learned = sample.texts.iter().any(|(name, _)| name == Self::READ || name == Self::LEARNED[0]);
        if learned && sample.texts.iter().all(|(name, _)| is_part(name)) {
            return Self::of_parts(sample);
        }
        let is_given = |name: &str| Self::GIVEN.contains(&name);
        let (shared, sides): (Vec<_>, Vec<_>) = sample.texts.iter().cloned().partition(|(name, _)| is_given(name));
        let is_said = shared.first().is_some_and(|(_, text)| *text == sample.title);
        let title = if is_said { String::new() } else { sample.title.clone() };
        Self { title, figures: figures(sample), shared, sides, parts: Vec::new() }
    }

    fn of_parts(sample: &Sample) -> Self {
        let parts = sample.texts.clone();
        let (shared, sides) = (Vec::new(), Vec::new());
        Self { title: sample.title.clone(), figures: figures(sample), shared, sides, parts }
    }
}

fn figures(sample: &Sample) -> Vec<(String, String)> {
    sample.metrics.iter().map(|(name, value)| (name.clone(), words::figure(name, *value))).collect()
}
