//! Events as plain lines, one a happening: for a pipe, a log file, `--plain`. Symbols stand beside words.

use std::collections::{BTreeMap, HashSet};

use llmflow_contract::StageId;
use llmflow_runtime::{
    event::{Event, What, refusal},
    lineage::NOT_STARTED,
    plan::Will,
};

use super::{format, header, style::Paint, typed::Place};

/// Milliseconds between two progress lines of one stage.
const QUIET_MS: u64 = 10_000;

/// Turns events into lines; remembers only when each stage last spoke.
#[derive(Debug, Default)]
pub struct Plain {
    spoke_ms: BTreeMap<StageId, u64>,
    /// A run with nothing to do never starts; its stages are not worth lines.
    is_started: bool,
    /// Stages whose result was there from the start: the header counts them.
    cached: HashSet<StageId>,
    is_verbose: bool,
    paint: Paint,
    place: Place,
}

impl Plain {
    /// `is_verbose`: what stages print is shown too.
    pub fn new(is_verbose: bool, paint: Paint, place: Place) -> Self {
        Self { is_verbose, paint, place, ..Self::default() }
    }

    /// The lines that an event is worth.
    pub fn lines(&mut self, event: &Event) -> Vec<String> {
        let Some(stage) = &event.stage else { return self.run_lines(event) };
        if !self.is_started {
            return Vec::new();
        }
        let (symbol, words) = match &event.what {
            What::Started { attempt: 1 } => ("…".to_owned(), "started".to_owned()),
            What::Started { attempt } => ("…".to_owned(), format!("started, attempt {attempt}")),
            What::Restored => ("…".to_owned(), "goes on from its checkpoint".to_owned()),
            What::Progress(progress) => {
                let last = self.spoke_ms.get(stage).copied().unwrap_or(0);
                if event.at_ms.saturating_sub(last) < QUIET_MS {
                    return Vec::new();
                }
                let total = progress.total.map(|total| format!("/{}", format::count(total))).unwrap_or_default();
                ("…".to_owned(), format!("{}{total} {}", format::count(progress.done), progress.unit))
            }
            What::Finished(finished) => {
                let words = format!("done    {:>6}  {}", format::clock(finished.seconds), finished.summary);
                (self.paint.green("✓"), words)
            }
            What::Cached(_) if self.cached.contains(stage) => return Vec::new(),
            What::Cached(finished) => (self.paint.green("✓"), format!("cached       –  {}", finished.summary)),
            What::Skipped { because } => ("○".to_owned(), format!("skipped      –  {because}")),
            What::Interrupted if !self.spoke_ms.contains_key(stage) => ("○".to_owned(), NOT_STARTED.to_owned()),
            What::Interrupted => (self.paint.yellow("✗"), "interrupted".to_owned()),
            What::Failed { failure, retry_in_ms: Some(wait) } => {
                let wait = format::duration(*wait as f64 / 1000.0);
                (self.paint.red("✗"), format!("failed, tries again in {wait}: {failure}"))
            }
            What::Failed { failure, retry_in_ms: None } => (self.paint.red("✗"), format!("failed: {failure}")),
            What::Refused { expression, why } => {
                (self.paint.red("✗"), format!("refused: {}", format::clean(&refusal(expression, why))))
            }
            What::Log { level, message } if self.is_verbose || level != "info" => {
                let level = if level == "info" { String::new() } else { format!("{level}: ") };
                (" ".to_owned(), format!("{level}{message}"))
            }
            _ => return Vec::new(),
        };
        self.spoke_ms.insert(stage.clone(), event.at_ms);
        vec![format!(" {:<12} {symbol} {}", format::clean(stage.as_str()), format::clean(&words)).trim_end().to_owned()]
    }

    fn run_lines(&mut self, event: &Event) -> Vec<String> {
        match &event.what {
            What::RunStarted { pipeline, plan, compute, home, disk_free_bytes } => {
                self.is_started = true;
                let cached = plan.stages.iter().filter(|stage| matches!(stage.will, Will::Cached { .. }));
                self.cached = cached.map(|stage| stage.stage.clone()).collect();
                header::header(pipeline, &event.run, plan, compute, home, *disk_free_bytes, &self.place).into()
            }
            What::Published { path, bytes, unchanged: false } => {
                vec![format!("published {} ({})", format::clean(&path.display().to_string()), format::bytes(*bytes))]
            }
            _ => Vec::new(),
        }
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

    fn started() -> Plain {
        Plain { is_started: true, ..Plain::default() }
    }

    #[test]
    fn a_stage_that_ends_gives_one_line_with_a_word_beside_the_symbol() {
        let finished = Finished { summary: "301 kept · 4 too_short".into(), seconds: 61.0, ..Finished::default() };
        let lines = started().lines(&event(1, What::Finished(finished)));
        assert_eq!(lines, [" clean        ✓ done      1:01  301 kept · 4 too_short"]);
        let failed = What::Failed { failure: Failure::input("x/y", "no rows\u{1b}[2J"), retry_in_ms: None };
        assert_eq!(started().lines(&event(1, failed)), [" clean        ✗ failed: no rows [2J"]);
    }

    #[test]
    fn progress_speaks_at_most_every_ten_seconds() {
        let mut plain = started();
        let progress = |at| event(at, What::Progress(Progress { done: 5, total: Some(1_200), unit: "rows".into() }));
        assert_eq!(plain.lines(&progress(20_000)), [" clean        … 5/1,200 rows"]);
        assert!(plain.lines(&progress(29_999)).is_empty());
        assert_eq!(plain.lines(&progress(30_000)).len(), 1);
    }

    #[test]
    fn a_run_with_nothing_to_do_says_nothing_of_its_stages() {
        assert!(Plain::default().lines(&event(1, What::Cached(Finished::default()))).is_empty());
    }

    #[test]
    fn what_was_there_from_the_start_is_counted_and_what_turned_out_to_be_there_is_told() {
        let mut plain = Plain { cached: [StageId::from("docs")].into(), ..started() };
        let cached = |stage: &str| Event {
            stage: Some(StageId::from(stage)),
            ..event(1, What::Cached(Finished { summary: "11 rows".into(), ..Finished::default() }))
        };
        assert!(plain.lines(&cached("docs")).is_empty());
        assert_eq!(plain.lines(&cached("clean")), [" clean        ✓ cached       –  11 rows"]);
    }

    #[test]
    fn what_a_stage_prints_is_shown_when_asked_for() {
        let log = || event(1, What::Log { level: "info".into(), message: "loading".into() });
        assert!(started().lines(&log()).is_empty());
        let mut verbose = Plain { is_started: true, is_verbose: true, ..Plain::default() };
        assert_eq!(verbose.lines(&log()), [" clean          loading"]);
    }
}
