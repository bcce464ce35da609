//! Opens what looks back: the home around this folder, its history and its store.

use std::path::Path;

use llmflow_contract::Failure;
use llmflow_runtime::{home::Home, lineage::Lineage, store::Store};

/// A home with its history and its store.
pub struct History {
    pub home: Home,
    pub lineage: Lineage,
    pub store: Store,
}

impl History {
    /// The home that `--home` names, else the nearest above this folder. Makes none.
    ///
    /// # Errors
    /// `home/none` if nothing ran here yet.
    pub async fn open(explicit: Option<&Path>) -> Result<Self, Failure> {
        let here = Path::new(".").canonicalize().map_err(|error| Failure::io("opening", ".", &error))?;
        let is_there = match explicit {
            Some(path) => path.exists(),
            None => here.ancestors().any(|folder| folder.join(".llmflow").exists()),
        };
        if !is_there {
            return Err(Failure::input(
                "home/none",
                "nothing has run here yet: there is no `.llmflow` above this folder",
            )
            .help("llmflow run FILE.yaml, or name the folder that holds the state: --home FOLDER"));
        }
        let home = Home::open(explicit, &here)?;
        let store = Store::open_local(&home.store())?;
        let lineage = Lineage::open(&home).await?;
        Ok(Self { home, lineage, store })
    }
}
