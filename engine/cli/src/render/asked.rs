//! What is asked of a pipeline file beside its name, as it is typed.
//!
//! Must not know: where the user stands, which command is worth printing.

use std::{collections::BTreeMap, path::PathBuf};

use llmflow_runtime::{
    lineage::{PipelineRow, RunRow},
    pipeline::Overrides,
    plan::Selection,
};
use serde::{Deserialize, Serialize};

use super::{format, typed::quoted};

/// Ends of the names of variables whose values are nobody's to read.
const SECRET: [&str; 4] = ["KEY", "TOKEN", "SECRET", "PASSWORD"];

/// All that makes a run of the same file another one. Not `--force`: what was computed by it is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Variables of the environment that the file reads; those without a value are not to be told.
    pub environment: BTreeMap<String, Option<String>>,
    /// `--set`, as typed.
    pub set: Vec<String>,
    /// `--params-file`, as typed.
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
        let told = |name: &String| {
            let is_secret =
                SECRET.iter().any(|end| name.ends_with(end)) || row.text.contains(&format!("secret.{name}"));
            !is_secret
        };
        let variables = row.overrides.environment.iter();
        let environment = variables.map(|(name, value)| (name.clone(), told(name).then(|| value.clone())));
        Self { environment: environment.collect(), ..Self::of(&row.overrides, &row.selection) }
    }

    /// What lists of runs tell of it.
    pub fn listed(row: &RunRow) -> Self {
        let (set, params_file, profile) = (row.set.clone(), row.params_file.clone(), row.profile.clone());
        Self { set, params_file, profile, ..Self::default() }
    }

    /// `--set rank=32`, `--profile gpu`.
    pub fn words(&self) -> Vec<String> {
        let word = |flag: &str, value: &str| format!("--{flag} {}", quoted(&format::clean(value)));
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

    /// `RANK=32 llmflow run p.yaml --set lr=1e-4`: the same run of a file.
    pub fn command(&self, file: &str) -> String {
        let variable = |(name, value): (&String, &Option<String>)| {
            format!("{name}={}", value.as_ref().map_or("…".to_owned(), |value| quoted(&format::clean(value))))
        };
        let run = format!("llmflow run {}", quoted(&format::clean(file)));
        self.environment.iter().map(variable).chain([run]).chain(self.words()).collect::<Vec<_>>().join(" ")
    }
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

    #[test]
    fn variables_that_the_file_reads_stand_before_it_and_no_secret_does() {
        let row = PipelineRow {
            path: "/p.yaml".into(),
            name: "p".into(),
            text: "${env.TAG} ${env.API_KEY} ${env.LOGIN} ${secret.LOGIN}".into(),
            params: BTreeMap::new(),
            overrides: Overrides { environment: overrides().environment, ..Overrides::default() },
            resumes: None,
            locks: Default::default(),
            selection: Selection::default(),
            store: None,
        };
        let command = Asked::recorded(&row).command("p.yaml");
        assert_eq!(command, "API_KEY=… LOGIN=… TAG='a b' llmflow run p.yaml");
    }
}
