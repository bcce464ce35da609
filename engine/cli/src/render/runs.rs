//! The screen of `runs`.

use std::collections::BTreeMap;

use jiff::ZonedDateTime;
use llmflow_runtime::lineage::RunRow;
use serde::Serialize;

use super::{asked::Asked, format, style::Paint, table::Table, typed::Place, when};

/// Columns from which on there is room for the counts of stages.
const WIDE: usize = 96;
/// Longest name of a stage that is shown whole, in characters.
const MOST_NAME: usize = 20;

/// Columns of figures, and the metrics they may show: of each the first that a listed run has.
pub const FIGURES: [(&str, &[&str]); 4] = [
    ("acc", &["acc", "acc_norm", "exact_match", "f1", "win_rate"]),
    ("loss", &["eval_loss", "train_loss", "loss"]),
    ("ppl", &["perplexity"]),
    ("reward", &["reward", "reward_mean"]),
];

/// One run with the figures that are compared.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub row: RunRow,
    /// The stage at which it failed or was refused, and why.
    pub at: Option<String>,
    pub failure: Option<String>,
    pub tags: Vec<String>,
    /// By name; a run without one has a gap.
    pub figures: BTreeMap<String, f64>,
}

/// The newest runs, of which there is one.
pub fn runs(list: &[Listed], now: &ZonedDateTime, width: usize, paint: Paint) -> String {
    // Where there is no room, what is left out is what `show` says too.
    let is_wide = width >= WIDE;
    let mut table = match is_wide {
        true => Table::new(["run", "when", "status", "stages", "time", "changed"]),
        false => Table::new(["run", "when", "status", "time", "changed"]),
    };
    let several = list.iter().any(|listed| listed.row.pipeline != list[0].row.pipeline);
    let has = |name: &str| list.iter().any(|listed| listed.figures.contains_key(name));
    let columns = FIGURES.iter().filter_map(|(head, names)| Some((*head, *names.iter().find(|name| has(name))?)));
    let shown: Vec<(&str, &str)> = columns.collect();
    for (head, _) in &shown {
        table.insert_before_last(head);
    }
    if several {
        table.insert_before_last("pipeline");
    }
    for listed in list {
        let row = &listed.row;
        let status = match &listed.at {
            Some(stage) => format!("{} {}", row.status.name(), format::fit(stage, MOST_NAME)),
            None => row.status.name().to_owned(),
        };
        let time = row.seconds.map_or("–".to_owned(), format::duration);
        let mut cells = vec![row.run.to_string(), when::ago(row.started_ms, now), paint.status(&status)];
        if is_wide {
            cells.push(stages(row));
        }
        cells.push(time);
        cells.extend(shown.iter().map(|(_, name)| figure(listed, name).map_or("–".to_owned(), format::number)));
        if several {
            cells.push(format::clean(&row.pipeline));
        }
        cells.push(changed(listed, paint));
        table.row_of(cells);
    }
    table.lines(width).join("\n") + "\n"
}

fn figure(listed: &Listed, name: &str) -> Option<f64> {
    listed.figures.get(name).copied()
}

/// `8 ran 10 cached 1 failed`.
fn stages(row: &RunRow) -> String {
    let counts = [
        (row.ran, "ran"),
        (row.cached, "cached"),
        (row.failed, "failed"),
        (row.refused, "refused"),
        (row.interrupted, "interrupted"),
        (row.skipped, "skipped"),
    ];
    let words: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if words.is_empty() { "–".to_owned() } else { words.join(" ") }
}

