//! The tokenizer inside a GGUF file, both ways. Byte-level BPE (`gpt2`) alone.

use serde_json::{Value as Json, json};

use super::{Special, TextTokenizer};
use crate::{
    Config, ModelError, Result,
    weights::gguf::{GgufFile, Value},
};

/// Token types of GGUF.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl TextTokenizer {
    /// Builds the tokenizer that a file's metadata describes.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for another model than `gpt2` or an unknown pre-tokenizer; [`ModelError::Malformed`].
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let unsupported = |what, found: &str, known: &str| ModelError::Unsupported {
            path: file.path().to_owned(),
            what,
            found: found.to_owned(),
            known: known.to_owned(),
        };
        let model = file.text("tokenizer.ggml.model").unwrap_or_default();
        if model != "gpt2" {
            return Err(unsupported("tokenizer model", model, "gpt2"));
        }
        let pre = file.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
        let pre_tokenizer = pre_tokenizer(pre).ok_or_else(|| unsupported("pre-tokenizer", pre, "smollm, gpt-2"))?;
        let tokens = texts(file, "tokenizer.ggml.tokens")?;
        let merges = texts(file, "tokenizer.ggml.merges")?
            .iter()
            .map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right])))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| ModelError::malformed(file.path(), "a merge is no pair of tokens"))?;
        let types = file.find("tokenizer.ggml.token_type").and_then(Value::as_list).unwrap_or_default();
        let added: Vec<Json> = types
            .iter()
            .zip(&tokens)
            .enumerate()
            .filter_map(|(id, (kind, token))| match kind.as_u64()? as i32 {
                CONTROL => Some(added_token(id, token, true)),
                USER_DEFINED => Some(added_token(id, token, false)),
                _ => None,
            })
            .collect();
        let mut vocab = serde_json::Map::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if vocab.insert((*token).to_owned(), json!(id)).is_some() {
                return Err(ModelError::malformed(file.path(), format!("token `{token}` occurs twice")));
            }
        }
        let named = |name: &str| {
            let id = file.integer(&format!("tokenizer.ggml.{name}_token_id")).ok()?;
            tokens.get(usize::try_from(id).ok()?).map(|token| (*token).to_owned())
        };
        let special =
            Special { bos: named("bos"), eos: named("eos"), unknown: named("unknown"), padding: named("padding") };
        let template = file.text("tokenizer.chat_template").map(str::to_owned);
        Self::from_json(bpe_json(vocab, merges, added, pre_tokenizer), special, template)
    }

    /// The metadata that makes llama.cpp tokenize as this tokenizer does; ids above its own are padded to the model's.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if it is no byte-level BPE with a known pre-tokenizer.
    pub(crate) fn to_gguf(&self, config: &Config) -> Result<Vec<(String, Value)>> {
        let json = self.json();
        let pre =
            ["smollm", "gpt-2"].into_iter().find(|name| pre_tokenizer(name).as_ref() == Some(&json["pre_tokenizer"]));
        let (Some(pre), "BPE") = (pre, json["model"]["type"].as_str().unwrap_or_default()) else {
            return Err(ModelError::Tokenizer("only byte-level BPE with a known pre-tokenizer goes into GGUF".into()));
        };
        let vocab = self.vocab();
        let added = self.library().get_added_tokens_decoder();
        let (mut tokens, mut types) = (Vec::new(), Vec::new());
        for id in 0..config.vocab as u32 {
            tokens.push(vocab.get(&id).cloned().unwrap_or_else(|| format!("[PAD{id}]")));
            types.push(match added.get(&id) {
                Some(token) if token.special => CONTROL,
                Some(_) => USER_DEFINED,
                None if vocab.contains_key(&id) => NORMAL,
                None => 5, // unused
            });
        }
        let merges = json["model"]["merges"].as_array().into_iter().flatten().filter_map(|merge| match merge {
            Json::String(merge) => Some(merge.clone()),
            pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
        });
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let mut entries = vec![
            (key("model"), Value::Text("gpt2".into())),
            (key("pre"), Value::Text(pre.into())),
            (key("tokens"), Value::texts(tokens)),
            (key("token_type"), Value::integers(types)),
            (key("merges"), Value::texts(merges)),
            (key("add_bos_token"), Value::Bool(false)),
            (key("add_space_prefix"), Value::Bool(false)),
        ];
        let special = self.special();
        for (name, token) in
            [("bos", &special.bos), ("eos", &special.eos), ("unknown", &special.unknown), ("padding", &special.padding)]
        {
            if let Some(id) = token.as_deref().and_then(|token| self.find_id(token)) {
                entries.push((key(&format!("{name}_token_id")), Value::U32(id)));
            }
        }
        if let Some(template) = self.template() {
            entries.push(("tokenizer.chat_template".into(), Value::Text(template.to_owned())));
        }
        Ok(entries)
    }
}

/// How text is cut before merging, by GGUF's name.
pub(super) fn pre_tokenizer(name: &str) -> Option<Json> {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    match name {
        "gpt-2" => Some(byte_level),
        "smollm" => Some(json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level],
        })),
        _ => None,
    }
}

pub(super) fn added_token(id: usize, token: &str, special: bool) -> Json {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}

fn bpe_json(vocab: serde_json::Map<String, Json>, merges: Vec<Json>, added: Vec<Json>, pre_tokenizer: Json) -> Json {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

fn texts<'a>(file: &'a GgufFile, key: &str) -> Result<Vec<&'a str>> {
    file.find(key)
        .and_then(Value::as_list)
        .and_then(|items| items.iter().map(Value::as_text).collect())
        .ok_or_else(|| ModelError::malformed(file.path(), format!("it has no list of texts `{key}`")))
}
