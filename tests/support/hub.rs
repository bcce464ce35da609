//! A small hub on loopback, for tests: repositories of files, a store on another port that large files lie in, a log of
//! who asked for what with which token, and faults on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A hub and its store; they end with the test's process.
pub struct TestHub {
    /// For `HF_ENDPOINT`.
    pub url: String,
    shared: Arc<Shared>,
}

/// One repository.
#[derive(Clone, Default)]
pub struct Repo {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whose licence must be accepted; the token that has.
    pub gated: Option<&'static str>,
    /// Who alone may see it.
    pub private: Option<&'static str>,
    /// Whether the listing has sizes and digests.
    pub lists_names_only: bool,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of the store rather than the hub.
    pub of_store: bool,
    pub method: String,
    /// Decoded, with the query.
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
}

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// One byte of the body is another.
    Flip,
    /// A byte more than announced by the listing.
    Longer,
    /// One byte a write.
    Drip,
    /// Half of the body, then nothing until the other side gives up.
    Stall,
    /// The whole file, whatever was asked for.
    NoRange,
    /// This status, with these further headers.
    Status(u16, &'static str),
    /// Another place to go.
    Redirect(String),
}

#[derive(Default)]
struct Shared {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<Vec<(String, VecDeque<Fault>)>>,
    log: Mutex<Vec<Asked>>,
    asked: Condvar,
    store: Mutex<String>,
}

impl TestHub {
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let store = serve(shared.clone(), true);
        *lock(&shared.store) = store;
        Self { url: serve(shared.clone(), false), shared }
    }

    /// Puts a repository up: `models/owner/name`, `datasets/owner/name`.
    pub fn put(&self, name: &str, repo: Repo) -> String {
        let commit = repo.commit();
        lock(&self.shared.repos).insert(name.to_owned(), repo);
        commit
    }

    /// The next answers about a path that contains `part` go wrong, one after the other.
    pub fn fail(&self, part: &str, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared.faults).push((part.to_owned(), faults.into_iter().collect()));
    }

    pub fn log(&self) -> Vec<Asked> {
        lock(&self.shared.log).clone()
    }

    pub fn forget(&self) {
        lock(&self.shared.log).clear();
    }

    /// Returns when a path that contains `part` was asked for.
    pub fn wait_for(&self, part: &str) {
        let mut log = lock(&self.shared.log);
        while !log.iter().any(|asked| asked.path.contains(part)) {
            log = self.shared.asked.wait(log).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl Repo {
    pub fn with(mut self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.to_owned(), bytes.as_ref().to_vec());
        self
    }

    /// Forty digits that name this content.
    pub fn commit(&self) -> String {
        let mut hasher = Sha1::new();
        for (path, bytes) in &self.files {
            hasher.update(path.as_bytes());
            hasher.update(bytes);
        }
        hex(&hasher.finalize())
    }
}

/// The digest a hub states: of large files SHA-256, of small ones the git blob's.
pub fn etag(path: &str, bytes: &[u8]) -> String {
    if is_large(path) {
        return hex(&Sha256::digest(bytes));
    }
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()).as_bytes());
    hasher.update(bytes);
    hex(&hasher.finalize())
}

fn is_large(path: &str) -> bool {
    [".safetensors", ".gguf", ".parquet"].iter().any(|end| path.ends_with(end))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Listens on a free port; gives its address.
fn serve(shared: Arc<Shared>, is_store: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = shared.clone();
            std::thread::spawn(move || drop(answer(stream, &shared, is_store)));
        }
    });
    address
}

fn answer(stream: TcpStream, shared: &Shared, is_store: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked =
        Asked { of_store: is_store, method: method.to_owned(), path: decoded(target), token: None, range: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.token = Some(value.trim_start_matches("Bearer ").to_owned()),
            "range" => asked.range = Some(value.to_owned()),
            _ => {}
        }
    }
    lock(&shared.log).push(asked.clone());
    shared.asked.notify_all();
    let parts: Vec<String> = target.split('?').next().unwrap_or_default().split('/').skip(1).map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let fault = next_fault(shared, &asked.path);
    match fault {
        Some(Fault::Status(status, headers)) => return reply(&stream, status, headers, b""),
        Some(Fault::Redirect(to)) => return reply(&stream, 302, &format!("Location: {to}"), b""),
        _ => {}
    }
    match parts.as_slice() {
        ["blob", digest, _] if is_store => {
            let found = lock(&shared.repos)
                .values()
                .flat_map(|repo| repo.files.clone())
                .find(|(path, bytes)| is_large(path) && etag(path, bytes) == *digest);
            match found {
                Some((_, bytes)) => send(stream, &asked, &bytes, "", fault),
                None => reply(&stream, 404, "", b""),
            }
        }
        ["api", rest @ ..] => api(&stream, shared, &asked, rest),
        [..] => resolve(stream, shared, &asked, &parts, fault),
    }
}

fn next_fault(shared: &Shared, path: &str) -> Option<Fault> {
    let mut faults = lock(&shared.faults);
    faults.iter_mut().find(|(part, faults)| path.contains(part.as_str()) && !faults.is_empty())?.1.pop_front()
}

