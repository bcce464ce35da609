//! Training a byte-level BPE.

use serde_json::{Value, json};
use tokenizers::{
    AddedToken, Tokenizer,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainerBuilder},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

use super::{Special, TextTokenizer, from_gguf::pre_tokenizer, refused};
use crate::{ModelError, Result};

/// The chat template of a new tokenizer: ChatML, without a default system line.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                          '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                          {% endif %}";

/// Special tokens of a new tokenizer; their ids are their places.
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Trains a byte-level BPE (digits one by one) with ChatML's special tokens; ties are broken by id, so equal texts in equal
/// order give equal bytes.
///
/// # Errors
/// [`ModelError::Invalid`] if `vocab_size` has no room for the bytes and special tokens; [`ModelError::Tokenizer`].
pub fn train_bpe<I, S>(texts: I, vocab_size: usize, min_frequency: u64) -> Result<TextTokenizer>
where
    I: Iterator<Item = S> + Send,
    S: AsRef<str> + Send,
{
    let least = 256 + SPECIAL.len();
    if vocab_size < least {
        return Err(ModelError::Invalid(format!(
            "a vocabulary of {vocab_size} has no room for 256 bytes and {} special tokens",
            SPECIAL.len()
        )));
    }
    let shell = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer("smollm"),
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": serde_json::to_value(BPE::default()).map_err(|error| ModelError::Tokenizer(error.to_string()))?,
    });
    let mut tokenizer: Tokenizer = shell.to_string().parse().map_err(refused)?;
    let trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(min_frequency)
        .special_tokens(SPECIAL.iter().map(|token| AddedToken::from(*token, true)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    tokenizer.train(&mut trainer, texts).map_err(refused)?;
    let text = tokenizer.to_string(false).map_err(refused)?;
    let json: Value = serde_json::from_str(&text).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
    let token = |index: usize| Some(SPECIAL[index].to_owned());
    let special = Special { bos: token(1), eos: token(2), unknown: token(0), padding: token(2) };
    TextTokenizer::from_json(json, special, Some(CHATML.to_owned()))
}
