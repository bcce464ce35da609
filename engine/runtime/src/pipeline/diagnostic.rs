//! What is wrong with a pipeline file, where, and how to mend it.
//!
//! Owns: the shape of a message and the order in which all of a file's are shown.
//! Must not know: how it is drawn (the cli's `render/error.rs`).

use std::{fmt, sync::Arc};

use llmflow_contract::{Failure, Kind, KindSet, MetricSpec, StageId};
use serde::{Serialize, Serializer, ser::SerializeSeq};

use super::{
    condition::help_with_value,
    def::StageDef,
    secrecy::Hidden,
    source::{SourceFile, Span},
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable and greppable: `param/unknown`.
    pub code: String,
    /// One line, lower case, no full stop, backticks round what the user typed.
    pub message: String,
    /// Absent for what is not in the file: a `--set`.
    pub span: Option<Span>,
    /// A few words under the caret.
    pub label: Option<String>,
    /// What to write instead, to be pasted.
    pub help: Option<String>,
    /// Other places that matter, each with its label.
    pub also: Vec<(Span, String)>,
    /// What of the file must not be shown: it may be a secret.
    #[serde(skip)]
    hidden: Vec<Span>,
}

impl Diagnostic {
    pub fn new(code: &str, message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        let (code, message, span) = (code.to_owned(), message.into(), span.into());
        Self { code, message, span, label: None, help: None, also: Vec::new(), hidden: Vec::new() }
    }
    pub fn at(mut self, span: impl Into<Option<Span>>) -> Self {
        self.span = span.into();
        self
    }
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }
    /// Nothing that is shown of the file shows this.
    pub fn hide(mut self, span: impl Into<Option<Span>>) -> Self {
        self.hidden.extend(span.into());
        self
    }
    /// Says which name is close, if one is.
    pub fn nearest<'a>(self, typed: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(typed, names) {
            Some(name) => self.label(format!("the nearest is `{name}`")),
            None => self,
        }
    }

    /// An edge joins two ports whose kinds differ. `to` and `from` are written `stage.port`.
    pub fn kind_mismatch(to: &str, accepts: &KindSet, from: &str, gives: &Kind, span: Span) -> Self {
        let message = format!("`{to}` takes {accepts}, `{from}` gives {gives}");
        let diagnostic = Self::new("plan/kind-mismatch", message, span).label(format!("this gives {gives}"));
        match conversion(accepts, gives) {
            Some(help) => diagnostic.help(help),
            None => {
                diagnostic.help(format!("read a stage that gives {accepts}: `llmflow operators` lists what each gives"))
            }
        }
    }

    /// A `require` or a `when` names a metric that the stage does not report.
    pub fn unknown_metric(stage: &StageId, name: &str, known: &[MetricSpec], span: Span) -> Self {
        let names: Vec<&str> = known.iter().map(|metric| metric.name.as_str()).collect();
        let diagnostic = Self::new("plan/unknown-metric", format!("`{stage}` reports no metric `{name}`"), span)
            .nearest(name, names.iter().copied());
        match (help_with_value(name, false), names.as_slice()) {
            (Some(help), _) => diagnostic.help(help),
            (None, []) => diagnostic.help(format!("`{stage}` reports no metrics: remove the condition")),
            (None, names) => diagnostic.help(format!("it reports {}", names.join(", "))),
        }
    }

    /// Rows marked `role: eval` would reach training.
    pub fn eval_in_training(to: &str, from: &str, span: Span) -> Self {
        Self::new(
            "plan/eval-in-training",
            format!("`{to}` trains on `{from}`, which was loaded with `role: eval`"),
            span,
        )
        .label("held out for evaluation")
        .help("train on other rows, or load these without `role: eval`")
    }

    /// What an operator's `plan` refused, at the param it names.
    pub fn from_failure(failure: &Failure, stage: &StageDef) -> Self {
        let mut message = format!("`{}`: {failure}", stage.id);
        if let Some(param) = failure.param.as_deref().filter(|param| !failure.message.contains(*param)) {
            message = format!("`{}`, param `{param}`: {failure}", stage.id);
        }
        let span = stage.place_of(failure.param.as_deref());
        Self { help: failure.help.clone(), ..Self::new(&failure.code, message, span) }
    }
}

