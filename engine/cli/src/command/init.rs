//! `init`

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use llmflow_contract::Failure;
use llmflow_runtime::{pipeline, run::Error};

use super::{DONE, Setting};
use crate::{args::InitArgs, render::init as screen, template::Template};

/// The schema that the line `yaml-language-server` of a pipeline file names.
const SCHEMA: &str = "llmflow.schema.json";

/// Writes a pipeline, its data and the schema for editors into a folder. What is there already stays as it is.
pub fn init(args: InitArgs, setting: &Setting) -> Result<u8, Error> {
    let template = find(args.template.as_deref(), setting.templates, setting.screen.width.saturating_sub(8))?;
    let folder = args.folder.unwrap_or_else(|| PathBuf::from("."));
    let schema = serde_json::to_string_pretty(&pipeline::schema(setting.registry)).unwrap_or_default() + "\n";
    let (name, text) = (template.file(), template.text());
    let own = [(name.as_str(), text.as_bytes()), (SCHEMA, schema.as_bytes())];
    let files: Vec<(&str, &[u8])> = own.into_iter().chain(template.data.iter().copied()).collect();
    refuse_to_overwrite(&folder, &files)?;
    for (path, bytes) in &files {
        write_new(&folder.join(path), bytes)?;
    }
    let out = setting.screen;
    if out.json {
        let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
        out.print_json(&serde_json::json!({ "folder": folder, "template": template.name, "files": paths }));
    } else {
        let written = screen::Written { template, folder: &folder, schema: SCHEMA, others: setting.templates };
        out.say(&screen::written(&written, out.width));
    }
    Ok(DONE)
}

/// The template of that name; the first one where none is named.
fn find<'a>(name: Option<&str>, templates: &'a [Template], width: usize) -> Result<&'a Template, Failure> {
    let found = match name {
        Some(name) => templates.iter().find(|template| template.name == name),
        None => templates.first(),
    };
    found.ok_or_else(|| {
        let name = name.unwrap_or_default();
        Failure::input("cli/template", format!("there is no template `{name}`")).help(screen::list(templates, width))
    })
}

/// # Errors
/// `cli/exists`, which names the first file that would be lost.
fn refuse_to_overwrite(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), Failure> {
    let differs = |path: &Path, bytes: &[u8]| {
        let metadata = fs::symlink_metadata(path).ok()?;
        let is_same = metadata.is_file() && metadata.len() == bytes.len() as u64 && fs::read(path).ok()? == bytes;
        (!is_same).then_some(())
    };
    for (name, bytes) in files {
        let path = folder.join(name);
        if differs(&path, bytes).is_some() {
            return Err(Failure::input(
                "cli/exists",
                format!("`{}` exists already; nothing was written", path.display()),
            )
            .help("name another folder: llmflow init FOLDER"));
        }
    }
    Ok(())
}

/// Writes a file that is not there. One that is there holds these bytes already.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    let made = OpenOptions::new().write(true).create_new(true).open(path);
    match made.and_then(|mut file| file.write_all(bytes)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Failure::io("writing", path, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &[u8]); 2] = [("a.yaml", b"a"), ("data/b.jsonl", b"b")];

    #[test]
    fn nothing_is_overwritten_and_the_same_bytes_are_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("a.yaml"), "a").unwrap();
        refuse_to_overwrite(folder, &FILES).unwrap();
        FILES.iter().for_each(|(path, bytes)| write_new(&folder.join(path), bytes).unwrap());
        assert_eq!(fs::read(folder.join("data/b.jsonl")).unwrap(), b"b");
        fs::write(folder.join("data/b.jsonl"), "mine").unwrap();
        let failure = refuse_to_overwrite(folder, &FILES).unwrap_err();
        assert!(failure.message.contains("b.jsonl"), "{failure}");
        write_new(&folder.join("data/b.jsonl"), b"b").unwrap();
        assert_eq!(fs::read(folder.join("data/b.jsonl")).unwrap(), b"mine");
    }

    #[test]
    fn an_unknown_template_names_the_others() {
        let templates = [Template { name: "tiny", pipeline: "# What it is for.\nname: x\n", data: &[] }];
        assert_eq!(find(None, &templates, 80).unwrap().name, "tiny");
        let failure = find(Some("huge"), &templates, 80).unwrap_err();
        assert_eq!(failure.help.as_deref(), Some("the templates are\n  tiny  What it is for."));
    }
}
