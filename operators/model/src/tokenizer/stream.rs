//! Decoding one token at a time.

use super::TextTokenizer;
use crate::Result;

/// Gives the text of tokens as they come, never half a character.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: TextTokenizer,
    /// The tokens of the current character run, after `shown` of which the text is out.
    ids: Vec<u32>,
    shown: usize,
}

impl TextStream {
    pub(super) fn new(tokenizer: TextTokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), shown: 0 }
    }
    /// The text that this token completes; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        self.next(false)
    }
    /// The text still held back: an incomplete character as U+FFFD.
    pub fn finish(&mut self) -> Result<String> {
        self.next(true)
    }
    fn next(&mut self, all: bool) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.shown], true)?;
        let now = self.tokenizer.decode(&self.ids, true)?;
        if !all && now.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        let fresh = now.strip_prefix(before.as_str()).unwrap_or_default().to_owned();
        self.ids.drain(..self.shown); // the last shown run stays: a decoder may join it with the next token
        self.shown = self.ids.len();
        Ok(fresh)
    }
}
