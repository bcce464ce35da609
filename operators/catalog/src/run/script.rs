//! The files a program needs: found at planning, keyed by content, laid out where it runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use llmflow_contract::{Context, Failure, Source};

/// Most files of one stage: beyond, a folder was named that is no folder of scripts.
const MAX_FILES: usize = 10_000;

/// One file, and where it lies for the program, relative to the folder it runs in.
pub(crate) struct ScriptFile {
    pub path: PathBuf,
    pub name: String,
}

/// Every file that `files` names, folders with all that is in them, sorted by name.
///
/// Hidden entries and Python's caches are left out: they change when nothing does.
///
/// # Errors
/// Class `input` with the param `files`: nothing there, no file, or far too many.
pub(crate) fn find(files: &[String], base: &Path) -> Result<Vec<ScriptFile>, Failure> {
    let mut found = Vec::new();
    for file in files {
        let path = base.join(file);
        let meta = fs::metadata(&path).map_err(|error| Failure::io("reading", &path, &error).param("files"))?;
        let name = name_of(file)
            .ok_or_else(|| Failure::input("files/name", format!("`{file}` names no file or folder")).param("files"))?;
        if meta.is_dir() {
            list(&path, &name, &mut found)?;
        } else if meta.is_file() {
            found.push(ScriptFile { path, name });
        } else {
            let message = format!("`{file}` is neither file nor folder");
            return Err(Failure::input("files/special", message).param("files"));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = found.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let message = format!("two files would lie at `{}`", twice[0].name);
        return Err(Failure::input("files/twice", message).param("files").help("rename one of them"));
    }
    Ok(found)
}

/// The same where the stage runs: those that were there when its key was made.
///
/// # Errors
/// Those of [`find`].
pub(crate) fn find_again(files: &[String], ctx: &Context) -> Result<Vec<ScriptFile>, Failure> {
    let mut found = find(files, &ctx.resolve(""))?;
    found.retain(|file| ctx.is_source(&file.path));
    Ok(found)
}

/// The files as what the stage reads from outside.
pub(crate) fn sources(files: Vec<ScriptFile>) -> impl Iterator<Item = Source> {
    files.into_iter().map(|file| Source::File { param: "files".into(), path: file.path, name: Some(file.name) })
}

/// Copies the files into the folder the program runs in; nobody may write to them there.
pub(crate) fn lay_out(files: &[ScriptFile], folder: &Path) -> Result<(), Failure> {
    for file in files {
        let target = folder.join(&file.name);
        let parent = target.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
        fs::copy(&file.path, &target).map_err(|error| Failure::io("copying", &file.path, &error))?;
        let mode = fs::metadata(&target).map_err(|error| Failure::io("reading", &target, &error))?.permissions().mode();
        fs::set_permissions(&target, fs::Permissions::from_mode(mode & 0o555))
            .map_err(|error| Failure::io("protecting", &target, &error))?;
    }
    Ok(())
}

/// A path below the pipeline file keeps its folders; one from elsewhere keeps its last name.
fn name_of(file: &str) -> Option<String> {
    let path = Path::new(file);
    let inner: PathBuf = path.components().filter(|part| !matches!(part, Component::CurDir)).collect();
    let is_below = inner.components().all(|part| matches!(part, Component::Normal(_)));
    let name = if is_below && !inner.as_os_str().is_empty() { inner.as_os_str() } else { path.file_name()? };
    name.to_str().map(str::to_owned)
}

fn list(folder: &Path, name: &str, found: &mut Vec<ScriptFile>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("listing", folder, &error).param("files");
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(own) = entry.file_name().to_str().map(str::to_owned) else {
            let message = format!("`{}` holds a file whose name is no UTF-8", folder.display());
            return Err(Failure::input("files/name", message).param("files"));
        };
        if own.starts_with('.') || own == "__pycache__" {
            continue;
        }
        let (path, name) = (entry.path(), format!("{name}/{own}"));
        let kind = entry.file_type().map_err(failed)?;
        // A link to a folder may lead back up: it is not followed.
        if kind.is_dir() {
            list(&path, &name, found)?;
        } else if path.is_file() {
            found.push(ScriptFile { path, name });
        }
        if found.len() > MAX_FILES {
            let message = format!("`{}` holds more than {MAX_FILES} files", folder.display());
            return Err(Failure::input("files/many", message)
                .param("files")
                .help("name the scripts alone; data comes in through `in`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_taken_whole_and_files_from_elsewhere_by_their_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("project");
        for (path, text) in [
            ("project/train.py", "1"),
            ("project/lib/a.py", "2"),
            ("project/lib/deep/b.py", "3"),
            ("project/lib/.git", "4"),
            ("project/lib/__pycache__/a.pyc", "5"),
            ("shared.py", "6"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = find(&["./train.py".into(), "lib/".into(), "../shared.py".into()], &base).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["lib/a.py", "lib/deep/b.py", "shared.py", "train.py"]);
        let target = folder.path().join("run");
        lay_out(&files, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("lib/deep/b.py")).unwrap(), "3");
        assert!(fs::metadata(target.join("train.py")).unwrap().permissions().readonly());
    }

    #[test]
    fn what_is_not_there_or_would_lie_on_another_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("base")).unwrap();
        fs::write(folder.path().join("base/a.py"), "1").unwrap();
        fs::write(folder.path().join("a.py"), "2").unwrap();
        let base = folder.path().join("base");
        let code = |files: &[&str]| {
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            find(&files, &base).err().map(|failure| failure.code)
        };
        assert_eq!(code(&["no.py"]).as_deref(), Some("file/missing"));
        assert_eq!(code(&["a.py", "../a.py"]).as_deref(), Some("files/twice"));
        assert_eq!(code(&[".."]).as_deref(), Some("files/name"));
        assert_eq!(code(&["a.py"]), None);
    }
}
