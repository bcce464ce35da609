//! Reading: what an address stands for.

use llmflow_contract::{Digest, Port, StageId};

use super::*;
use crate::{
    address::Address,
    pipeline::diagnostic::nearest,
    store::{Names, Store, Tag},
};

/// Names that a message lists before it says how many there are.
const LISTED: u32 = 20;

impl Lineage {
    /// Reads `RUN[/STAGE[.PORT]]`. A name stands for the run that is called so; else for the one that the first store, the
    /// home's own, has it as a tag of; else for the one whose name begins so; else for one that another store has it for. A
    /// store that does not answer keeps nothing from being found. Where the name says it alone no store is opened.
    ///
    /// # Errors
    /// `address/form`; `lineage/run` if there is none, or the run of a tag is in no history here; those of `stores`.
    pub async fn address(
        &self,
        text: &str,
        stores: impl FnOnce() -> Result<Vec<Store>, Failure>,
    ) -> Result<Address, Failure> {
        let mut address = Address::parse(text)?;
        let name = &address.run;
        if name.starts_with('@') || self.has_run(&RunId(name.clone())).await? {
            return Ok(address);
        }
        let stores = stores()?;
        let (own, others) = stores.split_at(stores.len().min(1));
        let mut names = Names::find(name, own).await;
        if names.tags.is_empty() && self.find_run(name).await.is_ok() {
            return Ok(address);
        }
        if self.known(&names).await?.is_none() {
            let more = Names::find(name, others).await;
            names.tags.extend(more.tags);
            names.silent.extend(more.silent);
        }
        address.run = match (self.known(&names).await?, names.tags.first()) {
            (Some(run), _) => run.0,
            (None, Some(Tag { name, run, .. })) => {
                let message = format!("`{name}` names run `{run}`, which this home knows nothing of");
                return Err(Failure::input("lineage/run", message)
                    .help("look at it in the home that ran it, or make this history anew: llmflow doctor --rebuild"));
            }
            (None, None) => match self.find_run(name).await {
                Ok(run) => run.0,
                Err(missing) => {
                    let silent = names.silent.iter().map(|url| format!("{url} does not answer; its names are missing"));
                    return Err(silent.fold(missing, Failure::cause));
                }
            },
        };
        Ok(address)
    }

    /// The first run of this home that these names stand for.
    async fn known(&self, names: &Names) -> Result<Option<RunId>, Failure> {
        for tag in &names.tags {
            if self.has_run(&tag.run).await? {
                return Ok(Some(tag.run.clone()));
            }
        }
        Ok(None)
    }

    /// The run that words point at, a whole one.
    ///
    /// # Errors
    /// Those of [`Lineage::address`] and [`Lineage::find_run`]; `address/form` if they name a stage too.
    pub async fn run_at(
        &self,
        text: &str,
        stores: impl FnOnce() -> Result<Vec<Store>, Failure>,
    ) -> Result<RunId, Failure> {
        let address = self.address(text, stores).await?;
        let run = self.find_run(&address.run).await?;
        match address.stage {
            None => Ok(run),
            Some(_) => Err(Failure::input("address/form", format!("`{text}` names a stage; a whole run is meant"))
                .help(format!("write `{run}`"))),
        }
    }

    /// The run and the stage of an address.
    ///
    /// # Errors
    /// `lineage/address` if it names no stage, or a part that does not exist.
    pub async fn find_stage(&self, address: &Address) -> Result<(RunId, StageRow), Failure> {
        let run = self.find_run(&address.run).await?;
        let bad = |message: String| Failure::input("lineage/address", message).help(format!("llmflow show {run}"));
        let Some(wanted) = &address.stage else {
            let names = self.listed(&run).await?;
            return Err(bad(format!("the address names a run; name one of its stages too: {names}")));
        };
        let given = |stage: &StageRow, port: &Port| stage.outputs.iter().any(|output| output.port == *port);
        let port = address.port.as_ref();
        let (stage, port) = match self.stage_of_run(&run, wanted).await? {
            Some(stage) if port.is_none_or(|port| given(&stage, port)) => (stage, port),
            // `sft@lr=0.1` has a dot that begins no port.
            other => match (self.stage_with_dot(&run, wanted, port).await?, other) {
                (Some(stage), _) => (stage, None),
                (None, Some(stage)) => (stage, port),
                (None, None) => return Err(self.no_stage(&run, wanted).await?),
            },
        };
        if let Some(port) = port.filter(|port| !given(&stage, port)) {
            let ports: Vec<&str> = stage.outputs.iter().map(|output| output.port.as_str()).collect();
            let message = format!("`{wanted}` of run `{run}` gave no `{port}`; it gave {}", ports.join(", "));
            return Err(bad(message).help(format!("llmflow show {run}/{wanted}")));
        }
        Ok((run, stage))
    }

    async fn stage_with_dot(
        &self,
        run: &RunId,
        stage: &StageId,
        rest: Option<&Port>,
    ) -> Result<Option<StageRow>, Failure> {
        match rest {
            Some(rest) => self.stage_of_run(run, &StageId::new(format!("{stage}.{rest}"))).await,
            None => Ok(None),
        }
    }

    /// What to say of a stage that is not there.
    async fn no_stage(&self, run: &RunId, wanted: &StageId) -> Result<Failure, Failure> {
        let all = self.stage_names(run, None).await?;
        Ok(match nearest(wanted.as_str(), all.iter().map(StageId::as_str)) {
            Some(near) => {
                let message = format!("run `{run}` has no stage `{wanted}`; the nearest is `{near}`");
                Failure::input("lineage/address", message).help(format!("llmflow show {run}/{near}"))
            }
            None => {
                let message = format!("run `{run}` has no stage `{wanted}`; it has {}", self.listed(run).await?);
                Failure::input("lineage/address", message).help(format!("llmflow show {run}"))
            }
        })
    }

    /// The first stages of a run by name, and how many more there are.
    async fn listed(&self, run: &RunId) -> Result<String, Failure> {
        let all = self.stage_names(run, None).await?;
        let names: Vec<&str> = all.iter().take(LISTED as usize).map(StageId::as_str).collect();
        let more = all.len().saturating_sub(names.len());
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        Ok(names.join(", ") + &rest)
    }

    /// The artifact an address stands for: of a stage without a port its main output.
    ///
    /// # Errors
    /// Those of [`Lineage::find_stage`]; `lineage/address` if the stage gave nothing.
    pub async fn resolve(&self, address: &Address) -> Result<(RunId, StageId, Port, Digest), Failure> {
        let (run, stage) = self.find_stage(address).await?;
        let port = address.port.as_ref().filter(|_| address.stage.as_ref() == Some(&stage.stage));
        let is_meant = |output: &&OutputRow| port.is_none_or(|port| output.port == *port);
        let bad = |message: String| Failure::input("lineage/address", message).help(format!("llmflow show {run}"));
        match stage.outputs.iter().find(is_meant) {
            Some(OutputRow { port, digest: Some(digest), .. }) => Ok((run, stage.stage, port.clone(), *digest)),
            Some(output) => {
                Err(bad(format!("`{}.{}` does not exist: the stage is {}", stage.stage, output.port, stage.status)))
            }
            None => Err(bad(format!("`{}` has no output", stage.stage))),
        }
    }
}
