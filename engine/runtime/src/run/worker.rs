//! A worker process: takes assignments, runs them, publishes what they give. It never plans and never writes lineage.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use llmflow_contract::{
    AnyArtifact, AnyMade, Bound, Checkpoint, Class, Context, Digest, Failure, Hasher, Host, Kind, Port, Progress,
    Reach, Registry, Report, Secret, SecretName, Use,
};

use super::message::{Assignment, FromWorker, Metrics, ToWorker};
use crate::{
    device,
    event::{Effort, now_ms},
    owner, remote,
    store::{Checkpoints, KeyRecord, Stamp, Store},
};

/// Name of the socket (abstract, so that it leaves no file) and the token that opens it.
pub const SOCKET: &str = "LLMFLOW_WORKER_SOCKET";
pub const TOKEN: &str = "LLMFLOW_WORKER_TOKEN";

/// Progress is sent at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// The hidden subcommand `__worker`: serves assignments until the engine hangs up. Returns the exit code.
pub fn worker_main(registry: &Registry) -> i32 {
    // A worker must not outlive its engine, however that dies.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    match connect().and_then(|stream| work(registry, stream, || std::process::exit(0))) {
        Ok(()) => 0,
        Err(_) => 3,
    }
}

/// Serves the assignments that come over `stream`, one after the other, until the engine hangs up. Then the one in progress
/// is cancelled and `orphaned` is called.
pub(super) fn work(registry: &Registry, stream: UnixStream, orphaned: fn()) -> std::io::Result<()> {
    let reader = stream.try_clone()?;
    let link = Arc::new(Link { stream: Mutex::new(stream), cancelled: AtomicBool::new(false), orphaned });
    let (sender, assignments) = mpsc::channel::<Assignment>();
    let listening = link.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
                Some(ToWorker::Assign(assignment)) => {
                    listening.cancelled.store(false, Ordering::SeqCst);
                    if sender.send(*assignment).is_err() {
                        break;
                    }
                }
                Some(ToWorker::Cancel) => listening.cancelled.store(true, Ordering::SeqCst),
                None => break,
            }
        }
        listening.lost();
    });
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    #[cfg(test)]
    runtime.start_paused(true); // what is late is waited for, and takes no time
    let runtime = runtime.enable_all().build()?;
    let mut opened: Option<Store> = None; // of the assignment before: nearly always the same
    for assignment in assignments {
        let store = match opened.take().filter(|store| store.url() == assignment.store) {
            Some(store) => Ok(store),
            None => Store::open(&assignment.store).map(|store| store.in_home(&assignment.work)),
        };
        let outcome = store.and_then(|store| attempt(registry, &assignment, &link, &runtime, opened.insert(store)));
        link.say(&match outcome {
            Ok(record) => FromWorker::Done(Box::new(record)),
            Err(failure) => FromWorker::Failed(assignment.secrets.scrub(failure)),
        });
    }
    Ok(())
}

fn connect() -> std::io::Result<UnixStream> {
    let name = std::env::var(SOCKET).map_err(std::io::Error::other)?;
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    let token = std::env::var(TOKEN).map_err(std::io::Error::other)?;
    let mut line = serde_json::to_string(&FromWorker::Hello(token))?;
    line.push('\n');
    (&stream).write_all(line.as_bytes())?;
    Ok(stream)
}

/// The line to the engine.
struct Link {
    stream: Mutex<UnixStream>,
    cancelled: AtomicBool,
    orphaned: fn(),
}

impl Link {
    /// The engine hung up or died.
    fn lost(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        (self.orphaned)();
    }

    fn say(&self, message: &FromWorker) {
        let Ok(mut line) = serde_json::to_string(message) else { return };
        line.push('\n');
        let mut stream = self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stream.write_all(line.as_bytes()).is_err() {
            self.lost();
        }
    }
}

/// Runs one assignment, publishes and commits its outputs.
fn attempt(
    registry: &Registry,
    assignment: &Assignment,
    link: &Arc<Link>,
    runtime: &tokio::runtime::Runtime,
    store: &Store,
) -> Result<KeyRecord, Failure> {
    let entry = registry
        .find(&assignment.operator)
        .ok_or_else(|| Failure::bug(format!("this worker has no operator `{}`", assignment.operator)))?;
    let mut bound = std::collections::BTreeMap::new();
    for (port, reads) in &assignment.inputs {
        let mut artifacts = Vec::new();
        for read in reads {
            let artifact = runtime.block_on(store.artifact(&read.digest, &assignment.work))?;
            artifacts.push(AnyArtifact { label: read.label.clone(), ..artifact });
        }
        bound.insert(port.clone(), artifacts);
    }
    let scratch = assignment.work.join("scratch").join(format!("{}{}", owner::prefix(), assignment.key.short()));
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::io("making", &scratch, &error))?;
    let read = Read::begin(&assignment.sources, store)?;
    let files = assignment.sources.iter().map(|(path, _)| path.as_path()).collect();
    let host = WorkerHost {
        read: &read,
        files,
        link: link.clone(),
        checkpoints: store.checkpoints(&assignment.key, assignment.kin.as_ref(), &assignment.work.join("partial")),
        store: store.clone(),
        runtime,
        assignment: assignment.clone(),
        state: Mutex::default(),
    };
    let context =
        Context::new(&host, assignment.seed, assignment.lease.clone(), scratch.clone(), assignment.base.clone())
            .with_downloads(remote::downloads(&assignment.work), assignment.is_offline);
    let began = Instant::now();
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        if assignment.serve {
            let ready = |address| link.say(&FromWorker::Serving(address));
            entry.serve(assignment.params.clone(), Bound::new(bound), &context, &ready).map(|()| Vec::new())
        } else {
            entry.run(assignment.params.clone(), Bound::new(bound), &context)
        }
    }));
    let _ = std::fs::remove_dir_all(&scratch);
    let made = match result {
        Ok(Ok(made)) => made,
        Ok(Err(failure)) => return host.fail(failure),
        Err(panic) => return host.fail(Failure::bug(panic_text(&panic))),
    };
    if assignment.serve {
        return Err(Failure::cancelled());
    }
    let seconds = began.elapsed().as_secs_f64();
    if !host.state().has_read
        && let Err(failure) = read.is_as_it_was(READING)
    {
        return host.fail(failure);
    }
    runtime.block_on(host.commit(made, seconds))
}

