//! Text to tokens and back, and conversations to text.
//!
//! Owns: [`TextTokenizer`], chat templates, loss masks, BPE training.
//! Must not know: tensors, datasets.

mod chat;
mod files;
mod from_gguf;
mod stream;
mod template;
mod train;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use tokenizers::Tokenizer;

pub use chat::{ChatMessage, Encoded};
pub use stream::TextStream;
pub use train::{CHATML, train_bpe};

use crate::{ModelError, Result};

/// A tokenizer with its special tokens and chat template. Cheap to clone.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Tokenizer,
    /// `tokenizer.json`, as read or made.
    json: Value,
    special: Special,
    template: Option<String>,
}

/// Tokens with a part to play, by text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Special {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unknown: Option<String>,
    pub padding: Option<String>,
}

impl TextTokenizer {
    /// From the content of a `tokenizer.json`, its special tokens and its chat template.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the library refuses the JSON; [`ModelError::Template`] if the template does not parse.
    pub fn from_json(json: Value, special: Special, template: Option<String>) -> Result<Self> {
        let tokenizer: Tokenizer = json.to_string().parse().map_err(refused)?;
        if let Some(template) = &template {
            template::check(template)?;
        }
        Ok(Self { inner: Arc::new(Inner { tokenizer, json, special, template }) })
    }

    /// The ids of a text; `add_special` adds what the tokenizer puts round every text, if anything.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Ok(self.inner.tokenizer.encode(text, add_special).map_err(refused)?.get_ids().to_vec())
    }
    /// The text of ids; bytes that are no UTF-8 become U+FFFD; unknown ids are left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.tokenizer.decode(ids, skip_special).map_err(refused)
    }
    /// A decoder that takes one id at a time and gives whole characters only.
    pub fn stream(&self) -> TextStream {
        TextStream::new(self.clone())
    }
    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokenizer.get_vocab_size(true)
    }
    /// Every token by id.
    pub fn vocab(&self) -> BTreeMap<u32, String> {
        self.inner.tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect()
    }
    pub fn find_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }
    pub fn find_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }
    /// Id of the token that opens a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.find_id(self.inner.special.bos.as_deref()?)
    }
    /// Ids that end a sequence or a turn: the declared one, and ChatML's and GPT-2's where they are special tokens.
    pub fn eos_ids(&self) -> Vec<u32> {
        let added = self.inner.tokenizer.get_added_tokens_decoder();
        let mut ids: Vec<u32> = self.inner.special.eos.iter().filter_map(|token| self.find_id(token)).collect();
        for token in ["<|im_end|>", "<|endoftext|>", "<|eot_id|>"] {
            if let Some(id) =
                self.find_id(token).filter(|id| added.get(id).is_some_and(|token| token.special) && !ids.contains(id))
            {
                ids.push(id);
            }
        }
        ids
    }
    pub fn special(&self) -> &Special {
        &self.inner.special
    }
    /// The chat template's source.
    pub fn template(&self) -> Option<&str> {
        self.inner.template.as_deref()
    }
    /// The content of `tokenizer.json`.
    pub fn json(&self) -> &Value {
        &self.inner.json
    }
    fn library(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("vocab", &self.vocab_size())
            .field("special", &self.inner.special)
            .finish()
    }
}

/// An error of the tokenizer library.
fn refused(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests;
