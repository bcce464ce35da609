//! How an artifact lies outside the store: as one file, or as a folder.

use std::path::Path;

use llmflow_contract::Manifest;
use llmflow_dataset::RowFile;

/// Kinds that are folders, however many files one of them happens to have.
const FOLDERS: [&str; 4] = ["model", "adapter", "tokenizer", "files"];

/// Does it lie at `path` as one file, and not as a folder?
///
/// Rows do where the ending names a form, and so does what is one file by its kind. Of a kind that is a folder only what has
/// one file, at a path with the ending of that. What ends with `/`, or is a folder already, stays one.
pub fn is_one_file(manifest: &Manifest, path: &Path) -> bool {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir() {
        return false;
    }
    if manifest.kind.is_dataset() {
        return RowFile::of(&manifest.kind, path).is_some();
    }
    let [file] = manifest.files.as_slice() else { return false };
    let ending = path.extension();
    !FOLDERS.contains(&manifest.kind.as_str()) || ending.is_some() && ending == Path::new(&file.path).extension()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llmflow_contract::{Digest, Facts, FileEntry, Kind};

    use super::*;

    #[test]
    fn kind_and_path_decide_and_not_how_many_files_there_happen_to_be() {
        let is_one = |kind: &str, files: &[&str], path: &str| {
            let files = files.iter().map(|file| FileEntry::new(*file, Digest::of(b""), 0)).collect();
            let manifest = Manifest {
                kind: Kind::new(kind.to_owned()),
                files,
                facts: Facts::default(),
                references: BTreeMap::new(),
            };
            is_one_file(&manifest, Path::new(path))
        };
        for (kind, files, path, expected) in [
            ("files", &["a.txt"][..], "out/x", false),
            ("files", &["a.txt", "b.txt"], "out/x", false),
            ("files", &["a.txt"], "out/mine.txt", true),
            ("files", &["a"], "out/x", false),
            ("tokenizer", &["tokenizer.json"], "out/x", false),
            ("gguf", &["model.gguf"], "out/x", true),
            ("gguf", &["model.gguf"], "out/x/", false),
            ("gguf", &["model.gguf"], "/", false),
            ("dataset/text", &["part-00000.parquet"], "out/x", false),
            ("dataset/text", &["part-00000.parquet", "part-00001.parquet"], "out/x.jsonl", true),
        ] {
            assert_eq!(is_one(kind, files, path), expected, "{kind} of {files:?} at {path}");
        }
    }
}
