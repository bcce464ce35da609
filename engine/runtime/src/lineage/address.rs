//! Reading: what an address stands for.

use llmflow_contract::{Digest, Port, StageId};

use super::*;
use crate::{
    address::Address,
    pipeline::diagnostic::nearest,
    store::{Store, Tag},
};

/// Names that a message lists before it says how many there are.
const LISTED: u32 = 20;

impl Lineage {
    /// Reads `RUN[/STAGE[.PORT]]`. A tag in one of the stores stands for its run, unless that is a run's whole name; it comes
    /// before names that begin so.
    ///
    /// # Errors
    /// `address/form`; `lineage/run` if the run of a tag is in no history here; those of the store.
    pub async fn address(&self, text: &str, stores: &[Store]) -> Result<Address, Failure> {
        let mut address = Address::parse(text)?;
        if address.run.starts_with('@') || self.has_run(&RunId(address.run.clone())).await? {
            return Ok(address);
        }
        let Some(tag) = self.tag(&address.run, stores).await? else { return Ok(address) };
        if !self.has_run(&tag.run).await? {
            let message = format!("`{}` names run `{}`, which this home knows nothing of", tag.name, tag.run);
            return Err(Failure::input("lineage/run", message)
                .help("look at it in the home that ran it, or make this history anew: llmflow doctor --rebuild"));
        }
        address.run = tag.run.0;
        Ok(address)
    }

    /// The tag of this name, one of a run of this home first. A store that does not answer is no matter where another has it,
    /// or a run's name begins so.
    async fn tag(&self, name: &str, stores: &[Store]) -> Result<Option<Tag>, Failure> {
        let (mut stranger, mut silent) = (None, None);
        for store in stores {
            match store.find_tag(name).await {
                Ok(Some(tag)) if self.has_run(&tag.run).await? => return Ok(Some(tag)),
                Ok(found) => stranger = stranger.or(found),
                Err(failure) => silent = silent.or(Some(failure)),
            }
        }
        match silent {
            Some(failure) if stranger.is_none() && self.find_run(name).await.is_err() => Err(failure),
            _ => Ok(stranger),
        }
    }

    /// The run that words point at, a whole one.
    ///
    /// # Errors
    /// Those of [`Lineage::address`] and [`Lineage::find_run`]; `address/form` if they name a stage too.
    pub async fn run_at(&self, text: &str, stores: &[Store]) -> Result<RunId, Failure> {
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
