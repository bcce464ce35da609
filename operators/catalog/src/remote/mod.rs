//! Files that lie elsewhere: named, resolved to digests, fetched, checked.
//!
//! Owns: `hf:` addresses, the hub's protocol, the local cache that other tools keep, downloads that go on where they were
//! cut, the digest of every file before its first use.
//! Must not know: what a file holds. No operator talks to a hub but through [`Hub`].
//! Start at [`Hub::resolve`] (a repository becomes a list of files with digests) and [`Hub::fetch`] (files come here).

mod address;
mod cache;
mod client;
mod digest;
mod download;
mod listing;
mod refusal;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use llmflow_contract::{Context, Failure, FileDigest, Locked, LockedFile};
use reqwest::Url;

pub use address::{Repository, RepositoryKind};
pub use digest::{is_intact, touch};
pub use refusal::refuse_pickle;

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";
/// The weights of a model in one file, and the index of those in several.
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What is read of a model's repository.
pub const MODEL_FILES: &str = "{model.safetensors,model-*-of-*.safetensors,*.json,*.jinja,README.md}";

/// A connection that gives nothing for so long is given up and made anew.
const STALL: Duration = Duration::from_secs(30);
/// Before the second try; doubled before each further one.
const BACKOFF: Duration = Duration::from_millis(500);
/// Between two looks at cancellation.
const TICK: Duration = Duration::from_millis(100);

/// A token of the hub. Never shown, never stored, sent to the hub's own origin alone.
#[derive(Clone)]
struct Token(String);

/// Where repositories are fetched from, and how.
#[derive(Clone)]
pub struct Hub {
    endpoint: Url,
    token: Option<Token>,
    /// Folders with the layout `models--owner--name/{refs,snapshots,blobs}`.
    caches: Vec<PathBuf>,
    is_offline: bool,
    stall: Duration,
    backoff: Duration,
}

/// Files that lie on this machine, by their path in the repository.
pub type Fetched = BTreeMap<String, PathBuf>;

impl Hub {
    /// The environment variable with the key to what is not public.
    pub const TOKEN: &str = "HF_TOKEN";

