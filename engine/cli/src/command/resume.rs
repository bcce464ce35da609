//! `resume`

use llmflow_contract::Failure;
use llmflow_runtime::run::{self, Error};

use super::{Setting, block_on, history::History, run as running};
use crate::{args::ResumeArgs, render::format};

/// Goes on with a run: its own file and params.
pub fn resume(args: ResumeArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let run = match args.run {
            Some(text) => history.lineage.find_run(&text).await?,
            None => history.lineage.newest_unfinished().await?.ok_or_else(|| {
                Failure::input("lineage/run", "every run here is finished; there is nothing to resume")
                    .help("llmflow runs lists them")
            })?,
        };
        let recorded = history.lineage.pipeline_of(&run).await?;
        let now = std::fs::read_to_string(&recorded.path).unwrap_or_default();
        if now != recorded.text {
            let path = format::clean(&recorded.path.display().to_string());
            setting.screen.say(&format!(
                "`{path}` has changed since {run}: this goes on with the file as it was; llmflow run takes it as it is"
            ));
        }
        drop(history);
        let home = setting.home.clone();
        let outcome =
            running::watched(setting, |events, cancel| run::resume(&run.0, home, setting.registry, events, cancel))
                .await?;
        running::write_reports(&outcome).await?;
        running::finish(&outcome, "", setting);
        Ok(outcome.exit_code)
    })
}
