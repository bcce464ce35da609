//! What is refused in a file beside what `tests/pipelines/invalid` shows.

use super::{load, load_over, operators::registry};
use crate::pipeline::{Overrides, SourceFile, load_with_profiles};

fn messages(text: &str, overrides: &Overrides) -> Vec<String> {
    let loaded = load_with_profiles(SourceFile::new("p.yaml", text), overrides, &registry());
    loaded.diagnostics.iter().map(|found| found.message.clone()).collect()
}

#[test]
fn a_profile_is_checked_though_another_is_chosen() {
    let text = r#"
params: {a: 2}
profiles:
  gpu: {stages: {unique: {with: {num_prem: 2}}}}
  big: {params: {a: x}}
  far: {stages: {rows: {with: {path: "${env.NOT_SET_ON_THIS_MACHINE}"}}}}
  fine: {params: {a: 3}, stages: {unique: {with: {threshold: 0.5}}}}
stages:
  rows: {op: data.load, with: {path: x}}
  unique: {op: data.dedup, in: rows, with: {num_perm: "${params.a}", thresh: 1}}
"#;
    let own = "`data.dedup` has no param `thresh`";
    let gpu = "with `--profile gpu`: `data.dedup` has no param `num_prem`";
    let big = "with `--profile big`: `params.a` is a whole number";
    assert_eq!(messages(text, &Overrides::default()), [gpu, big, own]);
    let chosen = Overrides { profile: Some("gpu".into()), ..Overrides::default() };
    assert_eq!(messages(text, &chosen), ["`data.dedup` has no param `num_prem`", big, own]);
}

