//! `tag`

use llmflow_contract::Failure;
use llmflow_runtime::{
    run::Error,
    store::{Names, Store},
};
use serde_json::json;

use super::{
    DONE, Setting, block_on,
    history::{History, note_silent},
};
use crate::{
    args::TagArgs,
    render::{store as screen, when},
};

/// Names a run, takes a name away, or lists the names.
pub fn tag(args: TagArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let home = setting.home.as_deref();
        let history = match args.at.store.as_deref() {
            Some(url) => History::open_with_store(home, Some(url)).await?,
            None => History::open(home).await?,
        };
        let stores = match args.at.store {
            Some(_) => vec![history.store.clone()],
            None => history.stores()?,
        };
        if let Some(name) = &args.remove {
            remove(name, &stores, setting).await?;
        } else if let (Some(run), Some(name)) = (&args.run, &args.name) {
            give(&history, run, name, args.at.store.is_some(), setting).await?;
        } else {
            list(&stores, setting).await;
        }
        Ok(DONE)
    })
}

/// Takes a name away in every store that has it.
async fn remove(name: &str, stores: &[Store], setting: &Setting<'_>) -> Result<(), Failure> {
    let names = Names::find(name, stores).await;
    note_silent(&names, setting.screen);
    if let (true, Some(store)) = (names.tags.is_empty(), stores.first()) {
        store.untag(name).await?; // says that there is none
    }
    for store in names.answering(stores) {
        if store.find_tag(name).await?.is_some() {
            store.untag(name).await?;
        }
    }
    let out = setting.screen;
    match out.json {
        true => out.print_json(&json!({ "removed": name })),
        false => out.say(&format!("`{name}` names nothing any more; `llmflow gc` may now delete what only it kept")),
    }
    Ok(())
}

/// Names a run in its own store, or in the one that is open; no other store keeps the name for another run.
async fn give(
    history: &History,
    run: &str,
    name: &str,
    is_store_named: bool,
    setting: &Setting<'_>,
) -> Result<(), Failure> {
    let run = history.run_at(run).await?;
    let store = match is_store_named {
        true => history.store.clone(),
        false => history.lineage.store_of(&run, &history.home).await?,
    };
    let stores = history.stores()?;
    let names = Names::find(name, &stores).await;
    note_silent(&names, setting.screen);
    let mut before = store.tag(&run, name).await?;
    for other in names.answering(&stores).filter(|other| other.url() != store.url()) {
        if let Some(tag) = other.find_tag(name).await?.filter(|tag| tag.run != run) {
            other.untag(name).await?;
            before.get_or_insert(tag.run);
        }
    }
    let out = setting.screen;
    match (out.json, before) {
        (true, before) => out.print_json(&json!({ "name": name, "run": run, "before": before })),
        (false, Some(before)) => out.say(&format!("`{name}` now names {run}; it named {before}")),
        (false, None) => out.say(&format!("`{name}` names {run}: gc keeps it")),
    }
    Ok(())
}

async fn list(stores: &[Store], setting: &Setting<'_>) {
    let names = Names::of(stores).await;
    let out = setting.screen;
    note_silent(&names, out);
    match out.json {
        true => out.print_json(&names.tags),
        false => out.print(&screen::tags(&names.tags, &when::now(), out.width)),
    }
}
