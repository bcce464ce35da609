//! A store that fails as networks and disks do, by seed: whatever comes of it is right or a clean error.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use llmflow_contract::{Class, CounterRng, Digest, counter_rng};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use rand::RngExt;

use super::{made, publish, record};
use crate::store::{Store, backend::Backend, is_damage, objects::Objects};

/// Of a hundred calls so many go wrong.
const FAULTS_PERCENT: u32 = 25;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Before,
    /// It was done, and says that it was not.
    After,
    ShortRead,
    FlippedByte,
    Late,
}

/// Passes calls on to a store in memory, and breaks some of them.
#[derive(Debug)]
pub(crate) struct FaultStore {
    inner: InMemory,
    percent: u32,
    rng: Mutex<CounterRng>,
    struck: AtomicU64,
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

impl FaultStore {
    /// Of a hundred calls so many go wrong.
    pub(crate) fn new(seed: u64, percent: u32) -> Self {
        let rng = Mutex::new(counter_rng(seed, "faults"));
        Self { inner: InMemory::new(), percent, rng, struck: AtomicU64::new(0) }
    }

    /// Calls that went wrong so far.
    pub(crate) fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    fn fault(&self) -> Option<Fault> {
        let mut rng = self.rng.lock().unwrap();
        if rng.random_range(0..100) >= self.percent {
            return None;
        }
        self.struck.fetch_add(1, Ordering::Relaxed);
        Some(match rng.random_range(0..5) {
            0 => Fault::Before,
            1 => Fault::After,
            2 => Fault::ShortRead,
            3 => Fault::FlippedByte,
            _ => Fault::Late,
        })
    }

    /// Up to a minute, of a clock that jumps.
    async fn late(&self) {
        let seconds = self.rng.lock().unwrap().random_range(0.0..60.0);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Waits where it is late, then does `call` and loses its answer, or does not do it.
    async fn break_write<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fault() {
            Some(Fault::Before) => Err(broken()),
            Some(Fault::After) => call.await.and_then(|_| Err(broken())),
            Some(Fault::Late) => {
                self.late().await;
                call.await
            }
            _ => call.await,
        }
    }
}

fn broken() -> Error {
    Error::Generic { store: "FaultStore", source: "the connection was cut".into() }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.break_write(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.break_write(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let fault = self.fault();
        match fault {
            Some(Fault::Before | Fault::After) => return Err(broken()),
            Some(Fault::Late) => self.late().await,
            _ => {}
        }
        let found = self.inner.get_opts(location, options).await?;
        if is_head {
            return Ok(found);
        }
        let (meta, range, attributes, extensions) =
            (found.meta.clone(), found.range.clone(), found.attributes.clone(), found.extensions.clone());
        let mut bytes = found.bytes().await?.to_vec();
        match fault {
            Some(Fault::FlippedByte) if !bytes.is_empty() => {
                let at = self.rng.lock().unwrap().random_range(0..bytes.len());
                bytes[at] ^= 0x55;
            }
            Some(Fault::ShortRead) => bytes.truncate(bytes.len() / 2),
            _ => {}
        }
        let stream = futures::stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        Ok(GetResult { payload: GetResultPayload::Stream(stream), meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.break_write(self.inner.copy_opts(from, to, options)).await
    }
}

/// What came of one seed.
#[derive(Default)]
struct Tale {
    /// Stages reported as done, and what their output holds.
    done: BTreeMap<u64, String>,
    errors: u64,
    misses: u64,
    faults: u64,
    /// Wrong bytes that were given out.
    lies: u64,
}

/// Three stages on one store, each tried until it is done, then used in a home that has nothing yet.
async fn tell(seed: u64, is_checked: bool) -> Tale {
    let faults = Arc::new(FaultStore::new(seed, FAULTS_PERCENT));
    let mut objects = Objects::new(faults.clone(), "team", "memory://faults".into());
    objects.is_checked = is_checked;
    let home = tempfile::tempdir().unwrap();
    let store = Store::new(Backend::Objects(objects)).in_home(home.path());
    let mut tale = Tale::default();
    for stage in 0..3 {
        for attempt in 0..20 {
            let text = format!("stage {stage} attempt {attempt}");
            match make(&store, stage, &text).await {
                Ok(machine) => {
                    tale.done.insert(stage, machine);
                    break;
                }
                Err(failure) => {
                    assert_eq!(failure.class, Class::Environment, "seed {seed}: {failure:?}");
                    tale.errors += 1;
                }
            }
        }
    }
    let elsewhere = tempfile::tempdir().unwrap();
    for (stage, text) in &tale.done {
        for _ in 0..20 {
            match used(&store, *stage, elsewhere.path()).await {
                Ok(Some(found)) => {
                    tale.lies += u64::from(found != *text);
                    break;
                }
                Ok(None) => tale.misses += 1, // to be made anew
                Err(failure) if is_damage(&failure) => tale.misses += 1,
                Err(failure) => {
                    assert_eq!(failure.class, Class::Environment, "seed {seed}: {failure:?}");
                    tale.errors += 1;
                }
            }
        }
    }
    tale.faults = faults.struck();
    tale
}

fn key(stage: u64) -> Digest {
    Digest::of(&stage.to_le_bytes())
}

/// Gives what the committed record says, ours or a winner's of an attempt that seemed to fail.
async fn make(store: &Store, stage: u64, text: &str) -> std::result::Result<String, llmflow_contract::Failure> {
    let made = made(store, text, BTreeMap::new());
    let published = publish(store, &made).await;
    let _ = std::fs::remove_dir_all(&made.folder);
    let (output, _) = published?;
    Ok(store.commit(&record(&key(stage), output, text)).await?.machine)
}

async fn used(
    store: &Store,
    stage: u64,
    work: &std::path::Path,
) -> std::result::Result<Option<String>, llmflow_contract::Failure> {
    let Some(record) = store.key_record(&key(stage)).await? else { return Ok(None) };
    let Some(output) = record.outputs.values().next() else { return Ok(None) };
    let artifact = store.artifact(output, work).await?;
    Ok(Some(std::fs::read_to_string(artifact.file("b.txt")?).unwrap_or_else(|_| "no text".into())))
}

/// Seeds of the quick tier; `LLMFLOW_TEST_SEEDS` asks for more.
pub(crate) fn seeds() -> u64 {
    std::env::var("LLMFLOW_TEST_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000)
}

#[tokio::test(start_paused = true)]
async fn whatever_a_store_does_what_is_given_out_is_right() {
    let mut all = Tale::default();
    for seed in 0..seeds() {
        let tale = tell(seed, true).await;
        assert_eq!(tale.lies, 0, "seed {seed} gave out wrong bytes");
        all.faults += tale.faults;
        all.errors += tale.errors;
        all.misses += tale.misses;
        all.done.extend(tale.done);
    }
    assert!(all.faults > seeds() && all.errors > seeds(), "too few faults to mean anything");
    assert_eq!(all.done.len(), 3);
}

/// The same without the check of digests must give out wrong bytes: else the test above could not fail.
#[tokio::test(start_paused = true)]
async fn without_the_check_of_digests_wrong_bytes_are_given_out() {
    let mut lies = 0;
    for seed in 0..200 {
        lies += tell(seed, false).await.lies;
    }
    assert!(lies > 0);
}
