//! Reading: what an address stands for.

use llmflow_contract::{Digest, Port, StageId};

use super::*;
use crate::{address::Address, pipeline::diagnostic::nearest};

/// Names that a message lists before it says how many there are.
const LISTED: u32 = 20;

impl Lineage {
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
        let (stage, port) = match self.stage_of_run(&run, wanted).await? {
            Some(stage) => (stage, address.port.as_ref()),
            // `sft@lr=0.1` has a dot that begins no port.
            None => match self.stage_with_dot(&run, wanted, address.port.as_ref()).await? {
                Some(stage) => (stage, None),
                None => return Err(self.no_stage(&run, wanted).await?),
            },
        };
        if let Some(port) = port
            && stage.outputs.iter().all(|output| output.port != *port)
        {
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
