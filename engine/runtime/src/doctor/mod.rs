//! What can be wrong around a run: the machine, the home, its history, its store. One row each: fine, or the fix.
//!
//! Owns: the checks, each tried for real. Changes nothing that stays.
//! Must not know: pipelines, operators, how a row is drawn. Start at [`examine`].

mod machine;
mod state;

use std::path::Path;

use serde::Serialize;

use crate::home::Home;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Fine,
    /// Worth knowing; nothing fails for it.
    Note,
    /// Runs will fail, or could lose something.
    Broken,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Broken => "broken",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `disk`.
    pub subject: &'static str,
    pub verdict: Verdict,
    /// What was seen, in one line.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn fine(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fine, found: found.into(), fix: None }
    }
    fn note(subject: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Note, found: found.into(), fix: Some(fix.into()) }
    }
    fn broken(subject: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Broken, found: found.into(), fix: Some(fix.into()) }
    }
    /// A failure met on the way.
    fn failed(subject: &'static str, failure: &llmflow_contract::Failure) -> Self {
        let fix = failure.help.clone().unwrap_or_else(|| "run `llmflow doctor` again once that is mended".to_owned());
        Self::broken(subject, failure.to_string(), fix)
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    pub machine: Vec<Finding>,
    pub home: Vec<Finding>,
}

impl Health {
    pub fn is_broken(&self) -> bool {
        self.machine.iter().chain(&self.home).any(|finding| finding.verdict == Verdict::Broken)
    }
}

/// Tries everything. A check that fails is a row, never an error. `place`: where the first run would make a home.
pub async fn examine(home: Option<&Home>, place: &Path) -> Health {
    let home = match home {
        Some(home) => state::findings(home).await,
        None => vec![state::to_be(place)],
    };
    Health { machine: machine::findings().await, home }
}

/// A size for people: `59.1 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    let digits = usize::from(power > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[power as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!([size(0), size(1023), size(1 << 20), size(212 << 30)], ["0 B", "1023 B", "1.0 MiB", "212 GiB"]);
    }

    #[test]
    fn one_broken_row_makes_the_whole_broken_and_a_note_does_not() {
        let mut health = Health { machine: vec![Finding::note("gpu", "none", "")], home: Vec::new() };
        assert!(!health.is_broken());
        health.home.push(Finding::broken("locks", "two held one", "a local disk"));
        assert!(health.is_broken());
    }
}
