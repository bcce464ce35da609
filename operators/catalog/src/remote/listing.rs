//! What a repository holds at a revision: the commit, and each file with its size and digest.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::{Context, Failure, FileDigest, Locked, LockedFile};
use reqwest::Method;
use serde::Deserialize;

use super::{
    Hub, Repository, Select,
    address::is_commit,
    client::{Requests, host},
    digest::is_hex,
    refusal,
};

/// Largest listing that is read, in bytes: some 300,000 files.
const MAX_LISTING_BYTES: usize = 64 << 20;
/// Files of one selection; more is most likely a pattern gone wrong.
const MAX_FILES: usize = 100_000;

/// The hub's answer about a revision, as far as it is read.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    #[serde(alias = "oid")]
    sha256: String,
    size: u64,
}

pub(super) async fn resolve(
    hub: &Hub,
    repository: &Repository,
    select: &Select,
    revision: &str,
    ctx: &Context<'_>,
) -> Result<Locked, Failure> {
    let requests = Requests::new(hub)?;
    let info = info(&requests, repository, revision).await?;
    let mut files = BTreeMap::new();
    for sibling in info.siblings.iter().filter(|sibling| select.matches(&sibling.rfilename)) {
        ctx.check()?;
        let path = &sibling.rfilename;
        if !is_plain(path) {
            return Err(Failure::input("remote/path", format!("`{}` lists a file `{path}`", repository.source()))
                .help("a path that leaves its folder is never fetched"));
        }
        let file = match sibling.locked() {
            Some(file) => file,
            None => head(&requests, repository, &info.sha, path).await?,
        };
        files.insert(path.clone(), file);
    }
    if files.len() > MAX_FILES {
        let message = format!("`{}` names {} files of `{}`", select.pattern, files.len(), repository.source());
        return Err(Failure::input("remote/too-many", message).help("name fewer: `data/train-*.parquet`"));
    }
    if files.is_empty() {
        let names: Vec<&str> = info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
        return Err(refusal::no_file(repository, select, &names));
    }
    Ok(Locked { revision: info.sha, selected: BTreeSet::from([select.pattern.clone()]), files })
}

async fn info(requests: &Requests<'_>, repository: &Repository, revision: &str) -> Result<Info, Failure> {
    let owner_and_name = repository.id.split('/');
    let parts = ["api", repository.kind.plural()].into_iter().chain(owner_and_name).chain(["revision", revision]);
    let mut url = requests.url(parts)?;
    url.set_query(Some("blobs=true"));
    let answer = requests.retrying(|| 0, async || requests.send(Method::GET, &url, 0).await).await?;
    if !answer.response.status().is_success() {
        return Err(refusal::refused(requests, repository, revision, None, &answer).await);
    }
    let body = answer.body(MAX_LISTING_BYTES).await?;
    let unreadable = |what: String| {
        Failure::environment("remote/protocol", format!("`{}` gives no listing that can be read: {what}", host(&url)))
            .help("see whether HF_ENDPOINT is the address of a hub")
    };
    let info: Info = serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))?;
    if is_commit(&info.sha) { Ok(info) } else { Err(unreadable(format!("`{}` is no commit", info.sha))) }
}

impl Sibling {
    fn locked(&self) -> Option<LockedFile> {
        if let Some(large) = &self.lfs {
            let digest = is_hex(&large.sha256, 64).then(|| FileDigest::Sha256(large.sha256.clone()));
            return Some(LockedFile { size_bytes: large.size, digest: digest? });
        }
        let digest = self.blob_id.as_ref().filter(|id| is_hex(id, 40)).cloned().map(FileDigest::GitSha1);
        Some(LockedFile { size_bytes: self.size?, digest: digest? })
    }
}

/// Asks for one file's size and digest, where the listing lacks them.
async fn head(
    requests: &Requests<'_>,
    repository: &Repository,
    commit: &str,
    path: &str,
) -> Result<LockedFile, Failure> {
    let url = requests.url(file_parts(repository, commit, path))?;
    let answer = requests.retrying(|| 0, async || requests.send(Method::HEAD, &url, 0).await).await?;
    let status = answer.response.status();
    if !(status.is_success() || status.is_redirection()) {
        return Err(refusal::refused(requests, repository, commit, Some(path), &answer).await);
    }
    let etag = answer.header("x-linked-etag").or(answer.header("etag")).unwrap_or_default();
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
    let size = answer.header("x-linked-size").or(answer.header("content-length"));
    let digest = match &etag {
        _ if is_hex(&etag, 64) => Some(FileDigest::Sha256(etag)),
        _ if is_hex(&etag, 40) => Some(FileDigest::GitSha1(etag)),
        _ => None,
    };
    match (size.and_then(|size| size.parse().ok()), digest) {
        (Some(size_bytes), Some(digest)) => Ok(LockedFile { size_bytes, digest }),
        _ => Err(Failure::environment(
            "remote/protocol",
            format!("`{}` states neither size nor digest of `{path}`, so it cannot be checked", host(&url)),
        )),
    }
}

/// `datasets/owner/name/resolve/COMMIT/path`
pub(super) fn file_parts<'a>(
    repository: &'a Repository,
    commit: &'a str,
    path: &'a str,
) -> impl Iterator<Item = &'a str> {
    let prefix = repository.kind.prefix().trim_end_matches('/');
    let before = std::iter::once(prefix).filter(|prefix| !prefix.is_empty()).chain(repository.id.split('/'));
    before.chain(["resolve", commit]).chain(path.split('/'))
}

/// A path that stays in its folder, whatever the hub says.
fn is_plain(path: &str) -> bool {
    let fits = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(fits) && !path.contains(['\\', '\0', ':']) && path.len() <= 1024
}
