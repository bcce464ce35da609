//! Durable writes on a local disk: file synced, renamed into place, folder synced.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use llmflow_contract::Failure;

/// Makes what a folder lists durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| Failure::io("syncing", folder, &error))
}

/// Makes a folder and those above it, each durable in its parent.
pub(super) fn make_folder(folder: &Path) -> Result<(), Failure> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Failure::io("making", folder, &error)),
        _ => folder.parent().map_or(Ok(()), sync_folder),
    }
}

/// Writes a file durably, over one that is there or, with `create`, only where none is. Returns whether it wrote.
pub(super) fn write(tmp: &Path, path: &Path, bytes: &[u8], create: bool) -> Result<bool, Failure> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_folder(tmp)?;
    make_folder(parent)?;
    let mut file = tempfile::Builder::new()
        .prefix(&crate::owner::prefix())
        .tempfile_in(tmp)
        .map_err(|error| Failure::io("writing", path, &error))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| Failure::io("writing", path, &error))?;
    let kept = if create { file.persist_noclobber(path) } else { file.persist(path) };
    match kept {
        Ok(_) => sync_folder(parent).map(|()| true),
        Err(lost) if create && lost.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(failed) => Err(Failure::io("writing", path, &failed.error)),
    }
}

/// Every file below a folder, by its `/`-separated path, sorted. Symbolic links are followed, other things refused.
pub(super) fn files_below(root: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| Failure::io("listing", &folder, &error))? {
            let path = entry.map_err(|error| Failure::io("listing", &folder, &error))?.path();
            let meta = fs::metadata(&path).map_err(|error| Failure::io("reading", &path, &error))?;
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            let inner = path.strip_prefix(root).ok().and_then(Path::to_str);
            match inner {
                Some(inner) if meta.is_file() => files.push((inner.to_owned(), path.clone())),
                _ => {
                    return Err(Failure::bug(format!(
                        "an output holds `{}`, no file with a UTF-8 name",
                        path.display()
                    )));
                }
            }
        }
    }
    files.sort();
    Ok(files)
}
