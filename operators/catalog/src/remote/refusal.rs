//! What to say when a hub says no: whose licence to accept, which name was meant.

use llmflow_contract::Failure;
use reqwest::Method;
use serde_json::Value;

use super::{
    Repository, Select,
    client::{Answer, Requests, host},
};

/// Most of a short answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Names listed where none is near.
const SHOWN: usize = 8;
/// How alike two names must be to be offered, of 1.
const ALIKE: f64 = 0.7;
/// Files that run code when they are opened.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle"];

/// An answer with a status that no patience changes.
pub(super) async fn refused(
    requests: &Requests<'_>,
    repository: &Repository,
    revision: &str,
    path: Option<&str>,
    answer: &Answer,
) -> Failure {
    let (hub, name) = (requests.hub, repository.source());
    let page = hub.page(repository);
    let code = answer.header("x-error-code").unwrap_or_default();
    let status = answer.response.status().as_u16();
    let who = if hub.token.is_some() { "with the token in HF_TOKEN" } else { "without a token" };
    let failure = match (status, code) {
        _ if !answer.is_hub => unexpected(answer, &name),
        (401 | 403, "GatedRepo") => Failure::environment(
            "remote/gated",
            format!("`{}` may be read only by those who accepted its licence", repository.id),
        )
        .help(match hub.token {
            Some(_) => format!("accept it at {page}, with the account that HF_TOKEN belongs to"),
            None => format!("accept it at {page}, then set HF_TOKEN to a token of that account"),
        }),
        (404, "RevisionNotFound") => {
            let names = revisions(requests, repository).await;
            let failure =
                Failure::input("remote/revision", format!("`{}` has no revision `{revision}`", repository.id));
            failure.help(nearest(revision, &names).unwrap_or_else(|| format!("see {page}/commits/main")))
        }
        (404, "EntryNotFound") => {
            let path = path.unwrap_or_default();
            Failure::input("remote/no-file", format!("`{name}` has no file `{path}`"))
                .help(format!("see {page}/tree/main"))
        }
        // The hub does not say which names exist to those who may not read them.
        (401 | 404, _) => {
            let names = names_like(requests, repository).await;
            let message = format!("there is no `{}`, or it may not be read {who}", repository.id);
            let see = match hub.token {
                Some(_) => format!("see whether {page} opens for you"),
                None => format!("if {page} is private, set HF_TOKEN to a token that may read it"),
            };
            Failure::input("remote/no-repository", message).help(nearest(&repository.id, &names).unwrap_or(see))
        }
        (403, _) => Failure::environment("remote/forbidden", format!("`{}` may not be read {who}", repository.id))
            .help(format!("accept its licence at {page}, or set HF_TOKEN to a token that may read it")),
        _ => unexpected(answer, &name),
    };
    match answer.header("x-error-message") {
        Some(said) => failure.param("source").cause(said.chars().take(300).collect::<String>()),
        None => failure.param("source"),
    }
}

fn unexpected(answer: &Answer, name: &str) -> Failure {
    let (host, status) = (host(answer.response.url()), answer.response.status());
    Failure::environment("remote/status", format!("`{host}` answers {status} about `{name}`"))
}

/// Nothing in a repository matches.
pub(super) fn no_file(repository: &Repository, select: &Select, names: &[&str]) -> Failure {
    let is_pickle = |name: &&&str| PICKLES.iter().any(|end| name.ends_with(end));
    let failure = match select.file() {
        Some(file) => Failure::input("remote/no-file", format!("`{}` has no file `{file}`", repository.source())),
        None => {
            Failure::input("remote/no-file", format!("`{}` has no file like `{}`", repository.source(), select.pattern))
        }
    };
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    failure.help(match nearest(&select.pattern, &owned) {
        Some(near) => near,
        None if names.is_empty() => "the repository is empty".to_owned(),
        None if names.iter().any(|name| is_pickle(&name))
            && !names.iter().any(|name| name.ends_with(".safetensors")) =>
        {
            pickle_help().to_owned()
        }
        None => {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            format!(
                "it has {}{more}",
                names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            )
        }
    })
}

/// Refuses a file that can run code when it is opened.
///
/// # Errors
/// `remote/pickle`
pub fn refuse_pickle(path: &str, param: &str) -> Result<(), Failure> {
    match PICKLES.iter().any(|end| path.to_ascii_lowercase().ends_with(end)) {
        true => {
            Err(Failure::input("remote/pickle", format!("`{path}` is a pickle: to open it is to run what is in it"))
                .param(param)
                .help(pickle_help()))
        }
        false => Ok(()),
    }
}

fn pickle_help() -> &'static str {
    "take a repository with safetensors; many have a branch with them: `hf:OWNER/NAME@refs/pr/1`"
}

fn nearest(name: &str, names: &[String]) -> Option<String> {
    let alike = |other: &String| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    let best = names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).filter(|best| alike(best) >= ALIKE)?;
    Some(format!("did you mean `{best}`?"))
}

/// Branches and tags; none if they cannot be had.
async fn revisions(requests: &Requests<'_>, repository: &Repository) -> Vec<String> {
    let parts = ["api", repository.kind.plural()].into_iter().chain(repository.id.split('/')).chain(["refs"]);
    let Ok(url) = requests.url(parts) else { return Vec::new() };
    let refs = ask(requests, url).await.unwrap_or_default();
    let lists = ["branches", "tags"].into_iter().filter_map(|kind| refs[kind].as_array());
    lists.flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

/// Repositories whose name is like this one's; none if they cannot be had.
async fn names_like(requests: &Requests<'_>, repository: &Repository) -> Vec<String> {
    let Ok(mut url) = requests.url(["api", repository.kind.plural()]) else { return Vec::new() };
    let name = repository.id.rsplit('/').next().unwrap_or_default();
    url.query_pairs_mut().append_pair("search", name).append_pair("limit", "20");
    let found = ask(requests, url).await.unwrap_or_default();
    found.as_array().into_iter().flatten().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
}

async fn ask(requests: &Requests<'_>, url: reqwest::Url) -> Option<Value> {
    let answer =
        requests.send(Method::GET, &url, 0).await.ok().filter(|answer| answer.response.status().is_success())?;
    serde_json::from_slice(&answer.body(MAX_ANSWER_BYTES).await.ok()?).ok()
}