/// How to come from one kind to another, where there is a usual way.
fn conversion(accepts: &KindSet, gives: &Kind) -> Option<&'static str> {
    let takes = |name: &'static str| accepts.accepts(&Kind::of(name));
    match gives.as_str() {
        "dataset/chat" | "dataset/prompt" if takes("dataset/preference") => {
            Some("make pairs first: `op: synth.answer`, `with: {as: preference}`")
        }
        "dataset/prompt" if takes("dataset/chat") => {
            Some("write answers first: `op: synth.answer`, `with: {as: chat}`")
        }
        "dataset/text" if takes("dataset/chat") => {
            Some("make chats first: `op: synth.generate`, or load the file with a chat `format`")
        }
        "model" | "adapter" if takes("gguf") => Some("make the file first: `op: quantize.gguf`"),
        _ => None,
    }
}

/// Nobody reads more at once; and a hostile file could cause millions.
pub const MAX_SHOWN: usize = 100;

/// All that is wrong with one file.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// With stars in place of what must not be shown.
    pub source: Arc<SourceFile>,
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn new(source: Arc<SourceFile>) -> Self {
        Self { source, items: Vec::new() }
    }
    pub fn push(&mut self, diagnostic: Diagnostic) {
        for span in &diagnostic.hidden {
            Arc::make_mut(&mut self.source).mask(*span);
        }
        self.items.push(diagnostic);
    }
    /// Takes out of the file and of all messages so far what may be a secret.
    pub(super) fn hide(&mut self, hidden: &Hidden) {
        for span in &hidden.spans {
            Arc::make_mut(&mut self.source).mask(*span);
        }
        for item in &mut self.items {
            let texts = [&mut item.message].into_iter().chain(&mut item.label).chain(&mut item.help);
            let texts = texts.chain(item.also.iter_mut().map(|(_, label)| label));
            texts.for_each(|text| *text = hidden.scrub(text));
        }
    }
    pub fn extend(&mut self, other: Self) {
        other.items.into_iter().for_each(|item| self.push(item));
    }
    /// Adds what is wrong with the same file under a profile, and is not without it. Another machine may have other
    /// variables: those that are lacking here do not count.
    pub(super) fn add_of_profile(&mut self, profile: &str, found: &Self) {
        let is_new = |item: &&Diagnostic| item.code != "reference/env" && !self.items.contains(item);
        let named = |item: &Diagnostic| {
            let message = format!("with `--profile {profile}`: {}", item.message);
            Diagnostic { message, ..item.clone() }
        };
        let found: Vec<Diagnostic> = found.iter().filter(is_new).map(named).collect();
        found.into_iter().for_each(|item| self.push(item));
    }
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// How many were pushed: grows by one for each.
    pub(super) fn raw_len(&self) -> usize {
        self.items.len()
    }
    /// The one that was pushed at this position.
    pub(super) fn get(&self, at: usize) -> Option<&Diagnostic> {
        self.items.get(at)
    }
    /// How many there are, each counted once.
    pub fn len(&self) -> usize {
        self.sorted().len()
    }

    /// The first [`MAX_SHOWN`] in file order, those without a place last. What an alias repeats is told once.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Diagnostic> {
        let mut items = self.sorted();
        items.truncate(MAX_SHOWN);
        items.into_iter()
    }

    fn sorted(&self) -> Vec<&Diagnostic> {
        let mut items: Vec<&Diagnostic> = self.items.iter().collect();
        let place = |item: &Diagnostic| item.span.map_or((usize::MAX, usize::MAX), |span| (span.start, span.end));
        items.sort_by(|a, b| (place(a), &a.code, &a.message).cmp(&(place(b), &b.code, &b.message)));
        items.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        items
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in self.iter() {
            writeln!(f, "error[{}]: {}", item.code, item.message)?;
            if let Some(span) = item.span {
                let (line, column) = self.source.position(span.start);
                write!(f, "  --> {}:{line}:{column}", self.source.path.display())?;
                let shown = self.source.slice(span).lines().next().unwrap_or_default().trim_end();
                writeln!(
                    f,
                    "  `{shown}`{}",
                    item.label.as_ref().map_or_else(String::new, |label| format!(": {label}"))
                )?;
            } else if let Some(label) = &item.label {
                writeln!(f, "  {label}")?;
            }
            for (span, label) in &item.also {
                let (line, column) = self.source.position(span.start);
                writeln!(f, "  also {line}:{column}: {label}")?;
            }
            if let Some(help) = &item.help {
                writeln!(f, "  help: {help}")?;
            }
        }
        let more = self.len().saturating_sub(MAX_SHOWN);
        if more > 0 { writeln!(f, "… and {more} more") } else { Ok(()) }
    }
}

