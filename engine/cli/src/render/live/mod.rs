//! The live view: lines that stay as stages end, and below them what is going on now.
//!
//! Owns: what it looks like, as plain data in and lines out. Must not know: how a terminal is drawn on.

mod running;

use std::collections::{BTreeMap, HashMap};

use llmflow_contract::StageId;
use llmflow_runtime::{
    event::{Event, What, refusal},
    lineage::NOT_STARTED,
};

use running::Running;

use super::{format, header, style::Paint, table::wrap, typed::Place};

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const SPIN_MS: u64 = 100;
/// Widest name that still stands in its column.
const LONGEST_NAME: usize = 20;

/// What is going on, as far as the events have told.
#[derive(Debug)]
pub struct Live {
    paint: Paint,
    place: Place,
    is_verbose: bool,
    width: usize,
    name_width: usize,
    is_started: bool,
    /// In the order in which they started.
    running: Vec<(StageId, Running)>,
    waiting: Waiting,
    /// Cached and skipped stages that were not shown yet: each kind shares a line.
    cached: Vec<StageId>,
    skipped: Vec<StageId>,
}

/// Stages that have not begun, in the order of the plan.
#[derive(Debug, Default)]
struct Waiting {
    by_position: BTreeMap<usize, StageId>,
    positions: HashMap<StageId, usize>,
}

impl Waiting {
    /// More names than this no line shows.
    const SHOWN: usize = 40;

    fn new<'a>(stages: impl Iterator<Item = &'a StageId>) -> Self {
        let by_position: BTreeMap<usize, StageId> = stages.cloned().enumerate().collect();
        let positions = by_position.iter().map(|(position, stage)| (stage.clone(), *position)).collect();
        Self { by_position, positions }
    }
    fn remove(&mut self, stage: &StageId) {
        if let Some(position) = self.positions.remove(stage) {
            self.by_position.remove(&position);
        }
    }
    fn holds(&self, stage: &StageId) -> bool {
        self.positions.contains_key(stage)
    }
    fn len(&self) -> usize {
        self.by_position.len()
    }
    fn first(&self) -> impl Iterator<Item = &StageId> {
        self.by_position.values().take(Self::SHOWN)
    }
}

