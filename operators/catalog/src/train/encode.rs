//! Rows to tokens and masks: what is read, and what is learned.

use llmflow_contract::Failure;
use llmflow_dataset::{Content, Message, Preference, Row};
use llmflow_model::{
    TextTokenizer,
    training::{Contrast, Example},
};

use super::gather::Read;
use crate::{language_model::failure, synth::speaker::with_system};

/// Turns rows into examples.
#[derive(Clone, Debug)]
pub(crate) struct Encoder<'a> {
    pub tokenizer: &'a TextTokenizer,
    /// Goes before turns that bring no system line.
    pub system: Option<&'a str>,
    /// Longest sequence, in tokens.
    pub max_length: usize,
    /// Of chats, learn only what the assistant says and the token that ends its turn.
    pub answers_only: bool,
}

const NO_ANSWER: &str = "no_answer";
const TOO_LONG: &str = "too_long";
const SAME_ANSWER: &str = "same_answer";

impl Encoder<'_> {
    /// A chat, a prompt with its answer, or a document (learned whole, with the token that ends it).
    ///
    /// # Errors
    /// `train/kind` for rows that teach something else; those of the template.
    pub fn example(&self, row: &Row) -> Result<Read<Example>, Failure> {
        match &row.content {
            Content::Chat(chat) => self.chat(&chat.messages),
            Content::Prompt(prompt) => {
                let Some(answer) = &prompt.answer else { return Ok(Read::Dropped(NO_ANSWER)) };
                let mut turns = prompt.prompt.clone();
                turns.push(Message::assistant(answer));
                self.chat(&turns)
            }
            Content::Text(text) => Ok(self.fit(self.document(text)?)),
            other => Err(Failure::input("train/kind", format!("row {} is {}", row.id, other.kind()))
                .help("pairs are learned by `op: align.preference`")),
        }
    }

    /// Both answers of a pair after their prompt; only the answers are learned from.
    ///
    /// # Errors
    /// A bug for rows of another kind; those of the template.
    pub fn contrast(&self, row: &Row) -> Result<Read<Contrast>, Failure> {
        let pair = row.as_preference()?;
        if pair.chosen == pair.rejected {
            return Ok(Read::Dropped(SAME_ANSWER));
        }
        let sides = [self.side(pair, &pair.chosen)?, self.side(pair, &pair.rejected)?];
        if sides.iter().any(|side| side.supervised() == 0) {
            return Ok(Read::Dropped(NO_ANSWER));
        }
        let [chosen, rejected] = sides.map(|side| self.fit(side));
        let was_cut = matches!(chosen, Read::Cut(_)) || matches!(rejected, Read::Cut(_));
        let (Read::Whole(chosen) | Read::Cut(chosen), Read::Whole(rejected) | Read::Cut(rejected)) = (chosen, rejected)
        else {
            return Ok(Read::Dropped(TOO_LONG));
        };
        let contrast = Contrast { chosen, rejected };
        Ok(if was_cut { Read::Cut(contrast) } else { Read::Whole(contrast) })
    }

    /// The tokens of a text and the one that ends it, all learned.
    pub fn document(&self, text: &str) -> Result<Example, Failure> {
        let mut ids = self.tokenizer.encode(text, false).map_err(failure)?;
        ids.extend(end_of_text(self.tokenizer));
        Ok(Example { loss_mask: vec![true; ids.len()], ids })
    }

    fn chat(&self, turns: &[Message]) -> Result<Read<Example>, Failure> {
        let encoded = self.tokenizer.encode_for_training(&with_system(self.system, turns)).map_err(failure)?;
        let loss_mask = if self.answers_only { encoded.loss_mask } else { vec![true; encoded.ids.len()] };
        let example = Example { ids: encoded.ids, loss_mask };
        Ok(if example.supervised() == 0 { Read::Dropped(NO_ANSWER) } else { self.fit(example) })
    }

    /// The answer begins where the tokens leave those of the prompt with its generation prompt: turns of the assistant
    /// before that are not learned from.
    fn side(&self, pair: &Preference, answer: &[Message]) -> Result<Example, Failure> {
        let turns: Vec<Message> = pair.prompt.iter().chain(answer).cloned().collect();
        let encoded = self.tokenizer.encode_for_training(&with_system(self.system, &turns)).map_err(failure)?;
        let prompt = self.tokenizer.encode_chat(&with_system(self.system, &pair.prompt), true).map_err(failure)?;
        let from = prompt.iter().zip(&encoded.ids).take_while(|(one, other)| one == other).count();
        let mut loss_mask = encoded.loss_mask;
        loss_mask[..from].fill(false);
        Ok(Example { ids: encoded.ids, loss_mask })
    }

    /// Cut at the longest sequence.
    fn fit(&self, mut example: Example) -> Read<Example> {
        let is_whole = example.ids.len() <= self.max_length;
        example.ids.truncate(self.max_length);
        example.loss_mask.truncate(self.max_length);
        match (example.supervised() > 0, is_whole) {
            (false, true) => Read::Dropped(NO_ANSWER),
            (false, false) => Read::Dropped(TOO_LONG),
            (true, true) => Read::Whole(example),
            (true, false) => Read::Cut(example),
        }
    }
}