const READING: &str = "while the stage read it";

/// What a stage reads from outside: what the key was made of, from before the first look to after the last.
struct Read<'a> {
    sources: &'a [(PathBuf, Digest)],
    store: &'a Store,
    /// How each stood when the attempt began: one that was edited and put back in between is another file.
    stamps: Vec<Option<Stamp>>,
}

impl<'a> Read<'a> {
    fn begin(sources: &'a [(PathBuf, Digest)], store: &'a Store) -> Result<Self, Failure> {
        let stamps = sources.iter().map(|(path, _)| Stamp::of_file(path).ok()).collect();
        let read = Self { sources, store, stamps };
        read.is_as_it_was("since its key was made")?;
        Ok(read)
    }

    fn is_as_it_was(&self, when: &str) -> Result<(), Failure> {
        for ((path, expected), before) in self.sources.iter().zip(&self.stamps) {
            let changed = |what: &str| {
                let message = format!("`{}` {what} {when}", path.display());
                Failure::new(Class::Transient { after: None }, "source/changed", message)
                    .help("let nothing write to it during a run; run the same command again")
            };
            let (found, _) = self.store.vouched().digest_of(path).map_err(|error| changed("went away").cause(error))?;
            if found != *expected {
                return Err(changed("was edited"));
            }
            if Stamp::of_file(path).ok() != *before {
                return Err(changed("was written to, or its mode or links changed,"));
            }
        }
        Ok(())
    }
}

fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("the operator panicked: {}", text.unwrap_or("no message"))
}

/// The engine as an operator's [`Context`] sees it.
struct WorkerHost<'a> {
    read: &'a Read<'a>,
    files: HashSet<&'a Path>,
    link: Arc<Link>,
    store: Store,
    /// Carries the store's futures; an operator itself is no future.
    runtime: &'a tokio::runtime::Runtime,
    checkpoints: Checkpoints,
    assignment: Assignment,
    state: Mutex<HostState>,
}

#[derive(Default)]
struct HostState {
    metrics: Metrics,
    folders: Vec<(Port, PathBuf)>,
    last_progress: Option<Instant>,
    /// All that comes from outside has been read.
    has_read: bool,
}

impl WorkerHost<'_> {
    fn state(&self) -> std::sync::MutexGuard<'_, HostState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Where the answer to a question of this operator lies.
    fn address_of(&self, question: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.part(self.assignment.operator.as_bytes()).part(&self.assignment.version.to_le_bytes()).part(question);
        hasher.finish()
    }

    /// Where answers lie that were given since this work was asked for anew, if it was.
    fn anew(&self, address: &Digest) -> Option<Digest> {
        let run = self.assignment.anew.as_ref()?;
        Some(Hasher::new().part(address.bytes()).part(run.0.as_bytes()).finish())
    }

    /// Where it is made, GPUs with it.
    fn machine(&self) -> String {
        let own = device::machine_name();
        match self.assignment.gpus.as_str() {
            "" => own,
            gpus => format!("{own} · {gpus}"),
        }
    }

    /// Takes back what was half-written.
    fn fail(&self, failure: Failure) -> Result<KeyRecord, Failure> {
        for (_, folder) in &self.state().folders {
            let _ = std::fs::remove_dir_all(folder);
        }
        Err(failure)
    }

    /// Blobs, manifests, then the key record: the order in which a crash leaves nothing half-true.
    async fn commit(&self, made: Vec<(Port, AnyMade)>, seconds: f64) -> Result<KeyRecord, Failure> {
        let (metrics, folders) = {
            let state = self.state();
            (state.metrics.clone(), state.folders.clone())
        };
        let mut record = KeyRecord {
            key: self.assignment.key,
            components: self.assignment.components.clone(),
            outputs: Default::default(),
            side: Default::default(),
            metrics,
            facts: Default::default(),
            summary: String::new(),
            seconds,
            effort: None,
            attempt: self.assignment.attempt,
            machine: self.machine(),
            at_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut outputs = made;
        for (_, made) in &mut outputs {
            if self.assignment.marks_eval && made.kind.is_dataset() {
                made.facts.used_for = Some(Use::Eval);
            }
        }
        let main = outputs.len();
        for (port, folder) in folders.iter().filter(|(port, _)| matches!(port.as_str(), "report" | "trace")) {
            if port.as_str() == "report" {
                record.summary = summary_of(folder);
            }
            let (kind, folder) = (Kind::new(port.as_str()), folder.clone());
            let side = AnyMade { kind, folder, facts: Default::default(), references: Default::default() };
            outputs.push((port.clone(), side));
        }
        // One wait for the disk, whatever there is.
        let published = self.store.publish_all(&outputs).await?;
        let disk_bytes = published.iter().map(|(_, manifest)| manifest.size_bytes()).sum();
        record.effort = Some(Effort { work: self.assignment.amount, disk_bytes });
        for (position, ((port, _), (digest, manifest))) in outputs.iter().zip(published).enumerate() {
            let place = if position < main { &mut record.outputs } else { &mut record.side };
            place.insert(port.clone(), digest);
            record.facts.insert(port.clone(), (manifest.kind, manifest.facts));
        }
        let record = match self.assignment.replaces {
            true => self.store.replace(&record).await?,
            false => self.store.commit(&record).await?,
        };
        for (_, folder) in &folders {
            let _ = std::fs::remove_dir_all(folder);
        }
        self.checkpoints.committed();
        Ok(record)
    }
}

