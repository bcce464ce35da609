//! Opens what looks back: the home around a folder, its history and its store.

use std::{collections::HashSet, path::Path};

use llmflow_contract::Failure;
use llmflow_runtime::{
    address::Address,
    event::RunId,
    home::Home,
    lineage::Lineage,
    store::{Names, Store},
};

use crate::render::{format, screen::Screen, typed};

/// A home with its history and its store.
pub struct History {
    pub home: Home,
    pub lineage: Lineage,
    pub store: Store,
}

impl History {
    /// The home that `--home` names, else the nearest above this folder.
    ///
    /// # Errors
    /// `home/none` if nothing ran here yet: looking back makes no home.
    pub async fn open(explicit: Option<&Path>) -> Result<Self, Failure> {
        Self::open_from(explicit, Path::new(".")).await
    }

    /// The same with the store that is worked on: the one that is named, else that of the newest run and no other.
    ///
    /// # Errors
    /// `store/none` or `store/gone` if it is not there.
    pub async fn open_with_store(explicit: Option<&Path>, url: Option<&str>) -> Result<Self, Failure> {
        let mut history = Self::open(explicit).await?;
        if let Some(url) = url {
            let store = match url.contains("://") {
                true => Store::open(url)?,
                false if Path::new(url).is_dir() => Store::open_local(Path::new(url))?,
                false => {
                    let message = format!("there is no folder `{url}`");
                    return Err(
                        Failure::input("store/none", message).help("--store FOLDER, or --store s3://BUCKET/PREFIX")
                    );
                }
            };
            history.store = store.in_home(&history.home.work());
        } else {
            history.store = history.lineage.store_of_newest(&history.home).await?;
        }
        Ok(history)
    }

    /// The same, looked for from another folder: that of a pipeline file.
    pub async fn open_from(explicit: Option<&Path>, start: &Path) -> Result<Self, Failure> {
        let (home, store) = places(explicit, start)?;
        if !home.database().exists() {
            let (known, others) = (store.run_names().await?.len(), home.other_stores()?);
            let remembering = match (known, others.is_empty()) {
                (0, true) => None,
                (0, false) => Some(format!("{} may remember its runs", others.join(", "))),
                _ => Some(format!("the store remembers {}", format::counted(known as u64, "run"))),
            };
            if let Some(remembering) = remembering {
                let message = format!("the history, `lineage.db`, is gone; {remembering}");
                return Err(Failure::environment("lineage/gone", message).help(format!(
                    "{} makes it anew from the store; no result is lost",
                    typed::typed("llmflow doctor --rebuild", home.root())
                )));
            }
        }
        let lineage = match Lineage::open(&home).await {
            Err(full) if full.code == "disk/full" => copied(&home).await.map_err(|_| home.with_free_space(full))?,
            opened => opened?,
        };
        let store = where_there(lineage.store_of_newest(&home).await)?.unwrap_or(store);
        Ok(Self { home, lineage, store })
    }

    /// Writes into the store what this history knows of its runs and the store does not: each keeps what it made from gc.
    ///
    /// # Errors
    /// Those of history and store.
    pub async fn write_missing_records(&self) -> Result<(), Failure> {
        let known: HashSet<String> = self.store.run_names().await?.into_iter().collect();
        let runs = self.lineage.ended_on(&self.store.url(), &self.home).await?;
        for run in runs.into_iter().filter(|run| !known.contains(&run.0)) {
            let record = serde_json::to_value(self.lineage.record_of(&run).await?);
            let record = record.map_err(|error| Failure::bug(format!("run record: {error}")))?;
            self.store.put_run(&run, &record).await?;
        }
        Ok(())
    }

    /// What words point at: [`Lineage::address`].
    ///
    /// # Errors
    /// `address/form`; those of history and store.
    pub async fn address(&self, text: &str) -> Result<Address, Failure> {
        self.lineage.address(text, || self.stores()).await
    }

