//! Each file of `tests/pipelines/invalid` is wrong in the way its name says; its snapshot lies beside it.

use std::path::Path;

use super::load;

#[test]
fn each_invalid_pipeline_says_what_is_wrong() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pipelines/invalid");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 30, "{} files", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _guard = settings.bind_to_scope();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let diagnostics = load(&std::fs::read_to_string(&file).unwrap(), &[]).diagnostics;
        assert!(!diagnostics.is_empty(), "{name} is valid");
        for diagnostic in diagnostics.iter() {
            assert!(diagnostic.help.is_some(), "{name}: {} says not what to do", diagnostic.message);
            let is_in_the_file = diagnostic.span.is_some() || diagnostic.code == "pipeline/no-stages";
            assert!(is_in_the_file, "{name}: {} says not where", diagnostic.message);
        }
        let shown = diagnostics.to_string();
        insta::assert_snapshot!(name, shown);
    }
}