fn api(stream: &TcpStream, shared: &Shared, asked: &Asked, parts: &[&str]) -> std::io::Result<()> {
    let repos = lock(&shared.repos).clone();
    let kind = parts.first().copied().unwrap_or_default().split('?').next().unwrap_or_default();
    let json = |text: String| reply(stream, 200, "Content-Type: application/json", text.as_bytes());
    if parts.len() == 1 {
        let names = repos.keys().filter_map(|name| name.strip_prefix(kind)?.strip_prefix('/'));
        return json(format!("[{}]", names.map(|name| format!("{{\"id\": {name:?}}}")).collect::<Vec<_>>().join(",")));
    }
    let split = parts.iter().position(|part| matches!(*part, "revision" | "refs")).unwrap_or(parts.len());
    let name = parts[..split].join("/");
    let visible =
        repos.get(&name).filter(|repo| repo.private.is_none_or(|token| asked.token.as_deref() == Some(token)));
    let Some(repo) = visible else {
        let status = if asked.token.is_some() { 404 } else { 401 };
        return reply(stream, status, "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found", b"");
    };
    if parts.get(split) == Some(&"refs") {
        return json("{\"branches\": [{\"name\": \"main\"}], \"tags\": [{\"name\": \"v1.0\"}]}".into());
    }
    let revision = parts.get(split + 1).copied().unwrap_or_default();
    if !matches!(revision, "main" | "v1.0" | "refs/pr/1") && revision != repo.commit() {
        return reply(stream, 404, "X-Error-Code: RevisionNotFound", b"");
    }
    let siblings = repo.files.iter().map(|(path, bytes)| {
        let (tag, size) = (etag(path, bytes), bytes.len());
        match (repo.lists_names_only, is_large(path)) {
            (true, _) => format!("{{\"rfilename\": {path:?}}}"),
            (_, true) => format!(
                "{{\"rfilename\": {path:?}, \"size\": {size}, \"blobId\": \"{}\", \"lfs\": {{\"sha256\": \"{tag}\", \"size\": {size}, \"pointerSize\": 134}}}}",
                "0".repeat(40)
            ),
            _ => format!("{{\"rfilename\": {path:?}, \"size\": {size}, \"blobId\": \"{tag}\"}}"),
        }
    });
    let siblings: Vec<String> = siblings.collect();
    json(format!("{{\"id\": {name:?}, \"sha\": \"{}\", \"siblings\": [{}]}}", repo.commit(), siblings.join(",")))
}

/// `owner/name/resolve/COMMIT/path`
fn resolve(
    stream: TcpStream,
    shared: &Shared,
    asked: &Asked,
    parts: &[&str],
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let Some(split) = parts.iter().position(|part| *part == "resolve") else { return reply(&stream, 404, "", b"") };
    let name = parts[..split].join("/");
    let name = if name.starts_with("datasets/") { name } else { format!("models/{name}") };
    let (commit, path) = (parts.get(split + 1).copied().unwrap_or_default(), parts[split + 2..].join("/"));
    let repo = lock(&shared.repos).get(&name).cloned().unwrap_or_default();
    if repo.gated.is_some_and(|token| asked.token.as_deref() != Some(token)) {
        let status = if asked.token.is_some() { 403 } else { 401 };
        return reply(&stream, status, "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted", b"");
    }
    let Some(bytes) = repo.files.get(&path).filter(|_| commit == repo.commit()) else {
        return reply(&stream, 404, "X-Error-Code: EntryNotFound", b"");
    };
    let tag = etag(&path, bytes);
    if !is_large(&path) {
        return send(stream, asked, bytes, &format!("X-Repo-Commit: {commit}\r\nETag: \"{tag}\""), fault);
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    let to = format!("{}/blob/{tag}/{file}?signature=not-for-your-eyes", lock(&shared.store));
    let size = bytes.len();
    let headers =
        format!("X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{tag}\"\r\nX-Linked-Size: {size}\r\nLocation: {to}");
    reply(&stream, 302, &headers, b"")
}

/// A file, or the part of it that was asked for, with whatever goes wrong.
fn send(
    mut stream: TcpStream,
    asked: &Asked,
    bytes: &[u8],
    headers: &str,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let mut bytes = bytes.to_vec();
    match fault {
        Some(Fault::Flip) => bytes[0] ^= 1,
        Some(Fault::Longer) => bytes.push(0),
        _ => {}
    }
    let from = asked.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from = from.filter(|_| !matches!(fault, Some(Fault::NoRange)));
    let (status, start) = match from {
        Some(from) if from < bytes.len() => ("206 Partial Content", from),
        Some(_) => return reply(&stream, 416, "", b""),
        None => ("200 OK", 0),
    };
    let body = &bytes[start..];
    let range = format!("Content-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    let headers = [headers, if start > 0 { &range } else { "" }].join("\r\n");
    head(&mut stream, status, &headers, body.len())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::Cut(most)) => stream.write_all(&body[..most.min(body.len())]),
        Some(Fault::Drip) => body.chunks(1).try_for_each(|byte| stream.write_all(byte).and_then(|()| stream.flush())),
        Some(Fault::Stall) => {
            stream.write_all(&body[..body.len() / 2])?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.read(&mut [0]).map(|_| ()) // returns when the other side hangs up
        }
        _ => stream.write_all(body),
    }
}

fn reply(mut stream: &TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    head(&mut stream, &format!("{status} Status"), headers, body.len())?;
    stream.write_all(body)
}

fn head(stream: &mut impl Write, status: &str, headers: &str, size: usize) -> std::io::Result<()> {
    let headers: String =
        headers.split("\r\n").filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {size}\r\nConnection: close\r\n\r\n")
}

fn decoded(text: impl AsRef<str>) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_ref().as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match escaped.filter(|_| *first == b'%') {
            Some(byte) => (bytes, rest) = ([bytes, vec![byte]].concat(), &after[2..]),
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
