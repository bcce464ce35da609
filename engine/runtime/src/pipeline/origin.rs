//! Where a value came from: a param, a matrix, a secret's name, `--set`, a params file, a profile.

use std::{fmt, ops::Range, sync::Arc};

use super::{
    node::Node,
    source::{SourceFile, Span},
};

/// Where a value came from, if not from the place where it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `params.rank`, `matrix.lora_r`, `secret.API_KEY`.
    pub name: Option<String>,
    /// Where a param's default stands, or a matrix's axis.
    pub span: Option<Span>,
    /// What changed it.
    pub given: Option<Given>,
    /// `eval.acc`: the metric that will be the value.
    pub metric: Option<String>,
    /// Of a text with references in it: all of them. The other fields are those of the first.
    pub text: Option<Arc<Composed>>,
}

/// A text that references stand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// With their values in their places.
    pub text: String,
    /// Of each the bytes that it gave, in order.
    pub parts: Vec<(Range<usize>, Arc<Origin>)>,
}

/// What gave a value in place of the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A `--set`, as typed: `rank=32`.
    Set(String),
    /// A file of params, by its path.
    ParamsFile(String),
    /// A profile of the file, by its name.
    Profile(String),
}

/// As it is typed: `--set rank=32`.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(text) => write!(f, "--set {text}"),
            Self::ParamsFile(path) => write!(f, "--params-file {path}"),
            Self::Profile(name) => write!(f, "--profile {name}"),
        }
    }
}

impl Given {
    pub(super) fn is_outside(&self) -> bool {
        matches!(self, Self::Set(_) | Self::ParamsFile(_))
    }

    /// As it is typed, without the value: `--set rank`.
    pub(super) fn target(&self) -> String {
        match self {
            Self::Set(text) => {
                let is_of_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
                let name = text.split_once('=').map_or(text.as_str(), |(name, _)| name.trim());
                let end = name.find(|c| !is_of_name(c));
                end.map_or_else(|| format!("--set {name}"), |end| format!("--set {}…", &name[..end]))
            }
            other => other.to_string(),
        }
    }
}

impl Composed {
    /// The origins whose values differ between two forms of the text: the one that alone makes the difference, else all,
    /// for then it cannot be told.
    pub fn changed(&self, before: &str, now: &str) -> impl Iterator<Item = &Arc<Origin>> {
        let makes_it_alone = |part: &Range<usize>| {
            let (start, end) = (&self.text[..part.start], &self.text[part.end..]);
            before.len() >= start.len() + end.len() && before.starts_with(start) && before.ends_with(end)
        };
        let mut alone = self.parts.iter().filter(|(part, _)| now == self.text && makes_it_alone(part));
        let only = alone.next().filter(|_| alone.next().is_none());
        only.map_or(self.parts.as_slice(), std::slice::from_ref).iter().map(|(_, origin)| origin)
    }
}

impl Origin {
    pub(super) fn given(given: Given) -> Self {
        Self { given: Some(given), ..Self::default() }
    }

    /// Of a value that a reference gave, and of the reference itself.
    pub(super) fn joined(value: Option<Arc<Self>>, reference: Option<Arc<Self>>) -> Option<Arc<Self>> {
        match (value, reference) {
            (Some(value), Some(reference)) if value.given.is_none() && reference.given.is_some() => {
                Some(Arc::new(Self { given: reference.given.clone(), ..(*value).clone() }))
            }
            (value, reference) => value.or(reference),
        }
    }

    /// Did a variable of the environment give it?
    pub(super) fn is_variable(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.starts_with("env."))
    }

    /// Of each reference in a text, else its own.
    pub(super) fn all(self: &Arc<Self>) -> Vec<&Arc<Self>> {
        self.text.as_ref().map_or_else(|| vec![self], |text| text.parts.iter().map(|(_, origin)| origin).collect())
    }

    /// The pipeline's param that gave the value: `rank`.
    pub fn param(&self) -> Option<&str> {
        self.name.as_deref()?.strip_prefix("params.")
    }

    /// `params.rank, assistant.yaml:10, set by --set`
    pub fn describe(&self, source: &SourceFile) -> String {
        let place = self.span.map(|span| format!("{}:{}", source.file_name(), source.position(span.start).0));
        let given = self.given.as_ref().map(|given| match given {
            Given::Set(_) => "set by --set".to_owned(),
            other => format!("set by {other}"),
        });
        [self.name.clone(), self.metric.clone(), place, given].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Node {
    /// Where to point when the value is wrong: nowhere if it stands outside the file.
    pub fn place(&self) -> Option<Span> {
        match self.origin.as_deref() {
            Some(Origin { name: None, given: Some(given), .. }) if given.is_outside() => None,
            _ => Some(self.span),
        }
    }

    /// Whether it is a text in which references stand beside other text.
    pub(super) fn is_composed(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.text.is_some())
    }

    /// What gave it in place of the file's own value.
    pub fn given(&self) -> Option<&Given> {
        self.origin.as_ref()?.given.as_ref()
    }

    /// What gave it, if that is outside the file.
    fn given_outside(&self) -> Option<&Given> {
        self.given().filter(|given| given.is_outside())
    }

    /// What a message begins with if its value stands outside the file: `` `--set rank=0`: ``.
    pub(super) fn blame(&self) -> String {
        self.given_outside().map_or_else(String::new, |given| format!("`{given}`: "))
    }

    /// The same where the value has no part in what is wrong, and may be a secret: `` `--set rank`: ``.
    pub(super) fn blame_of_target(&self) -> String {
        self.given_outside().map_or_else(String::new, |given| format!("`{}`: ", given.target()))
    }

    /// The same where the value must not be seen: `` `--set hub.token=***`: ``.
    pub(super) fn blame_of_secret(&self) -> String {
        match self.given_outside() {
            Some(given @ Given::Set(_)) => format!("`{}=***`: ", given.target()),
            _ => self.blame_of_target(),
        }
    }
}