/// The token between documents: GPT-2's where the tokenizer has it, else the one that ends a turn.
pub(crate) fn end_of_text(tokenizer: &TextTokenizer) -> Option<u32> {
    tokenizer.find_id("<|endoftext|>").or(tokenizer.eos_ids().first().copied())
}

#[cfg(test)]
mod tests {
    use llmflow_dataset::{Chat, Meta, Prompt};
    use llmflow_model::tokenizer::train_bpe;

    use super::*;

    fn tokenizer() -> TextTokenizer {
        train_bpe(["one two three"; 3].into_iter(), 270, 1).unwrap()
    }
    fn encoder(tokenizer: &TextTokenizer) -> Encoder<'_> {
        Encoder { tokenizer, system: Some(""), max_length: 200, answers_only: true }
    }
    fn row(content: Content) -> Row {
        Row::new(content, Meta::new())
    }
    fn learned(encoder: &Encoder, example: &Example) -> String {
        let learned = example.ids.iter().zip(&example.loss_mask).filter(|(_, learned)| **learned);
        encoder.tokenizer.decode(&learned.map(|(id, _)| *id).collect::<Vec<_>>(), false).unwrap()
    }
    fn chat(turns: &[Message]) -> Row {
        row(Content::Chat(Chat { messages: turns.to_vec(), tools: None }))
    }

    #[test]
    fn every_answer_of_a_chat_is_learned_with_its_end_and_nothing_else() {
        let tokenizer = tokenizer();
        let encoder = encoder(&tokenizer);
        let turns =
            [Message::user("one"), Message::assistant("two"), Message::user("one"), Message::assistant("three")];
        let Read::Whole(example) = encoder.example(&chat(&turns)).unwrap() else { panic!("it fits") };
        assert_eq!(learned(&encoder, &example), "two<|im_end|>three<|im_end|>");
        let prompt = Prompt { prompt: vec![Message::user("one")], answer: Some("two".into()) };
        let Read::Whole(example) = encoder.example(&row(Content::Prompt(prompt))).unwrap() else { panic!("it fits") };
        assert_eq!(learned(&encoder, &example), "two<|im_end|>");
        let Read::Whole(example) = encoder.example(&row(Content::Text("one two".into()))).unwrap() else {
            panic!("it fits")
        };
        assert_eq!(learned(&encoder, &example), "one two<|endoftext|>");
    }

    #[test]
    fn a_row_without_an_answer_and_one_whose_answer_lies_beyond_the_end_are_dropped_by_name() {
        let tokenizer = tokenizer();
        let encoder = encoder(&tokenizer);
        assert_eq!(encoder.example(&chat(&[Message::user("one")])).unwrap(), Read::Dropped(NO_ANSWER));
        let turns = chat(&[Message::user("one two three"), Message::assistant("one two three one two three")]);
        let Read::Whole(whole) = encoder.example(&turns).unwrap() else { panic!("it fits") };
        let first = whole.loss_mask.iter().position(|learned| *learned).unwrap();
        let short = |max_length| Encoder { max_length, ..encoder.clone() };
        assert_eq!(short(first).example(&turns).unwrap(), Read::Dropped(TOO_LONG));
        let Read::Cut(cut) = short(first + 1).example(&turns).unwrap() else { panic!("it is cut") };
        assert_eq!((cut.tokens(), cut.supervised()), (first + 1, 1));
    }

    #[test]
    fn of_a_pair_only_the_last_answers_are_learned_from() {
        let tokenizer = tokenizer();
        let encoder = encoder(&tokenizer);
        let pair = |rejected: &str| {
            row(Content::Preference(Preference {
                prompt: vec![Message::user("one"), Message::assistant("two"), Message::user("one")],
                chosen: vec![Message::assistant("three")],
                rejected: vec![Message::assistant(rejected)],
                margin: None,
            }))
        };
        let Read::Whole(contrast) = encoder.contrast(&pair("one one")).unwrap() else { panic!("it fits") };
        assert_eq!(learned(&encoder, &contrast.chosen), "three<|im_end|>");
        assert_eq!(learned(&encoder, &contrast.rejected), "one one<|im_end|>");
        assert_eq!(encoder.contrast(&pair("three")).unwrap(), Read::Dropped(SAME_ANSWER));
    }
}
