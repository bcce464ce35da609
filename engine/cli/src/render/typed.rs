//! Commands to type, as they work from where the user stands.
//!
//! Owns: when `--home` must be added, how paths and words are written. Must not know: which command is worth printing.

use std::path::{Component, Path, PathBuf};

use llmflow_runtime::home::FOLDER;

use super::{asked::Asked, format::moves};

/// The words of a command that looks for the home from this folder, with `--home` where it would not find this one.
pub fn typed(words: &str, home: &Path) -> String {
    Place::here().typed(words, home)
}

/// Where the user stands, and what is set around them.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// This folder, absolute.
    pub here: PathBuf,
    /// `LLMFLOW_HOME`: it serves the next command too.
    pub variable: Option<PathBuf>,
}

impl Place {
    pub fn here() -> Self {
        let variable = std::env::var_os("LLMFLOW_HOME").filter(|path| !path.is_empty());
        Self { here: std::env::current_dir().unwrap_or_default(), variable: variable.map(PathBuf::from) }
    }

    /// A command that looks for the home from this folder: every one that looks back.
    pub fn typed(&self, words: &str, home: &Path) -> String {
        self.with_home(words, home, &self.here)
    }

    /// `llmflow run FILE` with what was asked: it looks for the home from the folder of the file.
    pub fn run(&self, file: &Path, asked: &Asked, home: &Path) -> String {
        let start = self.here.join(file);
        let run = self.with_home(&self.command(file, asked), home, start.parent().unwrap_or(&self.here));
        format!("{run}{}", asked.note())
    }

    /// The same of a file whose home is the one it finds.
    pub fn run_alone(&self, file: &Path, asked: &Asked) -> String {
        format!("{}{}", self.command(file, asked), asked.note())
    }

    /// What was asked, with its paths as they are typed from here.
    pub fn asked(&self, asked: Asked) -> Asked {
        Asked { params_file: asked.params_file.map(|path| self.shown(&path).into()), ..asked }
    }

    fn command(&self, file: &Path, asked: &Asked) -> String {
        self.asked(asked.clone()).command(&self.shown(file))
    }

    /// A path as it is typed from here: below this folder, above it, or absolute, whichever is shortest.
    pub fn shown(&self, path: &Path) -> String {
        let absolute = self.here.join(path);
        let from_here = relative(&absolute, &self.here).display().to_string();
        let absolute = absolute.display().to_string();
        if from_here.len() <= absolute.len() { from_here } else { absolute }
    }

    fn with_home(&self, words: &str, home: &Path, start: &Path) -> String {
        match &self.variable {
            Some(path) if is_same(&self.here.join(path), home) => words.to_owned(),
            None if is_found(home, start) => words.to_owned(),
            _ => format!("{words} --home {}", quoted(&self.shown(home))),
        }
    }
}

/// Is this home the nearest above a folder?
fn is_found(home: &Path, start: &Path) -> bool {
    let start = start.canonicalize().unwrap_or_else(|_| start.to_owned());
    let (Some(owner), true) = (home.parent(), home.file_name().is_some_and(|name| name == FOLDER)) else {
        return false;
    };
    let mut nearer = start.ancestors().take_while(|folder| *folder != owner);
    start.starts_with(owner) && !nearer.any(|folder| folder.join(FOLDER).exists())
}

fn is_same(path: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(path) == real(other)
}

/// A path seen from a folder; both absolute.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let shared = path.components().zip(folder.components()).take_while(|(one, other)| one == other).count();
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path.components().skip(shared)).collect();
    if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative }
}

