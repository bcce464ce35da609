//! Events as plain lines, one a happening: for a pipe, a log file, `--plain`. Symbols stand beside words.

use std::collections::BTreeMap;

use llmflow_contract::StageId;
use llmflow_runtime::event::{Event, What};

use super::{format, header};

/// Milliseconds between two progress lines of one stage.
const QUIET_MS: u64 = 10_000;

/// Turns events into lines; remembers only when each stage last spoke.
#[derive(Debug, Default)]
pub struct Plain {
    spoke_ms: BTreeMap<StageId, u64>,
}

impl Plain {
    /// The lines that an event is worth.
    pub fn lines(&mut self, event: &Event) -> Vec<String> {
        let Some(stage) = &event.stage else { return run_lines(event) };
        let line = match &event.what {
            What::Started { attempt: 1 } => "… started".to_owned(),
            What::Started { attempt } => format!("… started, attempt {attempt}"),
            What::Restored => "… goes on from its checkpoint".to_owned(),
            What::Progress(progress) => {
                let last = self.spoke_ms.get(stage).copied().unwrap_or(0);
                if event.at_ms.saturating_sub(last) < QUIET_MS {
                    return Vec::new();
                }
                let total = progress.total.map(|total| format!("/{}", format::count(total))).unwrap_or_default();
                format!("… {}{total} {}", format::count(progress.done), progress.unit)
            }
            What::Finished(finished) => {
                format!("✓ done    {:>6}  {}", format::clock(finished.seconds), finished.summary)
            }
            What::Cached(finished) => format!("✓ cached       –  {}", finished.summary),
            What::Skipped { because } => format!("○ skipped      –  {because}"),
            What::Failed { failure, retry_in_ms: Some(wait) } => {
                format!("✗ failed, tries again in {}: {failure}", format::duration(*wait as f64 / 1000.0))
            }
            What::Failed { failure, retry_in_ms: None } => format!("✗ failed: {failure}"),
            What::Refused { expression, why } => format!("✗ refused: `{expression}` is false ({why})"),
            What::Log { level, message } if level == "warn" || level == "error" => format!("  {level}: {message}"),
            _ => return Vec::new(),
        };
        self.spoke_ms.insert(stage.clone(), event.at_ms);
        vec![format::fit(&format!(" {stage:<12} {line}"), usize::from(u16::MAX))]
    }
}

fn run_lines(event: &Event) -> Vec<String> {
    match &event.what {
        What::RunStarted { pipeline, plan, compute, home, disk_free_bytes } => {
            header::header(pipeline, &event.run, plan, compute, home, *disk_free_bytes).into()
        }
        What::Published { path, bytes, unchanged: false } => {
            vec![format!("published {} ({})", path.display(), format::bytes(*bytes))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Failure, Progress};
    use llmflow_runtime::event::{Finished, RunId};

    use super::*;

    fn event(at_ms: u64, what: What) -> Event {
        Event { at_ms, run: RunId("quiet-otter".into()), stage: Some(StageId::from("clean")), what }
    }

    #[test]
    fn a_stage_that_ends_gives_one_line_with_a_word_beside_the_symbol() {
        let finished = Finished { summary: "301 kept · 4 too_short".into(), seconds: 61.0, ..Finished::default() };
        let lines = Plain::default().lines(&event(1, What::Finished(finished)));
        assert_eq!(lines, [" clean        ✓ done      1:01  301 kept · 4 too_short"]);
        let failed = What::Failed { failure: Failure::input("x/y", "no rows"), retry_in_ms: None };
        assert_eq!(Plain::default().lines(&event(1, failed)), [" clean        ✗ failed: no rows"]);
    }

    #[test]
    fn progress_speaks_at_most_every_ten_seconds() {
        let mut plain = Plain::default();
        let progress = |at| event(at, What::Progress(Progress { done: 5, total: Some(1_200), unit: "rows".into() }));
        assert_eq!(plain.lines(&progress(20_000)), [" clean        … 5/1,200 rows"]);
        assert!(plain.lines(&progress(29_999)).is_empty());
        assert_eq!(plain.lines(&progress(30_000)).len(), 1);
    }
}
