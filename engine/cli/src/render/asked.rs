//! What is asked of a pipeline file beside its name, as it is typed.
//!
//! Must not know: where the user stands, which command is worth printing.

use std::{collections::BTreeMap, env, path::PathBuf};

use llmflow_runtime::{
    lineage::{PipelineRow, RunRow},
    pipeline::Overrides,
    plan::Selection,
};
use serde::{Deserialize, Serialize};

use super::{format, typed::quoted};

/// Parts of the names of variables whose values are nobody's to read, in any case.
const SECRET: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "PWD", "AUTH"];

/// Variables that a login sets by itself.
const LOGIN: [&str; 8] = ["HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TMPDIR", "USER"];

/// All that makes a run of the same file another one. Not `--force`: what was computed by it is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Variables of the environment that the file reads; those without a value are not to be told.
    pub environment: BTreeMap<String, Option<String>>,
    /// `--set`, as typed.
    pub set: Vec<String>,
    /// `--params-file`, absolute; of old runs as typed.
    pub params_file: Option<PathBuf>,
    pub profile: Option<String>,
    pub only: Vec<String>,
    pub from: Vec<String>,
    pub exact: bool,
    pub limit: Option<u64>,
}

impl Asked {
    pub fn of(overrides: &Overrides, selection: &Selection) -> Self {
        Self {
            environment: BTreeMap::new(),
            set: overrides.set.clone(),
            params_file: overrides.params_file.as_ref().map(|file| file.path.clone()),
            profile: overrides.profile.clone(),
            only: selection.only.clone(),
            from: selection.from.clone(),
            exact: selection.exact,
            limit: overrides.limit,
        }
    }

    /// The same of a recorded run, with the variables that its file read.
    pub fn recorded(row: &PipelineRow) -> Self {
        let variables = row.overrides.environment.iter();
        let environment = variables.map(|(name, value)| (name.clone(), (!is_secret(row, name)).then(|| value.clone())));
        Self { environment: environment.collect(), ..Self::of(&row.overrides, &row.selection) }
    }

    /// The same to be typed here: without the variables that are set as they were, of those that a login sets by itself or that
    /// are secret. Others may have been set for that one command.
    pub fn recorded_here(row: &PipelineRow) -> Self {
        Self::recorded(row).without(|name| {
            let now = env::var(name).ok();
            let is_as_it_was = now.is_some() && now.as_ref() == row.overrides.environment.get(name);
            is_as_it_was && (LOGIN.contains(&name) || is_secret(row, name))
        })
    }

    /// Without the variables that need not be said.
    fn without(mut self, is_set: impl Fn(&str) -> bool) -> Self {
        self.environment.retain(|name, _| !is_set(name));
        self
    }

    /// What lists of runs tell of it.
    pub fn listed(row: &RunRow) -> Self {
        let (set, params_file, profile) = (row.set.clone(), row.params_file.clone(), row.profile.clone());
        Self { set, params_file, profile, ..Self::default() }
    }

    /// `--set rank=32`, `--profile gpu`.
    pub fn words(&self) -> Vec<String> {
        let word = |flag: &str, value: &str| format!("--{flag} {}", quoted(value));
        let file = self.params_file.as_ref().map(|path| path.display().to_string());
        let set = self.set.iter().map(|set| word("set", set));
        let file = file.iter().map(|path| word("params-file", path));
        let profile = self.profile.iter().map(|name| word("profile", name));
        let only = self.only.iter().map(|stage| word("only", stage));
        let from = self.from.iter().map(|stage| word("from", stage));
        let exact = self.exact.then(|| "--exact".to_owned());
        let limit = self.limit.map(|limit| format!("--limit {limit}"));
        set.chain(file).chain(profile).chain(only).chain(from).chain(exact).chain(limit).collect()
    }

    /// `RANK=32 llmflow run p.yaml --set lr=1e-4`: the same run of a file, where secrets are set as they were.
    pub fn command(&self, file: &str) -> String {
        self.line(file, |_| None)
    }

    /// The same for a reader elsewhere, who has to set them: `API_KEY="$API_KEY" llmflow run p.yaml`.
    pub fn command_elsewhere(&self, file: &str) -> String {
        self.line(file, |name| Some(format!("\"${name}\"")))
    }

    fn line(&self, file: &str, secret: impl Fn(&str) -> Option<String>) -> String {
        let variable = |(name, value): (&String, &Option<String>)| {
            let value = value.as_ref().map_or_else(|| secret(name), |value| Some(quoted(value)))?;
            Some(format!("{name}={value}"))
        };
        let run = format!("llmflow run {}", quoted(file));
        self.environment.iter().filter_map(variable).chain([run]).chain(self.words()).collect::<Vec<_>>().join(" ")
    }

