//! `resume`

use llmflow_contract::Failure;
use llmflow_runtime::run::{self, Error};

use super::{Setting, block_on, history::History, run as running};
use crate::{
    args::ResumeArgs,
    render::{asked::Asked, format, typed::Place},
};

/// Goes on with a run: its own file and params.
pub fn resume(args: ResumeArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let run = match args.run {
            Some(text) => history.run_at(&text).await?,
            None => history.lineage.newest_unfinished().await?.ok_or_else(|| {
                Failure::input("lineage/run", "every run here is finished; there is nothing to resume")
                    .help(format!("{} lists them", history.typed("llmflow runs")))
            })?,
        };
        let recorded = history.lineage.pipeline_of(&run).await?;
        let asked = Asked::recorded_here(&recorded);
        let file = history.home.here(&recorded.path)?;
        let place = Place::here();
        let path = format::clean(&place.shown(&file));
        match std::fs::read_to_string(&file) {
            Ok(now) if now == recorded.text => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                setting.screen.say(&format!("`{path}` is gone: this goes on with the file as it was in {run}"));
            }
            _ => {
                let command = place.run(&file, &asked, history.home.root());
                setting.screen.say(&format!(
                    "`{path}` has changed since {run}: this goes on with the file as it was; {command} takes it as it is"
                ));
            }
        }
        running::say_rehearsal(asked.limit, setting);
        drop(history);
        let home = setting.home.clone();
        let outcome =
            running::watched(setting, |events, cancel| run::resume(&run.0, home, setting.registry, events, cancel))
                .await?;
        let outcome = running::with_reports(outcome).await?;
        running::finish(&outcome, file, asked, setting).await;
        Ok(outcome.exit_code)
    })
}
