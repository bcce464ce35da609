//! What the store knows of runs: their records, and the names that people gave them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use llmflow_contract::{Digest, Failure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use super::{Listed, Store, read::Looked, run_path, seal};
use crate::event::{RunId, now_ms};

/// How long a store is asked for its names.
const PATIENCE: Duration = Duration::from_secs(3);

/// Names of one store that are read at a time.
const READS_AT_ONCE: usize = 16;

/// What gc and `verify` need of a run's record.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunRecord {
    pub(super) run: RunId,
    #[serde(default)]
    pub(super) pipeline: String,
    /// Of its file: pipelines of one name may be many.
    #[serde(default)]
    pub(super) path: PathBuf,
    /// In milliseconds since 1970 (UTC).
    #[serde(default)]
    started_ms: u64,
    /// When the record was written.
    #[serde(default)]
    at_ms: u64,
    #[serde(default)]
    pub(super) stages: BTreeMap<String, RunStage>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunStage {
    pub(super) key: Option<Digest>,
}

impl RunRecord {
    /// What tells which of two runs is the newer.
    pub(super) fn moment(&self) -> u64 {
        self.at_ms.max(self.started_ms)
    }
}

/// A name for a run, which gc then keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    pub name: String,
    pub run: RunId,
    /// Milliseconds since 1970 (UTC).
    pub at_ms: u64,
}

/// What stores told of their names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// In the order of the stores.
    pub tags: Vec<Tag>,
    /// The URLs of those that did not answer: which names they have is not known.
    pub silent: Vec<String>,
}

impl Names {
    /// Every name in these stores, which are asked all at once.
    pub async fn of(stores: &[Store]) -> Self {
        Self::told(stores, Store::tags).await
    }

    /// What this name stands for in each of these stores.
    pub async fn find(name: &str, stores: &[Store]) -> Self {
        Self::told(stores, async |store| store.find_tag(name).await).await
    }

    async fn told<T: IntoIterator<Item = Tag>>(
        stores: &[Store],
        ask: impl AsyncFn(&Store) -> Result<T, Failure>,
    ) -> Self {
        let mut names = Self::default();
        let answers = join_all(stores.iter().map(|store| timeout(PATIENCE, ask(store)))).await;
        for (store, answer) in stores.iter().zip(answers) {
            match answer {
                Ok(Ok(tags)) => names.tags.extend(tags),
                _ => names.silent.push(store.url()),
            }
        }
        names
    }

    /// The stores that answered, of those that were asked.
    pub fn answering<'a>(&'a self, stores: &'a [Store]) -> impl Iterator<Item = &'a Store> {
        stores.iter().filter(|store| !self.silent.contains(&store.url()))
    }

    /// The names of each run.
    pub fn of_runs(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for tag in &self.tags {
            let of_run = names.entry(tag.run.0.clone()).or_default();
            if !of_run.contains(&tag.name) {
                of_run.push(tag.name.clone());
            }
        }
        names
    }
}

impl Store {
    /// Writes `runs/<run>.json`: a root of gc, and history for every home.
    ///
    /// gc reads `run`, `pipeline`, `at_ms` or `started_ms`, and the `key` of each of `stages`.
    pub async fn put_run(&self, run: &RunId, json: &Value) -> Result<(), Failure> {
        let _shared = self.share()?; // gc has read every root, or sees this one
        self.backend.put_whole(&run_path(&run.0), seal::seal(json)?).await
    }

    /// Has a run of any home left its record under this name?
    pub async fn has_run(&self, run: &RunId) -> Result<bool, Failure> {
        Ok(self.backend.size(&run_path(&run.0)).await?.is_some())
    }

    /// The names of the runs of all homes that left a record, in the order of the alphabet.
    pub async fn run_names(&self) -> Result<Vec<String>, Failure> {
        let listed = self.backend.list("runs").await?;
        let name = |object: &Listed| Some(object.key.strip_prefix("runs/")?.strip_suffix(".json")?.to_owned());
        Ok(listed.iter().filter_map(name).collect())
    }

    /// `runs/<run>.json`; nothing if it is not there. A damaged one is set aside.
    ///
    /// # Errors
    /// `store/newer` if it is whole, and none that this LLMflow knows.
    pub async fn run_record<T: DeserializeOwned>(&self, run: &str) -> Result<Option<T>, Failure> {
        let is_its = |record: &Value| record["run"] == run;
        let whole = |bytes: &[u8]| seal::unseal::<Value>(bytes).filter(is_its);
        let Some(record) = self.whole(&run_path(run), whole).await? else { return Ok(None) };
        serde_json::from_value(record).map(Some).map_err(|error| {
            Failure::environment("store/newer", format!("the record of run `{run}` is none that this LLMflow knows"))
                .cause(error)
                .help("use the LLMflow that wrote it")
        })
    }

