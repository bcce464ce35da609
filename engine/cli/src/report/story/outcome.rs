//! How the run ended: the line under its title, and what went wrong.

use std::collections::BTreeSet;

use super::{
    super::data::{ReportData, StageData, Status},
    Block,
    words::{listed, moment},
};
use crate::render::format::{counted, duration, limited};

/// When, how long, how many stages.
pub fn facts(data: &ReportData) -> Vec<String> {
    let mut facts = vec![moment(data.started_ms)];
    facts.extend(data.seconds.map(duration));
    facts.push(counts(data));
    facts.extend(data.source.asked.limit.map(limited));
    if !data.changed.is_empty() {
        facts.push(format!("changed: {}", data.changed));
    }
    facts.retain(|fact| !fact.is_empty());
    facts
}

/// `20 stages: 18 ran, 2 cached`
pub fn counts(data: &ReportData) -> String {
    const SHOWN: [Status; 7] = [
        Status::Ran,
        Status::Cached,
        Status::Failed,
        Status::Refused,
        Status::Skipped,
        Status::Interrupted,
        Status::NotStarted,
    ];
    let counted_by = SHOWN.map(|status| (data.count(status), status.name()));
    let parts: Vec<String> =
        counted_by.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    format!("{}: {}", counted(data.stages.len() as u64, "stage"), parts.join(", "))
}

/// Stages that failed, were refused or interrupted, and what they took with them.
pub fn trouble(data: &ReportData) -> Vec<Block> {
    let mut blocks = Vec::new();
    for stage in &data.stages {
        let Some(alert) = alert(stage) else { continue };
        blocks.push(alert);
        if !stage.log.is_empty() {
            let code = Block::Code { text: stage.log.join("\n"), is_numbered: false };
            blocks.push(Block::Fold { title: format!("The last lines of {}'s log", stage.stage), blocks: vec![code] });
        }
    }
    let names = taken_along(data);
    if !names.is_empty() {
        blocks.push(Block::Text(format!("Skipped because of it: {}.", listed(&names))));
    }
    blocks
}

/// Stages that were skipped because one above them broke, by name; not those whose `when` does not hold.
fn taken_along(data: &ReportData) -> Vec<String> {
    let (mut gone, mut names) = (BTreeSet::new(), Vec::new());
    // In an order that ran: what a stage needs comes before it.
    for stage in &data.stages {
        match stage.status {
            Status::Failed | Status::Refused | Status::Interrupted => {}
            Status::Skipped if stage.needs.iter().any(|need| gone.contains(need)) => {
                names.push(stage.stage.to_string());
            }
            _ => continue,
        }
        gone.insert(&stage.stage);
    }
    names
}

/// What is wrong with a stage, if anything is.
pub fn alert(stage: &StageData) -> Option<Block> {
    let name = &stage.stage;
    if let Some((_, why)) = &stage.refused {
        let lines = vec![why.clone(), "The result is kept; what depends on it was skipped.".to_owned()];
        return Some(Block::Alert { title: format!("{name} was refused"), lines });
    }
    match (stage.status, &stage.failure) {
        (Status::Failed, Some(failure)) => {
            let mut lines = failure.causes.clone();
            lines.extend(failure.at.as_ref().map(|place| match place.line {
                Some(line) => format!("at {}:{line}", place.file.display()),
                None => format!("at {}", place.file.display()),
            }));
            lines.push(format!("{} after {}", failure.code, counted(u64::from(stage.attempts.max(1)), "attempt")));
            lines.extend(failure.help.as_ref().map(|help| format!("help: {help}")));
            Some(Block::Alert { title: format!("{name} failed: {}", failure.message), lines })
        }
        (Status::Failed, None) => Some(Block::Alert { title: format!("{name} failed"), lines: Vec::new() }),
        (Status::Refused, _) => Some(Block::Alert { title: format!("{name} was refused"), lines: Vec::new() }),
        (Status::Interrupted, _) => Some(Block::Alert {
            title: format!("{name} was interrupted"),
            lines: vec!["What it had saved is where it goes on.".to_owned()],
        }),
        _ => None,
    }
}
