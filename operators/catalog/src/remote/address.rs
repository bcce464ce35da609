//! `hf:OWNER/NAME[@REVISION]`

use std::sync::LazyLock;

use llmflow_contract::Failure;
use regex::Regex;

/// What every address begins with.
pub const SCHEME: &str = "hf:";
/// Where no revision is named.
const MAIN: &str = "main";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    Model,
    Dataset,
}

impl RepositoryKind {
    /// Before the name in an address of the hub.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }
    /// In the hub's API and in names of cache folders.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository of a hub, at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub kind: RepositoryKind,
    /// `owner/name`
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// Names as the hub allows them; they reach addresses and names of folders, so nothing else may.
static ID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}$").expect("a valid pattern")
});
static REVISION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$").expect("a valid pattern"));

impl Repository {
    /// Whether a source is one of a hub.
    pub fn is_meant(source: &str) -> bool {
        source.starts_with(SCHEME)
    }

    /// # Errors
    /// `remote/address`, naming the param `source`.
    pub fn parse(source: &str, kind: RepositoryKind) -> Result<Self, Failure> {
        let invalid = || {
            Failure::input("remote/address", format!("`{source}` names no repository"))
                .param("source")
                .help("write it as `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`")
        };
        let rest = source.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let (id, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
        let is_plain = |text: &str| !text.contains("..") && !text.contains("--") && !text.ends_with(['.', '-', '/']);
        if !(ID.is_match(id) && is_plain(id) && REVISION.is_match(revision) && !revision.contains("..")) {
            return Err(invalid());
        }
        Ok(Self { kind, id: id.to_owned(), revision: revision.to_owned() })
    }

    /// Its name in `llmflow.lock`.
    pub fn source(&self) -> String {
        format!("{SCHEME}{}{}@{}", self.kind.prefix(), self.id, self.revision)
    }
}

/// Whether a revision is a commit, which never changes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_owner_a_name_and_perhaps_a_revision() {
        let of = |source: &str| Repository::parse(source, RepositoryKind::Model).unwrap();
        assert_eq!((of("hf:a/b").id.as_str(), of("hf:a/b").revision.as_str()), ("a/b", "main"));
        assert_eq!(of("hf:gpt2@refs/pr/1").revision, "refs/pr/1");
        assert_eq!(Repository::parse("hf:a/b", RepositoryKind::Dataset).unwrap().source(), "hf:datasets/a/b@main");
    }

    #[test]
    fn what_could_leave_its_place_in_an_address_or_a_folder_is_refused() {
        for source in [
            "hf:",
            "hf:/b",
            "hf:a/",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/b..c",
            "hf:a--b/c",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a/b?c",
            "hf:a/b@-x",
            "hf:a b/c",
            "hf://a/b",
        ] {
            let failure = Repository::parse(source, RepositoryKind::Model).unwrap_err();
            assert_eq!(failure.param.as_deref(), Some("source"), "{source}");
        }
    }
}
