//! A secret goes to the worker that needs it and is written nowhere.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::Command,
};

use crate::project::{Done, LLMFLOW, Project, files_below};

/// A stage that is given the secret, uses it, prints it, and fails if its last word says so.
const PIPELINE: &str = r#"
params: { ends: "0" }
stages:
  caller:
    op: run.command
    with:
      command: [sh, -c, 'echo "asked with $TOKEN" >&2; echo "$TOKEN"; printf "$TOKEN" | wc -c > "$1/length"; exit "$2"', sh, "{out.answer}", "${params.ends}"]
      outputs: { answer: files }
      secrets: { TOKEN: "${secret.CANARY_VARIABLE}" }
publish: { caller: out/answer }
"#;

fn run(project: &Project, words: &str, canary: Option<&str>) -> Done {
    let mut command = project.command(words);
    match canary {
        Some(canary) => command.env("CANARY_VARIABLE", canary),
        None => command.env_remove("CANARY_VARIABLE"),
    };
    Done::of(&command.output().unwrap())
}

/// Every file below the project in which the bytes stand.
fn holding(project: &Project, bytes: &str) -> Vec<String> {
    let holds = |path: &std::path::PathBuf| {
        fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes.as_bytes())
    };
    files_below(&project.path("")).into_iter().filter(holds).map(|path| path.display().to_string()).collect()
}

#[test]
fn a_secret_reaches_its_worker_and_no_file_screen_or_key() {
    let canary = "canary-5c1e77d0a9";
    let project = Project::with(PIPELINE);
    let first = run(&project, "run pipeline.yaml --json", Some(canary));
    assert_eq!(first.code, Some(0), "{}{}", first.out, first.err);
    let length = fs::read_to_string(project.path("out/answer/length")).unwrap();
    assert_eq!(length.trim(), canary.len().to_string(), "the program knew it");
    let failed = run(&project, "run pipeline.yaml --set ends=3", Some(canary));
    assert_eq!(failed.code, Some(1), "{}", failed.err);
    assert!(failed.err.contains("asked with ***"), "{}", failed.err);
    for done in [&first, &failed, &run(&project, "logs @/caller", None), &run(&project, "show @/caller", None)] {
        assert!(!done.out.contains(canary) && !done.err.contains(canary), "{}{}", done.out, done.err);
    }
    assert_eq!(holding(&project, canary), [""; 0]);
    assert!(
        !holding(&project, "CANARY_VARIABLE").is_empty(),
        "the name is recorded, and the search finds what is there"
    );

    let rotated = run(&project, "run pipeline.yaml", Some("another-secret-value"));
    assert!(rotated.err.contains("nothing left to run"), "another value is no other work:\n{}", rotated.err);
}

#[test]
fn a_secret_that_is_not_set_fails_its_stage_with_the_way_to_set_it() {
    let done = run(&Project::with(PIPELINE), "run pipeline.yaml", None);
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(done.err.contains("export CANARY_VARIABLE="), "{}", done.err);
}

/// Beside the stage with the secret one that looks at what its worker was born with.
const NEIGHBOUR: &str = r#"
stages:
  caller:
    op: run.command
    with:
      command: [sh, -c, 'tr "\\0" "\\n" < /proc/$PPID/environ > "$1/environ"', sh, "{out.answer}"]
      outputs: { answer: files }
      secrets: { TOKEN: "${secret.CANARY_VARIABLE}" }
  other:
    op: run.command
    with:
      command: [sh, -c, 'tr "\\0" "\\n" < /proc/$PPID/environ > "$1/environ"', sh, "{out.answer}"]
      outputs: { answer: files }
publish: { caller: out/caller, other: out/other }
"#;

#[test]
fn no_worker_inherits_a_secret_or_a_key_to_a_hub() {
    let project = Project::with(NEIGHBOUR);
    let mut command = project.command("run pipeline.yaml");
    let done = command.env("CANARY_VARIABLE", "canary-1").env("HF_TOKEN", "canary-2").env("PLAIN", "canary-3").output();
    let done = Done::of(&done.unwrap());
    assert_eq!(done.code, Some(0), "{}", done.err);
    for stage in ["caller", "other"] {
        let environ = fs::read_to_string(project.path(&format!("out/{stage}/environ"))).unwrap();
        assert!(environ.contains("PLAIN=canary-3"), "the program saw its worker: {environ}");
        assert!(!environ.contains("canary-1") && !environ.contains("canary-2"), "{stage}: {environ}");
    }
}

/// A program that looks into the environment of the engine, whose worker started it.
const PRYING: &str = r#"
stages:
  prying:
    op: run.command
    with:
      command: [sh, -c, 'engine=$(cut -d" " -f4 /proc/$PPID/stat); grep -q a-canary "/proc/$engine/environ" && echo seen > "$1/it" || echo unseen > "$1/it"', sh, "{out.answer}"]
      outputs: { answer: files }
"#;

/// The program run by a user without privileges: one with all of them reads everything.
fn as_anyone(project: &Project, words: &str) -> Command {
    const NOBODY: u32 = 65534;
    let program = project.path("llmflow");
    fs::copy(LLMFLOW, &program).unwrap();
    let mut command = project.command_of(program, words);
    if fs::metadata(project.path("")).unwrap().uid() == 0 {
        let anyone = Some(NOBODY);
        std::os::unix::fs::chown(project.path(""), anyone, anyone).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn a_program_does_not_read_a_secret_out_of_the_engine() {
    for (with, found) in [("      secrets: { TOKEN: \"${secret.CANARY_VARIABLE}\" }\n", "unseen"), ("", "seen")] {
        let project = Project::with(&format!("{PRYING}{with}publish: {{ prying: out/answer }}\n"));
        let mut command = as_anyone(&project, "run pipeline.yaml");
        let done = Done::of(&command.env("CANARY_VARIABLE", "a-canary").output().unwrap());
        assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
        assert_eq!(fs::read_to_string(project.path("out/answer/it")).unwrap().trim(), found, "{with}");
    }
}
