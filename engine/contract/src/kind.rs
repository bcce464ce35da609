//! Kinds: the type of what flows through a port. Names in an open table, not an enum.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// The kind of one artifact, such as `dataset/chat` or `model`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    pub const fn of(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
    pub fn new(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn is_dataset(&self) -> bool {
        self.0.starts_with("dataset/")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kinds a port takes: names, or a family such as `dataset/*`. An `adapter` goes wherever a `model` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KindSet(Vec<Cow<'static, str>>);

impl KindSet {
    pub fn of(names: &'static [&'static str]) -> Self {
        Self(names.iter().map(|name| Cow::Borrowed(*name)).collect())
    }
    pub fn accepts(&self, kind: &Kind) -> bool {
        self.0.iter().any(|name| match name.strip_suffix('*') {
            Some(family) => kind.as_str().starts_with(family),
            None => name == kind.as_str() || (name == "model" && kind.as_str() == "adapter"),
        })
    }

    /// Is there a kind among `gives` that is accepted? `dataset/*` stands for every kind of its family.
    pub fn may_meet(&self, gives: &Self) -> bool {
        let is_of = |family: &str| {
            self.0.iter().any(|name| name.starts_with(family) || family.starts_with(name.trim_end_matches('*')))
        };
        gives.0.iter().any(|name| match name.strip_suffix('*') {
            Some(family) => is_of(family),
            None => self.accepts(&Kind::new(name.clone())),
        })
    }
}

impl fmt::Display for KindSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" | "))
    }
}

/// What a typed port accepts; `KIND` is the one written where it is an output.
pub trait PortKind: Send + Sync + 'static {
    const ACCEPTS: &'static [&'static str];
}

/// The kinds of today, as types for ports.
pub mod kinds {
    use super::PortKind;

    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident = [$($kind:literal),+];)+) => {$(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;
            impl PortKind for $name {
                const ACCEPTS: &'static [&'static str] = &[$($kind),+];
            }
        )+};
    }

    kinds! {
        /// Any dataset.
        AnyDataset = ["dataset/*"];
        /// `{id, text, meta}`
        Text = ["dataset/text"];
        /// `{id, messages, tools, meta}`
        Chat = ["dataset/chat"];
        /// `{id, prompt, answer, meta}`
        Prompt = ["dataset/prompt"];
        /// What can be asked: prompts, or chats whose last answer becomes the reference.
        Askable = ["dataset/prompt", "dataset/chat"];
        /// What has text to measure: documents, or chats rendered by the model's template.
        Readable = ["dataset/text", "dataset/chat"];
        /// `{id, query, choices, gold, meta}`
        Choice = ["dataset/choice"];
        /// `{id, prompt, chosen, rejected, margin, meta}`
        Preference = ["dataset/preference"];
        /// A Hugging Face folder; an adapter is accepted too.
        Model = ["model"];
        /// A PEFT folder.
        Adapter = ["adapter"];
        /// `tokenizer.json` and `tokenizer_config.json`.
        Tokenizer = ["tokenizer"];
        /// One GGUF v3 file.
        Gguf = ["gguf"];
        /// Whatever can be run to give text.
        Runnable = ["model", "gguf"];
        /// `report.json`.
        ReportFile = ["report"];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_takes_its_members_and_a_model_port_takes_an_adapter() {
        let datasets = KindSet::of(&["dataset/*"]);
        assert!(datasets.accepts(&Kind::of("dataset/chat")));
        assert!(!datasets.accepts(&Kind::of("model")));
        assert!(KindSet::of(&["model"]).accepts(&Kind::of("adapter")));
        assert!(!KindSet::of(&["adapter"]).accepts(&Kind::of("model")));
    }
}