/// In words: why it failed, what was set, what differed from the last success; a first run has nothing to differ from.
/// Its tags stand behind.
fn changed(listed: &Listed, paint: Paint) -> String {
    let row = &listed.row;
    let asked = Place::here().asked(Asked::listed(row)).words();
    let words = match &listed.failure {
        Some(failure) => format::clean(failure),
        None if !asked.is_empty() => asked.join(" "),
        None if row.is_first => "first".to_owned(),
        None => match (causes(&row.changed), &row.resumes) {
            (words, Some(run)) if words.is_empty() => format!("goes on with {run}"),
            (words, _) => words,
        },
    };
    let words = match row.limit {
        Some(limit) if words.is_empty() => format!("limited to {limit}"),
        Some(limit) => format!("limited to {limit} · {words}"),
        None => words,
    };
    let tags: Vec<String> = listed.tags.iter().map(|tag| paint.bold(&format!("[{}]", format::clean(tag)))).collect();
    [words, tags.join(" ")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

/// Without what only follows: `sft.in.data` of `unique.threshold 0.8 → 0.9, sft.in.data`. An input that reads another stage
/// says which.
fn causes(changed: &str) -> String {
    let parts: Vec<&str> = changed.split(", ").collect();
    let is_following = |part: &str| part.contains(".in.") && !part.contains(" → ");
    let causes: Vec<&str> = parts.iter().copied().filter(|part| !is_following(part)).collect();
    format::clean(&(if causes.is_empty() { parts } else { causes }).join(", "))
}

#[cfg(test)]
mod tests {
    use llmflow_runtime::event::{RunId, RunStatus};

    use super::*;

    fn listed(run: &str, status: RunStatus, changed: &str, figures: &[(&str, f64)]) -> Listed {
        let has_failed = status == RunStatus::Failed;
        let row = RunRow {
            run: RunId(run.into()),
            pipeline: "assistant".into(),
            status,
            started_ms: 1_795_499_700_000,
            seconds: Some(451.0),
            ran: 8,
            cached: u32::from(!changed.is_empty()) * 10,
            failed: u32::from(has_failed),
            refused: 0,
            skipped: 0,
            interrupted: 0,
            changed: changed.into(),
            limit: None,
            set: Vec::new(),
            params_file: None,
            profile: None,
            resumes: None,
            machine: String::new(),
            version: String::new(),
            is_first: changed.is_empty(),
        };
        Listed {
            row,
            at: has_failed.then(|| "sft".to_owned()),
            failure: has_failed.then(|| "out of memory".to_owned()),
            tags: Vec::new(),
            figures: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn runs_are_listed_with_what_changed_and_what_came_of_it() {
        let now =
            jiff::Timestamp::from_millisecond(1_795_500_000_000).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let both = [("acc", 0.7), ("eval_loss", 1.42)];
        let mut list = [
            listed("calm-heron", RunStatus::Done, "sft.lora_r 16 → 32", &both),
            listed("late-wren", RunStatus::Done, "unique.threshold 0.8 → 0.9, sft.in.data", &both),
            listed("quiet-otter", RunStatus::Done, "", &[("eval_loss", 1.47), ("loss", 9.0)]),
            listed("brave-newt", RunStatus::Failed, "", &[]),
        ];
        (list[0].row.set, list[0].row.profile) = (vec!["rank=32".into()], Some("gpu".into()));
        (list[3].row.failed, list[3].row.refused) = (0, 1);
        list[2].tags = vec!["assistant:prod".into()];
        insta::assert_snapshot!(runs(&list, &now, 120, Paint(false)), @r"
        run          when       status      stages           time   acc   loss  changed
        calm-heron   5 min ago  done        8 ran 10 cached  7m31s  0.70  1.42  --set rank=32 --profile gpu
        late-wren    5 min ago  done        8 ran 10 cached  7m31s  0.70  1.42  unique.threshold 0.8 → 0.9
        quiet-otter  5 min ago  done        8 ran            7m31s  –     1.47  first  [assistant:prod]
        brave-newt   5 min ago  failed sft  8 ran 1 refused  7m31s  –     –     out of memory
        ");
        list[2].row.limit = Some(5);
        (list[2].row.is_first, list[1].row.changed) = (false, "params.n 1 → 2, sft.in.data a.data → b.data".into());
        let text = runs(&list, &now, 120, Paint(false));
        assert!(text.contains("  limited to 5  [assistant:prod]"), "{text}");
        assert!(
            text.contains("params.n 1 → 2, sft.in.data a.data → b.data"),
            "another stage on an input is a cause: {text}"
        );
        let narrow = runs(&list, &now, 80, Paint(false));
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 80), "{narrow}");
    }
}