    /// `   (with API_KEY set as it was)`: what stands behind [`Self::command`]; nothing where it says all.
    pub fn note(&self) -> String {
        let secret = self.environment.iter().filter(|(_, value)| value.is_none());
        let names: Vec<String> = secret.map(|(name, _)| format::clean(name)).collect();
        match names.len() {
            0 => String::new(),
            1 => format!("   (with {} set as it was)", names[0]),
            _ => format!("   (with {} set as they were)", names.join(", ")),
        }
    }
}

/// Does a variable look like one whose value is nobody's to read, or does the file name it as a secret?
fn is_secret(row: &PipelineRow, name: &str) -> bool {
    let upper = name.to_uppercase();
    SECRET.iter().any(|part| upper.contains(part)) || row.text.contains(&format!("secret.{name}"))
}

#[cfg(test)]
mod tests {
    use llmflow_runtime::pipeline::SourceFile;

    use super::*;

    fn overrides() -> Overrides {
        Overrides {
            set: vec!["rank=32".into(), "note=it is".into()],
            params_file: Some(SourceFile::new("my params.yaml", "lr: 1")),
            profile: Some("gpu".into()),
            limit: Some(4),
            environment: [("TAG", "a b"), ("API_KEY", "k"), ("LOGIN", "l")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn a_command_repeats_all_that_was_asked_so_that_a_shell_reads_it() {
        let selection = Selection {
            only: vec!["sft@lr=1,rank=8".into()],
            from: vec!["rows".into()],
            force: true,
            exact: true,
            ..Selection::default()
        };
        assert_eq!(
            Asked::of(&overrides(), &selection).command("a b.yaml"),
            "llmflow run 'a b.yaml' --set rank=32 --set 'note=it is' --params-file 'my params.yaml' --profile gpu --only sft@lr=1,rank=8 --from rows --exact --limit 4"
        );
        assert_eq!(Asked::default().command("p.yaml"), "llmflow run p.yaml");
    }

    /// A run whose file read these variables.
    fn row(environment: BTreeMap<String, String>) -> PipelineRow {
        PipelineRow {
            path: "/p.yaml".into(),
            name: "p".into(),
            text: "${env.TAG} ${env.API_KEY} ${env.LOGIN} ${secret.LOGIN}".into(),
            params: BTreeMap::new(),
            overrides: Overrides { environment, ..Overrides::default() },
            resumes: None,
            locks: Default::default(),
            selection: Selection::default(),
            store: None,
        }
    }

    #[test]
    fn variables_that_are_not_set_as_they_were_stand_before_a_command_and_no_secret_does() {
        let row = row(overrides().environment);
        let asked = Asked::recorded(&row);
        assert_eq!(
            (asked.command("p.yaml"), asked.note()),
            ("TAG='a b' llmflow run p.yaml".to_owned(), "   (with API_KEY, LOGIN set as they were)".to_owned())
        );
        let elsewhere = r#"API_KEY="$API_KEY" LOGIN="$LOGIN" TAG='a b' llmflow run p.yaml"#;
        assert_eq!(asked.command_elsewhere("p.yaml"), elsewhere);
        let asked = asked.without(|name| name != "API_KEY");
        assert_eq!(
            (asked.command("p.yaml").as_str(), asked.note().as_str()),
            ("llmflow run p.yaml", "   (with API_KEY set as it was)")
        );
        let asked = asked.without(|_| true);
        assert_eq!((asked.command("p.yaml").as_str(), asked.note().as_str()), ("llmflow run p.yaml", ""));
    }

    #[test]
    fn a_variable_of_the_login_that_is_as_it_was_need_not_be_said() {
        let path = env::var("PATH").unwrap();
        let variables = |path: &str| [("PATH".to_owned(), path.to_owned())].into();
        assert_eq!(Asked::recorded_here(&row(variables(&path))).environment, BTreeMap::new());
        assert_eq!(Asked::recorded_here(&row(variables("/other"))).command("p.yaml"), "PATH=/other llmflow run p.yaml");
        let is_own = |name: &str| !LOGIN.contains(&name) && !is_secret(&row(BTreeMap::new()), name);
        let own: BTreeMap<String, String> = env::vars().filter(|(name, _)| is_own(name)).collect();
        let kept = Asked::recorded_here(&row(own.clone())).environment;
        assert_eq!(kept.len(), own.len(), "they may have been set for that command alone");
    }

    #[test]
    fn a_secret_is_known_by_any_part_of_its_name() {
        let names = ["HF_TOKEN_2", "eos_token", "Db_Passwd", "MYPWD", "AWS_CREDENTIALS", "BASIC_AUTH", "key", "RANK"];
        let asked = Asked::recorded(&row(names.map(|name| (name.to_owned(), "v".to_owned())).into()));
        assert_eq!(asked.command("p.yaml"), "RANK=v llmflow run p.yaml");
    }

    #[test]
    fn a_value_of_several_lines_is_written_in_one() {
        let asked = Asked { set: vec!["note=a\nb".into()], ..Asked::default() };
        assert_eq!(asked.command("p.yaml"), r"llmflow run p.yaml --set $'note=a\nb'");
    }
}
