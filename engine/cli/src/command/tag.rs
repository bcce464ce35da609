//! `tag`

use llmflow_runtime::run::Error;
use serde_json::json;

use super::{DONE, Setting, block_on, history::History};
use crate::{
    args::TagArgs,
    render::{store as screen, when},
};

/// Names a run, takes a name away, or lists the names.
pub fn tag(args: TagArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open_with_store(setting.home.as_deref(), args.at.store.as_deref()).await?;
        let stores = match args.at.store {
            Some(_) => vec![history.store.clone()],
            None => history.stores()?,
        };
        let out = setting.screen;
        if let Some(name) = &args.remove {
            let mut holder = &history.store;
            for store in &stores {
                if store.find_tag(name).await?.is_some() {
                    holder = store;
                    break;
                }
            }
            holder.untag(name).await?;
            match out.json {
                true => out.print_json(&json!({ "removed": name })),
                false => {
                    out.say(&format!("`{name}` names nothing any more; `llmflow gc` may now delete what only it kept"))
                }
            }
            return Ok(DONE);
        }
        if let (Some(run), Some(name)) = (&args.run, &args.name) {
            let run = history.run_at(run).await?;
            let store = match args.at.store {
                Some(_) => history.store,
                None => history.lineage.store_of(&run, &history.home).await?,
            };
            let before = store.tag(&run, name).await?;
            match (out.json, before) {
                (true, before) => out.print_json(&json!({ "name": name, "run": run, "before": before })),
                (false, Some(before)) => out.say(&format!("`{name}` now names {run}; it named {before}")),
                (false, None) => out.say(&format!("`{name}` names {run}: gc keeps it")),
            }
            return Ok(DONE);
        }
        let mut tags = Vec::new();
        for store in &stores {
            tags.extend(store.tags().await?);
        }
        match out.json {
            true => out.print_json(&tags),
            false => out.print(&screen::tags(&tags, &when::now(), out.width)),
        }
        Ok(DONE)
    })
}
