//! Conversations as tokens, and which of them are to be learned.

use super::{TextTokenizer, refused, template};
use crate::{ModelError, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Tokens, and which of them are to be learned; both of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub loss_mask: Vec<bool>,
}

impl TextTokenizer {
    /// The conversation as the model was trained to read it.
    ///
    /// # Errors
    /// [`ModelError::Template`] if there is no template, or it refuses the messages.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        let template = self.template().ok_or_else(|| ModelError::Template("the tokenizer has none".into()))?;
        template::render(template, messages, add_generation_prompt, self.special())
    }

    /// The tokens of a rendered conversation. The template writes every special token; none is added.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn encode_chat(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<Vec<u32>> {
        self.encode(&self.render(messages, add_generation_prompt)?, false)
    }

    /// The tokens of a whole conversation, with a mask over what the assistant says and the token that ends its turn.
    ///
    /// Spans come from rendering: an answer is what the template adds to the conversation before it with its generation
    /// prompt. A template that does not grow turn by turn is refused, for its mask would be a guess.
    ///
    /// # Errors
    /// [`ModelError::Template`].
    pub fn encode_for_training(&self, messages: &[ChatMessage]) -> Result<Encoded> {
        let whole = self.render(messages, false)?;
        let encoding = self.library().encode(whole.as_str(), false).map_err(refused)?;
        let (ids, offsets) = (encoding.get_ids().to_vec(), encoding.get_offsets());
        let eos = self.eos_ids();
        let mut loss_mask = vec![false; ids.len()];
        for (index, message) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let before = self.render(&messages[..index], true)?;
            let after = self.render(&messages[..=index], false)?;
            if !after.starts_with(&before) || !whole.starts_with(&after) {
                return Err(ModelError::Template(
                    "it does not grow turn by turn, so answers cannot be told from prompts".into(),
                ));
            }
            let inside: Vec<usize> = (0..ids.len())
                .filter(|token| offsets[*token].0 >= before.len() && offsets[*token].1 <= after.len())
                .collect();
            let content_end = before.len() + message.content.trim_end().len();
            let end = inside.iter().position(|token| offsets[*token].0 >= content_end && eos.contains(&ids[*token]));
            let learned = end.map_or(inside.as_slice(), |end| &inside[..=end]);
            learned.iter().for_each(|token| loss_mask[*token] = true);
        }
        Ok(Encoded { ids, loss_mask })
    }
}
