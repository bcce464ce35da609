//! A run as an RO-Crate: what `export` and `lineage` share.

use std::path::{Path, PathBuf};

use llmflow_contract::Failure;
use llmflow_runtime::{address::Address, lineage::ro_crate::ro_crate};
use serde_json::json;

use super::{Setting, history::History};
use crate::render::format;

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
    let made = ro_crate(&history.lineage, &history.store, &history.home, &run, &to).await?;
    let out = setting.screen;
    if out.json {
        out.print_json(&json!({ "path": made.path, "run": run, "files": made.files, "bytes": made.bytes }));
    } else {
        let (files, size) = (format::counted(made.files as u64, "file"), format::bytes(made.bytes));
        out.say(&format!("{}: {files}, {size}", format::clean(&made.path.display().to_string())));
    }
    Ok(())
}