    /// Every run and every name: what gc keeps things for.
    ///
    /// # Errors
    /// `store/damaged` if one of them cannot be read: what it keeps is unknown then.
    pub(super) async fn roots(&self) -> Result<(Vec<RunRecord>, Vec<Tag>), Failure> {
        let (mut runs, mut tags) = (Vec::new(), Vec::new());
        for object in self.backend.list("runs").await? {
            runs.extend(self.root(&object).await?);
        }
        for object in self.backend.list("tags").await? {
            tags.extend(self.root(&object).await?);
        }
        Ok((runs, tags))
    }

    async fn root<T: DeserializeOwned>(&self, object: &Listed) -> Result<Option<T>, Failure> {
        match self.look_at(&object.key, seal::unseal).await? {
            Looked::Whole(root) => Ok(Some(root)),
            Looked::Missing => Ok(None),
            Looked::Damaged => {
                let message = format!(
                    "`{}` in the store is damaged, and what it keeps is unknown: nothing is deleted",
                    object.key
                );
                Err(Failure::environment("store/damaged", message).help(
                    "llmflow verify --repair sets it aside, and writes it anew where this home's history knows it",
                ))
            }
        }
    }

    /// The keys of all records.
    pub async fn keys(&self) -> Result<Vec<Digest>, Failure> {
        let listed = self.backend.list("keys").await?;
        Ok(listed.iter().filter_map(|object| digest_in(&object.key)).collect())
    }

    /// Names a run. Gives the run that had this name before.
    ///
    /// # Errors
    /// `tag/name` for a name that is no file name of letters, digits, `.`, `-`, `_`; `tag/run` if the store knows no
    /// such run.
    pub async fn tag(&self, run: &RunId, name: &str) -> Result<Option<RunId>, Failure> {
        let key = tag_path(name)?;
        let _shared = self.share()?; // gc has read every root, or sees this one
        if self.backend.size(&run_path(&run.0)).await?.is_none() {
            let message = format!("the store has no record of run `{run}`, so nothing of it can be kept");
            return Err(Failure::input("tag/run", message).help("llmflow runs"));
        }
        if self.has_run(&RunId(name.to_owned())).await? {
            let message = format!("`{name}` is the name of a run, and would never be taken for another's");
            return Err(Failure::input("tag/name", message).help("choose another: `release-2`"));
        }
        let before = self.find_tag(name).await?.map(|tag| tag.run);
        let tag = Tag { name: name.to_owned(), run: run.clone(), at_ms: now_ms() };
        self.backend.put_whole(&key, seal::seal(&tag)?).await?;
        Ok(before.filter(|before| before != run))
    }

    /// Takes a name away; the run stays until gc finds nothing else that keeps it.
    ///
    /// # Errors
    /// `tag/none` if there is no such name.
    pub async fn untag(&self, name: &str) -> Result<(), Failure> {
        let key = tag_path(name)?;
        if self.backend.size(&key).await?.is_none() {
            return Err(Failure::input("tag/none", format!("no run has the name `{name}`")).help("llmflow tag"));
        }
        self.backend.delete(&key).await
    }

    /// The run that a name stands for, if it is one.
    pub async fn find_tag(&self, name: &str) -> Result<Option<Tag>, Failure> {
        let Ok(path) = tag_path(name) else { return Ok(None) };
        self.whole(&path, |bytes| seal::unseal::<Tag>(bytes).filter(|tag| tag.name == name)).await
    }

    /// All names, in order.
    pub async fn tags(&self) -> Result<Vec<Tag>, Failure> {
        let listed = self.backend.list("tags").await?;
        let read = async |object: &Listed| {
            let is_its = |tag: &Tag| tag_path(&tag.name).ok().as_ref() == Some(&object.key);
            self.whole(&object.key, |bytes| seal::unseal::<Tag>(bytes).filter(is_its)).await
        };
        let tags: Vec<Option<Tag>> = stream::iter(&listed).map(read).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(tags.into_iter().flatten().collect())
    }
}

/// The digest that an object is named by.
pub(super) fn digest_in(key: &str) -> Option<Digest> {
    key.rsplit('/').next()?.parse().ok()
}

fn tag_path(name: &str) -> Result<String, Failure> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if name.is_empty() || name.len() > 100 || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
        return Err(Failure::input("tag/name", format!("`{name}` is no name for a run"))
            .help("use letters, digits, `.`, `-` and `_`, such as `release-2`"));
    }
    Ok(format!("tags/{name}.json"))
}
