//! What is known of a model, a tokenizer or a report from its files: read, and judged on the way.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufReader,
    path::{Component, Path, PathBuf},
};

use llmflow_contract::{Digest, Facts, Report};
use llmflow_model::TextTokenizer;
use serde_json::Value;

use super::safetensors::parameters_of;

/// Bytes of a JSON file that is read whole.
const JSON_BYTES: u64 = 256 << 20;
/// How the file ends that says which tensor lies in which file.
const INDEX: &str = ".safetensors.index.json";

/// The facts of a folder of safetensors, whatever its architecture: from its config and the headers of its weights.
///
/// # Errors
/// What it lacks, or what is wrong with a file of it.
pub(super) fn model_facts(folder: &Path, config: &str) -> Result<Facts, String> {
    let config = read_json(&folder.join(config))?;
    if !config.is_object() {
        return Err("its config is no JSON object".into());
    }
    let mut files: BTreeSet<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error| error.to_string())?;
    let indexes: Vec<PathBuf> = files.iter().filter(|path| is_index(path)).cloned().collect();
    for index in indexes {
        files.extend(shards(folder, &index)?);
    }
    let weights = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    let inside = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let parameters = weights.map(|path| parameters_of(path).map_err(|why| format!("`{}` {why}", inside(path))));
    let parameters = parameters.collect::<Result<Vec<u64>, _>>()?;
    if parameters.is_empty() {
        return Err("it has no `.safetensors` file".into());
    }
    let tokenizer = if folder.join("tokenizer.json").exists() { tokenizer_facts(folder)? } else { Facts::default() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Facts {
        architecture: text(&config["architectures"][0]),
        parameters: Some(parameters.into_iter().fold(0, u64::saturating_add)),
        vocab: config["vocab_size"].as_u64(),
        context: config["max_position_embeddings"].as_u64(),
        dtype: text(&config["dtype"]).or_else(|| text(&config["torch_dtype"])),
        ..tokenizer
    })
}

/// # Errors
/// Why there is no tokenizer in the folder.
pub(super) fn tokenizer_facts(folder: &Path) -> Result<Facts, String> {
    let tokenizer = TextTokenizer::from_folder(folder).map_err(|error| error.to_string())?;
    Ok(Facts {
        tokenizer: Some(Digest::of_json(tokenizer.json())),
        chat_template: tokenizer.template().map(|template| Digest::of(template.as_bytes())),
        vocab: Some(tokenizer.vocab_size() as u64),
        ..Facts::default()
    })
}

/// # Errors
/// Why the file is no [`Report`].
pub(super) fn report_facts(path: &Path) -> Result<Facts, String> {
    let json = read_json(path)?;
    if !json.is_object() {
        return Err("it is no JSON object".into());
    }
    serde_json::from_value::<Report>(json).map(|_| Facts::default()).map_err(|error| error.to_string())
}

/// Is it an index that counts? Where all weights lie in one file too, transformers reads that and no index.
fn is_index(path: &Path) -> bool {
    let name = name_of(path);
    name.strip_suffix(INDEX).is_some_and(|stem| !path.with_file_name(format!("{stem}.safetensors")).is_file())
}

/// The files that an index names, each in the folder or below it.
fn shards(folder: &Path, index: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let (name, json) = (name_of(index), read_json(index)?);
    let map = json["weight_map"].as_object().ok_or_else(|| format!("`{name}` has no `weight_map`"))?;
    let shard = |(tensor, shard): (&String, &Value)| {
        let shard = shard.as_str().ok_or_else(|| format!("`{name}` names no file for `{tensor}`"))?;
        let mut parts = Path::new(shard).components();
        if shard.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("`{name}` names `{shard}`, which is no path of a file below its folder"));
        }
        let path = folder.join(shard);
        match path.is_file() {
            true => Ok(path),
            false => Err(format!("it has no `{shard}`, which `{name}` names")),
        }
    };
    map.iter().map(shard).collect()
}

fn read_json(path: &Path) -> Result<Value, String> {
    let name = name_of(path);
    let size_bytes = fs::metadata(path).map_err(|_| format!("it has no `{name}`"))?.len();
    if size_bytes > JSON_BYTES {
        return Err(format!("`{name}` has {size_bytes} bytes, more than {JSON_BYTES}"));
    }
    let file = File::open(path).map_err(|error| format!("`{name}`: {error}"))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| format!("`{name}` is no JSON: {error}"))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_file_that_an_index_names_must_lie_beside_or_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let empty = b"\x02\0\0\0\0\0\0\0{}"; // a header without tensors
        write("config.json", b"{}");
        write("model-1.safetensors", empty);
        let judge = |index: Value| {
            write("model.safetensors.index.json", index.to_string().as_bytes());
            model_facts(folder.path(), "config.json").map(|_| ())
        };
        let names = |names: [&str; 2]| json!({"weight_map": {"a": names[0], "b": names[1]}});
        let both = names(["model-1.safetensors", "model-2.safetensors"]);
        let lacking = "it has no `model-2.safetensors`, which `model.safetensors.index.json` names";
        assert_eq!(judge(both.clone()).unwrap_err(), lacking);
        for outside in ["../config.json", "/etc/passwd", "..", "a/../../config.json", ""] {
            let why = judge(names(["model-1.safetensors", outside])).unwrap_err();
            assert!(why.contains("no path of a file below its folder"), "{outside}: {why}");
        }
        for absent in ["a/b", "model-1.safetensors/", "."] {
            let why = judge(names(["model-1.safetensors", absent])).unwrap_err();
            assert!(why.starts_with(&format!("it has no `{absent}`")), "{absent}: {why}");
        }
        assert!(judge(json!({})).unwrap_err().contains("has no `weight_map`"));
        write("model-2.safetensors", empty);
        assert_eq!(judge(both), Ok(()));
    }

    #[test]
    fn shards_in_a_folder_of_the_models_are_judged_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let shard = |name: &str| {
            let header = json!({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).to_string();
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
        };
        fs::create_dir(folder.path().join("shards")).unwrap();
        write("config.json", b"{}");
        write("1.safetensors", &shard("a"));
        write("shards/2.safetensors", &shard("b"));
        let map = json!({"a": "./1.safetensors", "b": "shards/2.safetensors", "c": "shards/2.safetensors"});
        write("model.safetensors.index.json", json!({"weight_map": map}).to_string().as_bytes());
        assert_eq!(model_facts(folder.path(), "config.json").unwrap().parameters, Some(4));
        write("shards/2.safetensors", b"");
        assert_eq!(model_facts(folder.path(), "config.json").unwrap_err(), "`shards/2.safetensors` is cut short");
    }

    #[test]
    fn an_index_beside_the_whole_file_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let empty = b"\x02\0\0\0\0\0\0\0{}"; // a header without tensors
        write("config.json", b"{}");
        write("model.safetensors.index.json", br#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#);
        write("adapter.safetensors", empty);
        let judged = || model_facts(folder.path(), "config.json").map(|_| ());
        assert!(judged().unwrap_err().starts_with("it has no `model-00001-of-00002.safetensors`"));
        write("model.safetensors", empty);
        assert_eq!(judged(), Ok(()));
    }
}
