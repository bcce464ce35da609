//! `doctor --rebuild`

use std::path::Path;

use llmflow_contract::Failure;
use llmflow_runtime::{lineage, run::Error};

use super::{DONE, Setting, block_on, history};
use crate::render::format;

/// Makes the history anew from what the store remembers. The old one need not be readable, nor there.
pub fn rebuild(setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let (home, store) = history::places(setting.home.as_deref(), Path::new("."))?;
        let rebuilt = lineage::rebuild(&home, &store).await?;
        let out = setting.screen;
        if out.json {
            out.print_json(&rebuilt);
            return Ok(DONE);
        }
        let (runs, stages) = (rebuilt.runs as u64, rebuilt.stages as u64);
        out.say(&format!(
            "{} with {} {} in the history again",
            format::counted(runs, "run"),
            format::counted(stages, "stage"),
            if runs == 1 { "is" } else { "are" }
        ));
        out.say(
            "the points of curves, each attempt's time and failure, and runs that left no record in the store, are not: \
             the store does not know them",
        );
        if let Some(old) = &rebuilt.old {
            out.say(&format!("the old one is kept: {}", format::clean(&old.display().to_string())));
        }
        match rebuilt.unreadable.as_slice() {
            [] => Ok(DONE),
            names => {
                let names = format::listed(names.iter().map(String::as_str), 8);
                let message = format!("the records of {names} cannot be read: these runs are left out");
                Err(Failure::environment("lineage/records", message)
                    .help("llmflow verify says what else is damaged")
                    .into())
            }
        }
    })
}
