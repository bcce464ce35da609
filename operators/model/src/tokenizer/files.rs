//! `tokenizer.json` and `tokenizer_config.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::{Special, TextTokenizer};
use crate::{
    Result,
    weights::folder::{read_json, read_text, write_json, write_text},
};

impl TextTokenizer {
    /// Reads `tokenizer.json`, and beside it `tokenizer_config.json` and `chat_template.jinja` where they are.
    ///
    /// # Errors
    /// [`crate::ModelError`]: a missing or malformed file.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let json = read_json(&folder.join("tokenizer.json"))?;
        let path = folder.join("tokenizer_config.json");
        let config = if path.exists() { read_json(&path)? } else { Value::Null };
        let token = |name: &str| {
            let value = &config[name];
            value.as_str().or(value["content"].as_str()).map(str::to_owned)
        };
        let special = Special {
            bos: token("bos_token"),
            eos: token("eos_token"),
            unknown: token("unk_token"),
            padding: token("pad_token"),
        };
        let path = folder.join("chat_template.jinja");
        let template = match &config["chat_template"] {
            _ if path.exists() => Some(read_text(&path)?),
            Value::Array(named) => named
                .iter()
                .find(|one| one["name"] == "default")
                .and_then(|one| one["template"].as_str())
                .map(str::to_owned),
            one => one.as_str().map(str::to_owned),
        };
        Self::from_json(json, special, template)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, the chat template in the latter.
    ///
    /// # Errors
    /// [`crate::ModelError::Io`].
    pub fn save_folder(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(crate::ModelError::io("creating", folder))?;
        write_text(&folder.join("tokenizer.json"), &format!("{:#}\n", self.json()))?;
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "add_bos_token": false,
        });
        let special = self.special();
        for (name, token) in [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("unk_token", &special.unknown),
            ("pad_token", &special.padding),
        ] {
            if let Some(token) = token {
                config[name] = json!(token);
            }
        }
        if let Some(template) = self.template() {
            config["chat_template"] = json!(template);
        }
        write_json(&folder.join("tokenizer_config.json"), &config)
    }
}