/// A word as a shell reads it, in one line.
pub fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-=/+,:@%".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else if word.chars().any(moves) {
        format!("$'{}'", word.chars().map(escaped).collect::<String>())
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A character within `$'…'`: ANSI-C quoting, as bash, zsh and ksh read it.
fn escaped(character: char) -> String {
    match character {
        '\'' | '\\' => format!("\\{character}"),
        '\n' => r"\n".to_owned(),
        '\r' => r"\r".to_owned(),
        '\t' => r"\t".to_owned(),
        _ if character.is_ascii_control() => format!(r"\x{:02x}", u32::from(character)),
        _ if moves(character) => format!(r"\u{:04x}", u32::from(character)),
        _ => character.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(here: &str) -> Place {
        Place { here: here.into(), variable: None }
    }

    #[test]
    fn a_home_that_is_not_found_from_here_is_named() {
        let home = Path::new("/srv/a/proj/.llmflow");
        let typed = |here: &str| at(here).typed("llmflow resume x", home);
        assert_eq!(typed("/srv/a/proj/data"), "llmflow resume x", "it lies above");
        assert_eq!(typed("/srv/a"), "llmflow resume x --home proj/.llmflow");
        assert_eq!(typed("/srv/a/other"), "llmflow resume x --home ../proj/.llmflow");
        assert_eq!(typed("/x/y/z/w/v/u"), "llmflow resume x --home /srv/a/proj/.llmflow", "shorter than from here");
        let elsewhere = at("/srv/a").typed("llmflow runs", Path::new("/srv/a/it's"));
        assert_eq!(elsewhere, r"llmflow runs --home 'it'\''s'", "no command looks for another name");
    }

    #[test]
    fn a_run_finds_the_home_of_its_file() {
        let home = Path::new("/srv/a/proj/.llmflow");
        let asked = Asked { set: vec!["rank=32".into()], ..Asked::default() };
        assert_eq!(at("/srv/a").run(Path::new("proj/p.yaml"), &asked, home), "llmflow run proj/p.yaml --set rank=32");
        assert_eq!(
            at("/srv/a/b").run(Path::new("/srv/a/p.yaml"), &asked, home),
            "llmflow run ../p.yaml --set rank=32 --home ../proj/.llmflow"
        );
    }

    #[test]
    fn a_params_file_is_named_from_here_and_a_secret_to_set_behind_the_command() {
        let asked = Asked { params_file: Some("/srv/a/more.yaml".into()), ..Asked::default() };
        let run = |here: &str, asked: &Asked| at(here).run_alone(Path::new("/srv/a/proj/p.yaml"), asked);
        assert_eq!(run("/srv/a/proj", &asked), "llmflow run p.yaml --params-file ../more.yaml");
        assert_eq!(run("/srv/a", &asked), "llmflow run proj/p.yaml --params-file more.yaml");
        let recorded_before = Asked { params_file: Some("more.yaml".into()), ..Asked::default() };
        assert_eq!(run("/srv/a/proj", &recorded_before), "llmflow run p.yaml --params-file more.yaml");
        let asked = Asked { environment: [("API_KEY".to_owned(), None)].into(), ..Asked::default() };
        assert_eq!(
            at("/srv/a").run(Path::new("proj/p.yaml"), &asked, Path::new("/srv/home")),
            "llmflow run proj/p.yaml --home ../home   (with API_KEY set as it was)"
        );
    }

    #[test]
    fn a_nearer_home_hides_one_above_it_and_a_variable_serves_every_command() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("inner/.llmflow")).unwrap();
        let mut place = Place { here: root.join("inner"), variable: None };
        let home = root.join(FOLDER);
        assert_eq!(place.typed("llmflow runs", &home), "llmflow runs --home ../.llmflow");
        place.variable = Some(home.clone());
        assert_eq!(place.typed("llmflow runs", &home), "llmflow runs");
    }

    #[test]
    fn a_word_survives_the_shell() {
        assert_eq!(quoted("rank=32"), "rank=32");
        assert_eq!(quoted("note=it's; rm -rf"), r"'note=it'\''s; rm -rf'");
        assert_eq!(quoted("note=a\nb"), r"$'note=a\nb'");
        assert_eq!(quoted("it's \\ \t\u{1b}[2Jé\u{202e}"), r"$'it\'s \\ \t\x1b[2Jé\u202e'");
    }
}