impl std::error::Error for Diagnostics {}

/// One message with lines and columns in place of byte offsets.
#[derive(Serialize)]
struct Placed<'a> {
    code: &'a str,
    message: &'a str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Also<'a>>,
}

#[derive(Serialize)]
struct Also<'a> {
    line: usize,
    column: usize,
    label: &'a str,
}

impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for item in self.iter() {
            let (start, end) =
                item.span.map(|span| (self.source.position(span.start), self.source.position(span.end))).unzip();
            let also = item.also.iter().map(|(span, label)| {
                let (line, column) = self.source.position(span.start);
                Also { line, column, label }
            });
            list.serialize_element(&Placed {
                code: &item.code,
                message: &item.message,
                file: self.source.path.display().to_string(),
                line: start.map(|at| at.0),
                column: start.map(|at| at.1),
                end_line: end.map(|at| at.0),
                end_column: end.map(|at| at.1),
                label: item.label.as_deref(),
                help: item.help.as_deref(),
                also: also.collect(),
            })?;
        }
        list.end()
    }
}

/// The closest of some names, if one is close enough to be meant.
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let score = |name: &str| {
        let name = name.to_lowercase();
        // `lora_rank` for `lora_r`, `rouge` for `eval_rouge`: one name inside the other is close as well.
        let inside = typed.len() >= 3 && name.len() >= 3 && (name.contains(&typed) || typed.contains(&name));
        strsim::jaro_winkler(&typed, &name).max(if inside { 0.85 } else { 0.0 })
    };
    let best = names.into_iter().map(|name| (score(name), name)).reduce(|a, b| if b.0 > a.0 { b } else { a })?;
    (best.0 >= 0.8).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_file_order_and_once() {
        let mut all = Diagnostics::new(Arc::new(SourceFile::new("p.yaml", "a: 1\nb: 2\n")));
        all.push(Diagnostic::new("x/late", "second", Span::new(5, 6)).label("here"));
        all.push(Diagnostic::new("x/set", "no place", None));
        all.push(Diagnostic::new("x/early", "first", Span::new(0, 1)));
        all.push(Diagnostic::new("x/early", "first", Span::new(0, 1)));
        assert_eq!(all.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["first", "second", "no place"]);
        assert_eq!(all.len(), 3);
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(
            json[1],
            serde_json::json!({"code": "x/late", "message": "second", "file": "p.yaml", "line": 2,
            "column": 1, "end_line": 2, "end_column": 2, "label": "here"})
        );
    }

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_none() {
        let names = ["learning_rate", "lora_r", "method"];
        assert_eq!(nearest("learning_rat", names), Some("learning_rate"));
        assert_eq!(nearest("LORA_R", names), Some("lora_r"));
        assert_eq!(nearest("zzz", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn a_kind_that_does_not_fit_says_how_to_convert() {
        let accepts = KindSet::of(&["dataset/preference"]);
        let shown =
            Diagnostic::kind_mismatch("dpo.data", &accepts, "split.train", &Kind::of("dataset/chat"), Span::default());
        assert_eq!(shown.message, "`dpo.data` takes dataset/preference, `split.train` gives dataset/chat");
        assert!(shown.help.unwrap().contains("synth.answer"));
    }
}
