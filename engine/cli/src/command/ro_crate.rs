//! A run as an RO-Crate: what `export` and `lineage` share.

use std::path::{Path, PathBuf};

use llmflow_contract::Failure;
use llmflow_runtime::{
    address::Address,
    lineage::ro_crate::{Crate, Place, ro_crate},
};
use serde_json::json;

use super::{Setting, history::History};
use crate::render::format;

/// Results that are named where they are left out.
const SHOWN: usize = 8;

/// Writes the run of an address into a new folder: `to`, else one that is named after the run.
///
/// # Errors
/// `export/crate` if the address names a stage; those of [`ro_crate`].
pub async fn write(
    history: &History,
    address: &Address,
    to: Option<&Path>,
    setting: &Setting<'_>,
) -> Result<(), Failure> {
    let run = history.lineage.find_run(&address.run).await?;
    if let Some(stage) = &address.stage {
        let message = format!("a crate holds a whole run, and the address names its stage `{stage}`");
        let help = history.typed(&format!("llmflow export {run} --format ro-crate"));
        return Err(Failure::input("export/crate", message).help(help));
    }
    let to = to.map_or_else(|| PathBuf::from(format!("{run}-crate")), Path::to_owned);
    let History { home, lineage, store } = history;
    let made = ro_crate(Place { lineage, store, home, registry: setting.registry }, &run, &to).await?;
    let out = setting.screen;
    if out.json {
        let Crate { path, files, bytes, left_out } = made;
        out.print_json(&json!({ "path": path, "run": run, "files": files, "bytes": bytes, "left_out": left_out }));
    } else {
        let (files, size) = (format::counted(made.files as u64, "file"), format::bytes(made.bytes));
        let path = format::clean(&made.path.display().to_string());
        out.say(&format!("{path}: {files}, {size}{}", left_out(&made)));
    }
    Ok(())
}

/// `; 2 results left out: rows, clean (later results were made of them)`, if any are.
fn left_out(made: &Crate) -> String {
    if made.left_out.is_empty() {
        return String::new();
    }
    let count = format::counted(made.left_out.len() as u64, "result");
    let names = format::listed(made.left_out.iter().map(String::as_str), SHOWN);
    let which = if made.left_out.len() == 1 { "it" } else { "them" };
    format!("; {count} left out: {names} (later results were made of {which})")
}