    /// As `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the cache's own variables say.
    ///
    /// # Errors
    /// `remote/endpoint` if `HF_ENDPOINT` is no address of a web server.
    pub fn from_env() -> Result<Self, Failure> {
        Self::from(&|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    fn from(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let endpoint = environment("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned());
        let url = Url::parse(endpoint.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = url.ok_or_else(|| {
            Failure::environment("remote/endpoint", format!("HF_ENDPOINT is `{endpoint}`, no address of a web server"))
                .help(format!("unset HF_ENDPOINT, or write it as {PUBLIC}"))
        })?;
        Ok(Self {
            endpoint,
            token: environment(Self::TOKEN).map(|token| Token(token.trim().to_owned())),
            caches: cache::folders(environment),
            is_offline: environment("HF_HUB_OFFLINE")
                .is_some_and(|value| matches!(value.as_str(), "1" | "true" | "yes")),
            stall: STALL,
            backoff: BACKOFF,
        })
    }

    /// What a repository holds of `select` (a pattern), at `revision` or else where its own revision points now.
    ///
    /// A local cache answers without the network for a commit of which it has the file, or the whole model.
    ///
    /// # Errors
    /// No such repository, revision or file; no right to read it; no network.
    pub fn resolve(
        &self,
        repository: &Repository,
        select: &Select,
        revision: Option<&str>,
        ctx: &Context,
    ) -> Result<Locked, Failure> {
        let revision = revision.unwrap_or(&repository.revision);
        let is_offline = self.is_offline || ctx.is_offline();
        if let Some(found) = self.resolve_in_caches(repository, select, revision, is_offline) {
            return Ok(found);
        }
        if is_offline {
            return Err(offline(&format!("what `{}` holds is", repository.source())));
        }
        client::block_on(ctx, async { listing::resolve(self, repository, select, revision, ctx).await })
    }

    /// Brings files to this machine; what lies here already and is intact is used where it lies.
    ///
    /// # Errors
    /// `remote/offline`, `remote/digest`, a full disk, no network, no right to read.
    pub fn fetch(
        &self,
        repository: &Repository,
        revision: &str,
        files: &BTreeMap<String, LockedFile>,
        ctx: &Context,
    ) -> Result<Fetched, Failure> {
        let total = files.values().map(|file| file.size_bytes).sum();
        let (mut here, mut missing, mut done) = (Fetched::new(), Vec::new(), 0);
        for (path, file) in files {
            match self.find_here(repository, revision, path, file, ctx)? {
                Some(found) => {
                    done += file.size_bytes;
                    ctx.progress(done, Some(total), "bytes");
                    here.insert(path.clone(), found);
                }
                None => missing.push((path.as_str(), file)),
            }
        }
        if let Some((path, _)) = missing.first().filter(|_| self.is_offline || ctx.is_offline()) {
            return Err(offline(&format!("`{path}` of `{}` is", repository.source())));
        }
        if !missing.is_empty() {
            let work = download::Work { hub: self, repository, revision, ctx, total, done: done.into() };
            here.extend(client::block_on(ctx, async { work.all(missing).await })?);
        }
        Ok(here)
    }

    /// An intact copy among our own downloads and in the caches of other tools.
    fn find_here(
        &self,
        repository: &Repository,
        revision: &str,
        path: &str,
        file: &LockedFile,
        ctx: &Context,
    ) -> Result<Option<PathBuf>, Failure> {
        let own = ctx.downloads().join(file.digest.hex());
        for candidate in std::iter::once(own).chain(self.cached(repository, revision, path, file)) {
            if is_intact(&candidate, file, ctx)? {
                if candidate.starts_with(ctx.downloads()) {
                    touch(&candidate);
                }
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// Where a person reads about a repository and accepts its licence.
    fn page(&self, repository: &Repository) -> String {
        let endpoint = self.endpoint.as_str().trim_end_matches('/');
        format!("{endpoint}/{}{}", repository.kind.prefix(), repository.id)
    }
}

/// Which files of a repository are meant.
#[derive(Clone, Debug)]
pub struct Select {
    /// As it stands in the lock.
    pub pattern: String,
    matcher: globset::GlobMatcher,
}

impl Select {
    /// # Errors
    /// `param/pattern` if it is no pattern.
    pub fn new(pattern: &str) -> Result<Self, Failure> {
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| Failure::input("param/pattern", format!("`{pattern}`: {}", error.kind())))?;
        Ok(Self { pattern: pattern.to_owned(), matcher: glob.compile_matcher() })
    }
    pub fn matches(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }
    /// The one file it names, if it is no pattern.
    fn file(&self) -> Option<&str> {
        (!self.pattern.contains(['*', '?', '[', '{'])).then_some(&self.pattern)
    }
}

/// What names the content of files for a key: their digests, and their names where there are several.
pub fn pin(files: &BTreeMap<String, LockedFile>) -> String {
    let shown = |digest: &FileDigest| match digest {
        FileDigest::Sha256(hex) => format!("sha256:{hex}"),
        FileDigest::GitSha1(hex) => format!("git-sha1:{hex}"),
    };
    let lines: Vec<String> = files.iter().map(|(path, file)| format!("{path}={}", shown(&file.digest))).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!("{} files, blake3:{}", many.len(), blake3::hash(many.join("\n").as_bytes()).to_hex()),
    }
}

/// Gives a file its name in a folder of an attempt, where it stays until that ends.
///
/// # Errors
/// As of any file.
pub fn link(file: &Path, name: &Path) -> Result<(), Failure> {
    let folder = name.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
    let file = file.canonicalize().map_err(|error| Failure::io("opening", file, &error))?;
    std::os::unix::fs::symlink(&file, name).map_err(|error| Failure::io("linking", name, &error))
}

/// Something is not here, and the network is not to be used.
pub fn offline(what: &str) -> Failure {
    Failure::environment("remote/offline", format!("{what} not on this machine, and the network is not to be used"))
        .help("fetch it first, with a network: llmflow fetch PIPELINE")
}