#[test]
fn a_name_is_filled_as_a_store_is() {
    let rows = "stages: {rows: {op: data.load, with: {path: x}}}";
    let loaded =
        load(&format!("params: {{a: small}}\nname: \"${{params.a}}-1\"\nstore: \"${{params.a}}\"\n{rows}"), &["a=big"]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    let pipeline = loaded.pipeline;
    assert_eq!((pipeline.name.as_str(), pipeline.is_named), ("big-1", true));
    assert_eq!(pipeline.store.unwrap().value, "big");
}

#[test]
fn a_store_that_is_no_place_is_not_opened() {
    let loaded = load("store: s3:/x\nstages: {rows: {op: data.load, with: {path: x}}}", &[]);
    let found: Vec<_> = loaded.diagnostics.iter().map(|found| (found.code.as_str(), found.span.is_some())).collect();
    assert_eq!(found, [("store/url", true)]);
    assert!(loaded.pipeline.store.is_none(), "else a folder of that name would be made");
}

/// Of `--set`, of a file of params, and of the pipeline file, whose lines an excerpt shows.
#[test]
fn what_may_be_a_secret_is_repeated_nowhere() {
    let text = r#"params: {DEFAULT}
stages:
  rows: {op: data.load, with: {path: x, token: TOKEN}}
  call: {op: run.command, with: {command: [a], outputs: {f: files}, secrets: {K: "${secret.K}"}}}
"#;
    let refused = |(default, token): (&str, &str), overrides: &Overrides, said: &str| {
        let loaded = load_over(&text.replace("DEFAULT", default).replace("TOKEN", token), overrides);
        let shown = loaded.diagnostics.to_string();
        assert!(shown.contains(said), "{overrides:?}: {shown}");
        assert!(!shown.contains("plainsecret"), "{overrides:?}: {shown}");
        let excerpt = &loaded.diagnostics.source.text;
        assert!(!excerpt.contains("plainsecret"), "{overrides:?}: {excerpt}");
        shown
    };
    let named = ("a: 1", "\"${secret.A}\"");
    for (set, said) in [
        ("call.secrets={K: plainsecret}", "`--set call.secrets=***`: `secrets` takes the name of a secret"),
        ("call.secrets={K: \"${secret.K}\", L: plainsecret}", "`--set call.secrets=***`: `secrets` takes the name"),
        ("call.secrets={plainsecret}", "`--set call.secrets=***`: `secrets` takes the name of a secret"),
        ("call.secrets=[plainsecret]", "`--set call.secrets=***`: `secrets` takes the name of a secret"),
        ("call.secrets.K=plainsecret", "`--set call.secrets.K=***`: `secrets` takes the name of a secret"),
        ("rows.token=plainsecret", "`--set rows.token=***`: `token` takes the name of a secret"),
        ("rows.token=${secret.plainsecret-1}", "`--set rows.token`: what stands here cannot name a secret"),
        ("call.secrets.K.x=plainsecret", "`--set call.secrets.K.x`: there is nothing to set below text"),
        ("call.secret.K=plainsecret", "`--set call.secret.K`: `run.command` has no param `secret`"),
        ("cal.secrets.K=plainsecret", "`--set cal.secrets.K`: there is no stage `cal`"),
        ("rows@a=1.token=plainsecret", "`--set rows…`: one combination of `rows` cannot be set"),
        ("rows.token: plainsecret", "`--set rows.token` sets nothing"),
    ] {
        let shown = refused(named, &Overrides::from(&[set.to_owned()][..]), said);
        assert!(!shown.contains("-->"), "{set} stands in no file: {shown}");
    }
    for file in ["call.secrets.K: plainsecret", "call.secrets: {K: plainsecret}", "rows.token: plainsecret"] {
        let params_file = Some(SourceFile::new("over.yaml", file));
        let overrides = Overrides { params_file, ..Overrides::default() };
        let shown = refused(named, &overrides, "`--params-file over.yaml`: `");
        assert!(!shown.contains("-->"), "{shown}");
    }
    let given = Overrides::from(&["key=plainsecret".to_owned()][..]);
    refused(("key: a", "\"${params.key}\""), &given, "`--set key=***`: `token` takes the name of a secret");
    for pair in [
        ("a: 1", "plainsecret"),
        ("a: 1", "\"${secret.plainsecret-1}\""),
        ("key: plainsecret", "\"${params.key}\""),
        ("key: plainsecret", "\"plainsecret ${params.key}\""),
    ] {
        refused(pair, &Overrides::default(), "p.yaml:3:");
    }
}

/// Whatever form the mistake has: neither the messages nor the lines that they show hold a literal where the name of a
/// secret belongs.
#[test]
fn a_literal_in_place_of_a_secret_is_shown_in_no_form() {
    const CANARY: &str = "pl41nS3cret99";
    let text = |top: &str, stage: &str, with: &str| {
        format!(
            "{top}\nstages:\n  call:\n    op: run.command\n    {stage}\n    with:\n      command: [a]\n      outputs: {{f: files}}\n      {with}\n"
        )
        .replace("CANARY", CANARY)
    };
    let by_params = "secrets: {K: \"${params.k}\"}";
    for (top, stage, with, set) in [
        ("", "", "secrets: {K: plain1, L: CANARY}", ""),
        ("", "", "secrets: {K: \"${secret.K}\", L: CANARY}", ""),
        ("", "", "secrets: {K: CANARY, K: CANARY2}", ""),
        ("", "", "secrets: {K: a, K: CANARY}", ""),
        ("", "", "secrets: {K: [a, CANARY]}", ""),
        ("", "", "secrets: {K: {a: CANARY}}", ""),
        ("", "", "secrets: {K: \"${secret.K}CANARY\"}", ""),
        ("", "", "secrets: {K: \"CANARY ${secret.K}\"}", ""),
        ("", "", "secrets: {K: \"${secret.CANARY\"}", ""),
        ("", "", "secrets: {K: \"${CANARY}\"}", ""),
        ("", "", "secrets: {K: \"${secrets.CANARY}\"}", ""),
        ("", "", "secrets: {CANARY}", ""),
        ("", "", "secrets: CANARY", ""),
        ("", "", "secrets:\n        K: |\n          CANARY\n        L: CANARY", ""),
        ("", "", "secrts: {K: CANARY}", ""),
        ("", "", "secret: {K: CANARY, L: CANARY}", ""),
        ("", "", "secrets: {K: CANARY}, bogus: 1", ""),
        ("", "", "secrets: {K: !secret CANARY}", ""),
        ("", "", "secrets: {K: @CANARY}", ""),
        ("", "", "secrets:\n        K: @a\n        L: CANARY", ""),
        ("", "seeds: 1", "secrets: {K: CANARY}", ""),
        ("", "timeout: never", "secrets: {K: CANARY}", ""),
        ("", "matrix: {k: [CANARY, b]}", "secrets: {K: \"${matrix.k}\"}", ""),
        ("", "matrix: {k: [CANARY, CANARY]}", "secrets: {K: \"${matrix.k}\"}", ""),
        ("", "matrix: {k: [a], include: [{k: CANARY}]}", "secrets: {K: \"${matrix.k}\"}", ""),
        ("params: {k: b, j: [CANARY]}", "matrix: {k: \"${params.j}\"}", "secrets: {K: \"${matrix.k}\"}", ""),
        ("params: {k: CANARY, rank: 16}", "", by_params, ""),
        ("params: {k: a, k: CANARY}", "", by_params, ""),
        ("params: {h: a, k: CANARY, n: 1}", "", "secrets: {H: \"${params.h}\", K: \"${params.k}\"}", ""),
        ("params: {k: {default: CANARY, rang: [1, 2]}}", "", by_params, ""),
        ("params: {k: {K: CANARY}}", "", "secrets: \"${params.k}\"", ""),
        ("x-k: &k {K: CANARY}", "", "secrets: *k", ""),
        ("params: {k: a}\nprofiles: {gpu: {params: {k: CANARY, kk: 1}}}", "", by_params, ""),
        ("profiles: {gpu: {call: {with: {secrets: {K: CANARY}}}}}", "", "env: {}", ""),
        ("profiles: {gpu: {stages: {call: {with: {secrets: {K: a, L: CANARY}}}}}}", "", "env: {}", ""),
        ("params: {k: 1}", "", by_params, "k=CANARY"),
        ("params: {k: [a]}", "", by_params, "k=CANARY"),
        ("params: {k: a}", "", by_params, "k=CANARY"),
        ("params: {k: 1}", "", "env: {}", "call.secrets.K=${params.k}CANARY"),
        ("", "", "env: {}", "call.secrets.K=${CANARY}"),
        ("", "", "env: {}", "call.secrets={K: a, L: CANARY}"),
        ("", "", "env: {}", "call.secrts={K: CANARY}"),
    ] {
        let text = text(top, stage, with);
        let set = set.replace("CANARY", CANARY);
        let overrides = Overrides::from(&Some(set).filter(|set| !set.is_empty()).into_iter().collect::<Vec<_>>()[..]);
        let found = load_with_profiles(SourceFile::new("p.yaml", text.as_str()), &overrides, &registry()).diagnostics;
        let json = serde_json::to_string(&found).unwrap();
        assert!(!found.is_empty(), "{text}");
        for shown in [found.to_string(), json, found.source.text.clone()] {
            let shown = shown.to_lowercase(); // a label of a matrix is
            assert!(!shown.contains(&CANARY.to_lowercase()), "{text}\n{:?}\n{shown}", overrides.set);
        }
    }
}

#[test]
fn what_names_a_secret_and_what_is_none_stays_readable() {
    let text = "params: {hub: plainsecret, rank: 16}\nstages:\n  call: {op: run.command, with: {command: [a], outputs: {f: files}, secrets: {K: \"${secret.K}\", L: b, M: \"${params.hub}\"}}}\n";
    let found = load(text, &[]).diagnostics;
    let shown = text.replace("plainsecret", "***********").replace("L: b", "L: *");
    assert_eq!(found.source.text, shown, "{found}");
    let matrix = "stages: {call: {op: run.command, matrix: {k: [a, b]}, with: {command: [a], outputs: {f: files}, secrets: {K: \"${matrix.k}\"}}}}";
    assert_eq!(load(matrix, &[]).diagnostics.source.text, matrix.replace("[a, b]", "[*, *]"));
}

#[test]
fn no_help_drops_a_reference() {
    let text = "params: {n: 3}\nstages: {rows: {op: data.load, with: {path: x}}, one: {op: data.dedup, in: rows, seed: \"${params.n}0\", with: {num_perm: \"${params.n}0\"}}}";
    let found = load(text, &[]).diagnostics;
    assert_eq!(found.len(), 2, "{found}");
    assert!(!found.to_string().contains("without quotes"), "{found}");
}

#[test]
fn a_list_that_was_set_has_the_place_of_its_reference() {
    let text = "params: {on: [lost]}\nstages: {rows: {op: data.load, with: {path: x}, retry: {on: \"${params.on}\"}}}";
    let found = load(text, &["on=[lost, input]"]).diagnostics;
    let places: Vec<_> = found.iter().map(|found| found.span.map(|span| &text[span.start..span.end])).collect();
    assert_eq!(places, [Some("\"${params.on}\"")], "{found}");
}