fn summary_of(folder: &Path) -> String {
    let text = std::fs::read(folder.join("report.json")).unwrap_or_default();
    serde_json::from_slice::<Report>(&text).map(|report| report.summary).unwrap_or_default()
}

impl Host for WorkerHost<'_> {
    fn progress(&self, progress: Progress) {
        let is_last = progress.total == Some(progress.done);
        let mut state = self.state();
        if is_last || state.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
            state.last_progress = Some(Instant::now());
            drop(state);
            self.link.say(&FromWorker::Progress(progress));
        }
    }
    fn metric(&self, name: &str, value: f64, step: Option<u64>, reproducible: bool) {
        if reproducible {
            self.state().metrics.insert(name.to_owned(), value);
        }
        self.link.say(&FromWorker::Metric { name: name.to_owned(), value, step, reproducible });
    }
    fn cancelled(&self) -> bool {
        self.link.cancelled.load(Ordering::SeqCst)
    }
    fn output(&self, port: &str) -> Result<PathBuf, Failure> {
        let mut state = self.state();
        if let Some((_, folder)) = state.folders.iter().find(|(known, _)| known.as_str() == port) {
            return Ok(folder.clone());
        }
        let name = format!("{}-{port}", self.assignment.key.short());
        let folder = self.store.temporary(&name)?;
        state.folders.push((Port::from(port), folder.clone()));
        Ok(folder)
    }
    fn restore(&self, reach: &Reach) -> Result<Option<Checkpoint>, Failure> {
        if self.assignment.is_afresh {
            return Ok(None);
        }
        let found = self.checkpoints.furthest(reach)?;
        if found.is_some() {
            self.link.say(&FromWorker::Restored);
        }
        Ok(found)
    }
    fn save(&self, write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        self.checkpoints.save(write)?;
        self.link.say(&FromWorker::Checkpoint);
        Ok(())
    }
    fn is_source(&self, path: &Path) -> bool {
        self.files.contains(path)
    }
    fn sources_read(&self) -> Result<(), Failure> {
        self.read.is_as_it_was(READING)?;
        self.state().has_read = true;
        Ok(())
    }
    fn secret(&self, name: &SecretName) -> Result<Secret, Failure> {
        self.assignment.secrets.find(name)
    }
    fn recall(&self, question: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let address = self.address_of(question);
        self.runtime.block_on(self.store.recall(&self.anew(&address).unwrap_or(address)))
    }
    fn remember(&self, question: &[u8], answer: &[u8]) -> Result<(), Failure> {
        let address = self.address_of(question);
        for address in [Some(address), self.anew(&address)].into_iter().flatten() {
            self.runtime.block_on(self.store.remember(&address, answer))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_edited_while_it_was_read_fails_the_attempt_even_if_it_was_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "one").unwrap();
        let sources = [(path.clone(), Digest::of(b"one"))];
        let store = Store::open("memory://unchanged").unwrap();
        let read = Read::begin(&sources, &store).unwrap();
        read.is_as_it_was(READING).unwrap();
        for (text, told) in [("two", "was edited"), ("one", "was written to")] {
            std::fs::write(&path, text).unwrap();
            let failure = read.is_as_it_was(READING).unwrap_err();
            assert_eq!((failure.class, failure.code.as_str()), (Class::Transient { after: None }, "source/changed"));
            assert!(failure.message.contains(told), "{failure}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.is_as_it_was(READING).unwrap_err().code, "source/changed");
        assert!(Read::begin(&sources, &store).is_err());
    }
}