impl Live {
    pub fn new(width: usize, is_verbose: bool, paint: Paint, place: Place) -> Self {
        Self {
            paint,
            place,
            is_verbose,
            width,
            name_width: 10,
            is_started: false,
            running: Vec::new(),
            waiting: Waiting::default(),
            cached: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Takes an event in; gives the lines that stay.
    pub fn hear(&mut self, event: &Event) -> Vec<String> {
        let Some(stage) = &event.stage else { return self.hear_run(event) };
        if !self.is_started {
            return Vec::new(); // a run with nothing to do
        }
        match &event.what {
            What::Started { attempt } => {
                self.waiting.remove(stage);
                self.running.push((stage.clone(), Running::new(event.at_ms, *attempt)));
                self.flush()
            }
            What::Restored | What::Progress(_) | What::Metric { .. } => {
                if let Some((_, running)) = self.running.iter_mut().find(|(name, _)| name == stage) {
                    running.hear(event);
                }
                Vec::new()
            }
            What::Cached(_) => {
                self.waiting.remove(stage);
                self.cached.push(stage.clone());
                Vec::new()
            }
            What::Skipped { .. } => {
                self.waiting.remove(stage);
                self.skipped.push(stage.clone());
                Vec::new()
            }
            What::Log { level, message } if self.is_verbose || level != "info" => {
                vec![self.fit(&format!("   {}  {}", self.name(stage), format::clean(message)))]
            }
            What::Failed { failure, retry_in_ms: Some(wait) } => {
                self.running.retain(|(name, _)| name != stage);
                let words = format!("failed, tries again in {}: {failure}", format::duration(*wait as f64 / 1000.0));
                vec![self.ended(self.paint.yellow("✗"), stage, "", &words)]
            }
            what => self.hear_end(stage, what),
        }
    }

    /// A stage's last word.
    fn hear_end(&mut self, stage: &StageId, what: &What) -> Vec<String> {
        let line = match what {
            What::Finished(finished) => {
                let time = format::clock(finished.seconds);
                self.ended(self.paint.green("✓"), stage, &time, &finished.summary)
            }
            What::Failed { failure, .. } => self.ended(self.paint.red("✗"), stage, "", &format!("failed: {failure}")),
            What::Refused { expression, why } => {
                let words = format!("refused: {}", format::clean(&refusal(expression, why)));
                self.ended(self.paint.red("✗"), stage, "", &words)
            }
            What::Interrupted if self.waiting.holds(stage) => self.ended("○".to_owned(), stage, "", NOT_STARTED),
            What::Interrupted => self.ended(self.paint.yellow("✗"), stage, "", "interrupted"),
            _ => return Vec::new(),
        };
        self.running.retain(|(name, _)| name != stage);
        self.waiting.remove(stage);
        let mut lines = self.flush();
        lines.push(line);
        lines
    }

    fn hear_run(&mut self, event: &Event) -> Vec<String> {
        match &event.what {
            What::RunStarted { pipeline, plan, compute, home, disk_free_bytes } => {
                self.is_started = true;
                self.waiting = Waiting::new(plan.stages.iter().map(|stage| &stage.stage));
                let longest = plan.stages.iter().map(|stage| stage.stage.as_str().chars().count()).max().unwrap_or(0);
                self.name_width = longest.clamp(8, LONGEST_NAME) + 1;
                let head = header::header(pipeline, &event.run, plan, compute, home, *disk_free_bytes, &self.place);
                head.into_iter().chain([String::new()]).collect()
            }
            What::RunFinished { .. } => {
                let mut lines = self.flush();
                lines.push(String::new());
                lines
            }
            _ => Vec::new(),
        }
    }

    /// The cached and skipped stages that no line has shown, in one line each, or a few.
    fn flush(&mut self) -> Vec<String> {
        let kinds = [
            (self.paint.green("✓"), "cached", std::mem::take(&mut self.cached)),
            ("○".to_owned(), "skipped", std::mem::take(&mut self.skipped)),
        ];
        let mut lines = Vec::new();
        for (mark, word, stages) in kinds.iter().filter(|(_, _, stages)| !stages.is_empty()) {
            let names: Vec<String> = stages.iter().map(|stage| format::clean(stage.as_str())).collect();
            for (number, line) in
                wrap(&names.join(" "), self.width.saturating_sub(self.name_width + 9)).iter().enumerate()
            {
                let (mark, word) = if number == 0 { (mark.as_str(), *word) } else { (" ", "") };
                lines.push(format!(" {mark} {word:<width$}    –  {line}", width = self.name_width));
            }
        }
        lines
    }

    /// What is going on at a moment, `now_ms` since 1970; `requests` to stop were made.
    pub fn now(&self, now_ms: u64, requests: u8) -> Vec<String> {
        let mut lines = Vec::new();
        let spinner = SPINNER[(now_ms / SPIN_MS) as usize % SPINNER.len()];
        for (stage, running) in &self.running {
            let (first, second) = running.lines(now_ms);
            let time = format::clock(now_ms.saturating_sub(running.since_ms) as f64 / 1000.0);
            let mark = self.paint.cyan(&spinner.to_string());
            lines.push(self.fit(&format!(" {mark} {} {time:>4}  {first}", self.name(stage))));
            if !second.is_empty() {
                lines.push(self.fit(&format!("{:width$}{second}", "", width = self.name_width + 10)));
            }
        }
        if self.is_started && self.waiting.len() > 0 {
            let names = self.waiting.first().map(|stage| format::clean(stage.as_str())).collect::<Vec<_>>();
            lines.push(self.fit(&format!(" ○ {} waiting  {}", self.waiting.len(), names.join(" "))));
        }
        match requests {
            0 => {}
            1 => lines.push(self.fit(
                &self.paint.yellow(" stopping: every running stage saves its work first; Ctrl-C again stops at once"),
            )),
            _ => lines.push(self.paint.yellow(" stopping now")),
        }
        lines
    }

    fn ended(&self, mark: String, stage: &StageId, time: &str, words: &str) -> String {
        self.fit(format!(" {mark} {} {time:>4}  {}", self.name(stage), format::clean(words)).trim_end())
    }

    fn name(&self, stage: &StageId) -> String {
        let name = format::clean(stage.as_str());
        console::pad_str(&name, self.name_width, console::Alignment::Left, Some("…")).into_owned()
    }

    /// Cut to the screen; the parts are clean already.
    fn fit(&self, line: &str) -> String {
        console::truncate_str(line, self.width, "…").into_owned()
    }
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Digest, Progress};
    use llmflow_runtime::{
        event::{Compute, Finished, RunId},
        plan::{PlanView, StageView, Will},
    };

    use super::*;
    use crate::render::fixture;

    fn event(at_ms: u64, stage: Option<&str>, what: What) -> Event {
        Event { at_ms, run: RunId("quiet-otter".into()), stage: stage.map(StageId::from), what }
    }

    fn progress(done: u64, total: u64, unit: &str) -> What {
        What::Progress(Progress { done, total: Some(total), unit: unit.into() })
    }

    fn metric(name: &str, value: f64, step: Option<u64>) -> What {
        What::Metric { name: name.into(), value, step, reproducible: true }
    }

    fn started() -> (Live, Vec<String>) {
        let key = Digest::of(b"k");
        let stage = |name: &str| StageView {
            will: Will::Run { key: Some(key), because: Vec::new(), asked: None },
            seconds: Some(100.0),
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            ..fixture::view(name, &[])
        };
        let names = ["base", "rows", "sft", "eval_base", "merged", "pairs", "gguf"];
        let what = What::RunStarted {
            pipeline: "assistant".into(),
            plan: PlanView { stages: names.map(stage).into() },
            compute: Compute { cores: 2, memory_bytes: 15 << 30, ..Compute::default() },
            home: "/srv/assistant/.llmflow".into(),
            disk_free_bytes: Some(212 << 30),
        };
        let mut live = Live::new(80, false, Paint(false), Place { here: "/srv/assistant".into(), variable: None });
        let lines = live.hear(&event(0, None, what));
        (live, lines)
    }

    #[test]
    fn the_view_is_the_one_that_is_drawn() {
        let (mut live, mut lines) = started();
        let mut hear = |at_ms, stage, what| lines.extend(live.hear(&event(at_ms, Some(stage), what)));
        hear(0, "base", What::Cached(Finished::default()));
        hear(0, "rows", What::Started { attempt: 1 });
        let finished = Finished { summary: "314 rows · 6 set aside".into(), seconds: 0.4, ..Finished::default() };
        hear(400, "rows", What::Finished(finished));
        hear(1_000, "sft", What::Started { attempt: 1 });
        hear(53_000, "eval_base", What::Started { attempt: 1 });
        hear(1_000, "sft", progress(0, 168, "steps"));
        for step in 0..118 {
            hear(2_000, "sft", metric("loss", 3.0 - 0.006 * step as f64, Some(step)));
        }
        hear(92_000, "sft", metric("eval_loss", 2.02, Some(100)));
        hear(92_000, "sft", metric("tokens_per_second", 142.3, None));
        hear(92_000, "sft", progress(118, 168, "steps"));
        hear(92_000, "gguf", What::Skipped { because: "`x` failed".into() });
        hear(92_500, "pairs", What::Interrupted);
        hear(53_000, "eval_base", progress(0, 60, "questions"));
        hear(90_000, "eval_base", progress(24, 60, "questions"));
        lines.extend(live.now(93_000, 1));
        insta::assert_snapshot!(lines.join("\n"), @r"
        assistant · run quiet-otter · 7 stages, all new · about 11m40s
        compute  CPU, 2 threads, f32 · no GPU          disk  +7.0 GiB of 212 GiB free
        home     /srv/assistant/.llmflow          look  llmflow show @ --open

         ✓ cached        –  base
         ✓ rows       0:00  314 rows · 6 set aside
         ○ skipped       –  gguf
         ○ pairs            not started
         ⠋ sft        1:32  ███████░░░ 118/168 steps · loss 2.30 ▇▆▅▄▄▃▂▁ · eval 2.02
                            142 tok/s · 0:39 left
         ⠋ eval_base  0:40  ████░░░░░░ 24/60 questions · 1:00 left
         ○ 1 waiting  merged
         stopping: every running stage saves its work first; Ctrl-C again stops at once
        ");
    }

    #[test]
    fn colour_and_a_narrow_screen_change_no_line_count() {
        let (mut live, _) = started();
        live.paint = Paint(true);
        live.width = 40;
        live.hear(&event(0, Some("sft"), What::Started { attempt: 1 }));
        live.hear(&event(0, Some("sft"), progress(1, 2, "steps\u{1b}[2J")));
        let lines = live.now(1_000, 0);
        assert_eq!(lines.len(), 2);
        let seen: Vec<_> = lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
        assert!(seen.iter().all(|line| console::measure_text_width(line) <= 40), "{seen:?}");
        assert!(seen[0].contains("1/2 step…"), "{seen:?}");
    }

    #[test]
    fn a_retry_says_so_and_starts_its_clock_anew() {
        let (mut live, _) = started();
        live.hear(&event(0, Some("sft"), What::Started { attempt: 1 }));
        let failure = llmflow_contract::Failure::environment("x", "the worker was killed");
        let lines = live.hear(&event(10, Some("sft"), What::Failed { failure, retry_in_ms: Some(2_000) }));
        assert!(lines[0].contains("tries again in 2 s: the worker was killed"), "{lines:?}");
        live.hear(&event(2_000, Some("sft"), What::Started { attempt: 2 }));
        live.hear(&event(2_000, Some("sft"), What::Restored));
        assert!(live.now(5_000, 0).join("\n").contains("attempt 2 · goes on from its checkpoint"));
    }
}