    /// The run that words point at: [`Lineage::run_at`].
    ///
    /// # Errors
    /// Those of [`Lineage::run_at`].
    pub async fn run_at(&self, text: &str) -> Result<RunId, Failure> {
        self.lineage.run_at(text, || self.stores()).await
    }

    /// The same with the store that a run used: its results are there.
    ///
    /// # Errors
    /// Those of history and store.
    pub async fn of_run(mut self, run: &RunId) -> Result<Self, Failure> {
        self.store = self.lineage.store_of(run, &self.home).await?;
        Ok(self)
    }

    /// The same for what lineage tells alone: of a store that is not there, nothing is told.
    ///
    /// # Errors
    /// As [`History::of_run`], but for `store/gone`.
    pub async fn of_run_at_least(mut self, run: &RunId) -> Result<Self, Failure> {
        self.store = self.store_at_least(run).await?;
        Ok(self)
    }

    /// The store that a run used; where that is not there the home's own, which may have the same results.
    ///
    /// # Errors
    /// As [`History::of_run`], but for `store/gone`.
    pub async fn store_at_least(&self, run: &RunId) -> Result<Store, Failure> {
        match where_there(self.lineage.store_of(run, &self.home).await)? {
            Some(store) => Ok(store),
            None => own_store(&self.home),
        }
    }

    /// Every store that the home knows, its own first, and the one that is open.
    ///
    /// # Errors
    /// Those of [`Store::all_of`].
    pub fn stores(&self) -> Result<Vec<Store>, Failure> {
        let mut stores = Store::all_of(&self.home)?;
        if stores.iter().all(|store| store.url() != self.store.url()) {
            stores.push(self.store.clone());
        }
        Ok(stores)
    }

    /// The words of a command that looks back, as they find this home from here.
    pub fn typed(&self, words: &str) -> String {
        typed::typed(words, self.home.root())
    }

    /// What such words end with.
    pub fn with_home(&self) -> String {
        self.typed("")
    }
}

/// The history of a home whose disk is full, as a copy elsewhere: who frees that disk must be able to look.
async fn copied(home: &Home) -> Result<Lineage, Failure> {
    Lineage::open(&home.left_alone()?).await
}

/// The home and its store, whatever the state of its history.
///
/// # Errors
/// `home/none` if there is no home.
pub fn places(explicit: Option<&Path>, start: &Path) -> Result<(Home, Store), Failure> {
    let Some(home) = home_around(explicit, start)? else {
        let message = "nothing has run here yet: there is no `.llmflow` in this folder or above it";
        return Err(Failure::input("home/none", message)
            .help("llmflow run FILE.yaml, or name the folder that holds the state: --home FOLDER"));
    };
    let store = own_store(&home)?;
    Ok((home, store))
}

fn own_store(home: &Home) -> Result<Store, Failure> {
    Ok(Store::open_local(&home.store())?.in_home(&home.work()))
}

/// Nothing where the store of a run is not there.
fn where_there(opened: Result<Store, Failure>) -> Result<Option<Store>, Failure> {
    match opened {
        Err(failure) if failure.code == "store/gone" => Ok(None),
        opened => opened.map(Some),
    }
}

/// Says which stores did not answer.
pub fn note_silent(names: &Names, screen: &Screen) {
    for url in &names.silent {
        screen.say(&screen.talk.dim(&format!("{} does not answer; its names are missing", format::clean(url))));
    }
}

/// The home that `--home` names, else the nearest above this folder; none where nothing ran yet.
pub fn find_home(explicit: Option<&Path>) -> Result<Option<Home>, Failure> {
    home_around(explicit, Path::new("."))
}

fn home_around(explicit: Option<&Path>, start: &Path) -> Result<Option<Home>, Failure> {
    let start = if start.as_os_str().is_empty() { Path::new(".") } else { start };
    let start = start.canonicalize().map_err(|error| Failure::io("opening", start, &error))?;
    let is_there = match explicit {
        Some(path) => path.exists(),
        None => start.ancestors().any(|folder| folder.join(".llmflow").exists()),
    };
    if is_there { Home::look(explicit, &start).map(Some) } else { Ok(None) }
}
