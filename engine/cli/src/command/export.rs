//! `export`: what a stage gave, or a whole run, at a place of the user's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use llmflow_contract::{AnyArtifact, Digest, Failure};
use llmflow_dataset::{Dataset, RowFile};
use llmflow_runtime::{run as engine, run::Error, store::is_one_file};
use serde_json::json;

use super::{DONE, Setting, block_on, history::History, ro_crate};
use crate::{
    args::{ExportArgs, ExportFormat},
    render::format,
};

/// Copies an artifact, or a run as a crate, out of the store. What is there already is never written over.
pub fn export(args: ExportArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let address = history.address(&args.address).await?;
        let run = history.lineage.find_run(&address.run).await?;
        let history = history.of_run(&run).await?;
        let limit = history.lineage.limit_of(&run).await?;
        let note = limit.map(|limit| format::rehearsed(&run, limit));
        let typed = |words: &str| history.typed(&format!("llmflow export {words}"));
        let path = match (&address.stage, args.path, args.format) {
            (_, to, Some(ExportFormat::RoCrate)) => {
                ro_crate::write(&history, &address, to.as_deref(), setting).await?;
                note.iter().for_each(|note| setting.screen.say(note));
                return Ok(DONE);
            }
            (None, _, None) => {
                let message = "the address names a whole run; name one of its stages too, or take the run as a crate";
                let help = typed(&format!("{run} --format ro-crate"));
                return Err(Failure::input("lineage/address", message).help(help).into());
            }
            (Some(_), None, None) => {
                let help = typed(&format!("{} PATH", args.address));
                return Err(Failure::input("export/path", "where to? name a file or a folder").help(help).into());
            }
            (Some(_), Some(path), None) => path,
        };
        let (run, stage, port, digest) = history.lineage.resolve(&address).await?;
        let artifact = history.store.artifact(&digest, &history.home.work()).await?;
        let path = place(&artifact, &path);
        if RowFile::is_other(artifact.kind(), &path) {
            let (what, ending) = match artifact.kind().is_dataset() {
                true => ("rows are exported as JSONL or Parquet, as the ending says", "jsonl"),
                false => ("a trace is exported as Parquet", "parquet"),
            };
            let message = format!("`{}`: {what}", path.display());
            let help = typed(&format!("{} {}", args.address, path.with_extension(ending).display()));
            return Err(Failure::input("export/rows", message).help(help).into());
        }
        let wrote = match RowFile::of(artifact.kind(), &path) {
            Some(form) => export_rows(&artifact, &path, form)?,
            None => export_files(&artifact, &path)?,
        };
        let (out, shown) = (setting.screen, format::clean(&path.display().to_string()));
        if out.json {
            out.print_json(&json!({ "path": path, "digest": digest, "kind": artifact.kind(), "unchanged": !wrote }));
        } else if wrote {
            out.say(&format!("{run}/{stage}.{port} is now at {shown}"));
        } else {
            out.say(&format!("{shown} has it already"));
        }
        note.iter().for_each(|note| out.say(note));
        Ok(DONE)
    })
}

/// What is one file keeps its name in an empty folder. A folder that holds something is left as it is.
fn place(artifact: &AnyArtifact, path: &Path) -> PathBuf {
    let named = match artifact.manifest.files.as_slice() {
        [file] if is_empty_folder(path) => Some(path.join(&file.path)),
        _ => None,
    };
    named.filter(|named| is_one_file(&artifact.manifest, named)).unwrap_or_else(|| path.to_owned())
}

/// Whether anything was written.
fn export_rows(artifact: &AnyArtifact, path: &Path, form: RowFile) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::io("exporting", path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    // With the mode that the user's umask leaves of it, as any other file of theirs.
    let mode = fs::Permissions::from_mode(0o666);
    let aside = tempfile::Builder::new().prefix(".llmflow-export-").permissions(mode).tempfile_in(folder);
    let aside = aside.map_err(failed)?;
    form.write(&Dataset::open(artifact)?, aside.path())?;
    aside.as_file().sync_all().map_err(failed)?;
    if path.exists() {
        let digest = |path: &Path| Digest::of_file(path).map_err(failed);
        return if path.is_file() && digest(path)? == digest(aside.path())? { Ok(false) } else { Err(occupied(path)) };
    }
    aside.persist_noclobber(path).map_err(|error| failed(error.error))?;
    Ok(true)
}

/// Whether anything was written.
fn export_files(artifact: &AnyArtifact, path: &Path) -> Result<bool, Failure> {
    if fs::symlink_metadata(path).is_ok() && !is_empty_folder(path) {
        let is_same = engine::holds(artifact, path).map_err(|error| Failure::io("reading", path, &error))?;
        return if is_same { Ok(false) } else { Err(occupied(path)) };
    }
    engine::copy_out(artifact, path, false, None)?;
    Ok(true)
}

fn is_empty_folder(path: &Path) -> bool {
    path.read_dir().is_ok_and(|mut entries| entries.next().is_none())
}

fn occupied(path: &Path) -> Failure {
    Failure::input("export/occupied", format!("`{}` is there already and holds something else", path.display()))
        .help("move it away, or export to another path")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llmflow_contract::{Facts, FileEntry, Kind, Manifest};

    use super::*;

    #[test]
    fn only_what_is_one_file_keeps_its_name_in_an_empty_folder() {
        let folder = tempfile::tempdir().unwrap();
        let placed = |parts: &[&str]| {
            let manifest = Manifest {
                kind: Kind::new("dataset/text"),
                files: parts.iter().map(|part| FileEntry::new(*part, Digest::of(b""), 0)).collect(),
                facts: Facts::default(),
                references: BTreeMap::new(),
            };
            let (digest, root, references) = (manifest.digest(), PathBuf::new(), BTreeMap::new());
            place(&AnyArtifact { digest, manifest, root, references, label: None }, folder.path())
        };
        assert_eq!(placed(&["part-00000.parquet"]), folder.path().join("part-00000.parquet"));
        assert_eq!(placed(&["part-00000.parquet", "part-00001.parquet"]), folder.path());
    }
}
