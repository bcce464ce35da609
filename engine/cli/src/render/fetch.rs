//! What `fetch` says while files come, and at its end.

use llmflow_contract::{Progress, StageId};
use llmflow_runtime::remote::Fetching;
use serde_json::{Value, json};

use super::format;

/// Characters of the bar.
const BAR: usize = 20;

/// How far the files of one stage are, and how fast they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speed {
    /// Bytes and seconds at the first report: what lay here already has no speed.
    first: Option<(u64, f64)>,
    done: u64,
    total: u64,
    seconds: f64,
}

impl Speed {
    /// Learns what is done at `seconds` on some clock.
    pub fn hear(&mut self, progress: &Progress, seconds: f64) {
        self.first.get_or_insert((progress.done, seconds));
        (self.done, self.total, self.seconds) = (progress.done, progress.total.unwrap_or(progress.done), seconds);
    }

    /// Seconds to the end at the mean speed so far, once there is one.
    fn left(&self) -> Option<f64> {
        let (done, began) = self.first?;
        let (bytes, seconds) = (self.done.checked_sub(done)?, self.seconds - began);
        let enough = bytes > 0 && seconds >= 1.0;
        enough.then(|| (self.total - self.done.min(self.total)) as f64 * seconds / bytes as f64)
    }
}

/// One stage on its way: ` base  ████░░ 120 MiB of 257 MiB · 0:12 left`.
pub fn line(stage: &StageId, speed: &Speed) -> String {
    let bar = format::bar(speed.done, speed.total, BAR);
    let left = speed.left().map_or(String::new(), |left| format!(" · {} left", format::clock(left)));
    format!(" {stage}  {bar} {} of {}{left}", format::bytes(speed.done), format::bytes(speed.total))
}

/// One stage whose files are all here.
pub fn done(stage: &StageId, speed: &Speed) -> String {
    match speed.total {
        0 => format!(" {stage}  is here"),
        total => format!(" {stage}  {} are here", format::bytes(total)),
    }
}

/// The last line; `run` is the command that runs the file.
pub fn end(file: &str, stages: usize, run: &str) -> String {
    match stages {
        0 => format!("`{file}` reads nothing from afar"),
        _ => format!("every source is on this machine: {run} --offline"),
    }
}

/// One report as JSON.
pub fn event(fetching: &Fetching) -> Value {
    let Fetching { stage, progress, is_done } = fetching;
    match is_done {
        true => json!({ "event": "fetched", "stage": stage }),
        false => json!({ "event": "fetching", "stage": stage, "bytes": progress.done, "of": progress.total }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_counts_what_came_not_what_was_here() {
        let mut speed = Speed::default();
        let at = |done| Progress { done, total: Some(300 << 20), unit: "bytes".into() };
        speed.hear(&at(100 << 20), 5.0);
        let stage = StageId::from("base");
        assert!(!line(&stage, &speed).contains("left"), "one report has no speed");
        speed.hear(&at(200 << 20), 15.0);
        insta::assert_snapshot!(line(&stage, &speed), @" base  █████████████░░░░░░░ 200 MiB of 300 MiB · 0:10 left");
        assert_eq!(done(&stage, &speed), " base  300 MiB are here");
    }
}
