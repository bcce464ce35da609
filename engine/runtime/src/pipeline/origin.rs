//! Where a value came from: a param, a matrix, a secret's name, `--set`, a params file, a profile.

use std::{fmt, sync::Arc};

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
            Some(Origin { name: None, given: Some(Given::Set(_) | Given::ParamsFile(_)), .. }) => None,
            _ => Some(self.span),
        }
    }

    /// What gave it in place of the file's own value.
    pub fn given(&self) -> Option<&Given> {
        self.origin.as_ref()?.given.as_ref()
    }

    /// What a message begins with if its value stands outside the file: `` `--set rank=0`: ``.
    pub(super) fn blame(&self) -> String {
        match self.given() {
            Some(given @ (Given::Set(_) | Given::ParamsFile(_))) => format!("`{given}`: "),
            _ => String::new(),
        }
    }
}
