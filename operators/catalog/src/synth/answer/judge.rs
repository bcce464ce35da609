//! What one answer becomes: a row, or the rule that drops it.

use llmflow_contract::Failure;
use llmflow_dataset::{Chat, Content, Message, Preference, Row};

use super::{Form, Params};
use crate::synth::speaker::Said;

/// The turns before the answer, and the written answer if there is one.
pub(super) fn asked(row: &Row) -> Result<(Vec<Message>, Option<String>), Failure> {
    match &row.content {
        Content::Prompt(prompt) => Ok((prompt.prompt.clone(), prompt.answer.clone())),
        _ => {
            let (turns, answer) = row.as_chat()?.split_answer();
            Ok((turns.to_vec(), answer.map(|message| message.content.clone())))
        }
    }
}

/// The rule that a prompt breaks before it is asked.
pub(super) fn refused(params: &Params, turns: &[Message], reference: Option<&str>) -> Option<&'static str> {
    if turns.is_empty() {
        return Some("no_prompt");
    }
    let has_reference = reference.is_some_and(|reference| !reference.trim().is_empty());
    (params.form == Form::Preference && !has_reference).then_some("no_reference")
}

/// What an answer becomes. `before` are the answers of the same prompt that were kept.
///
/// # Errors
/// The rule that drops it.
pub(super) fn judge(
    params: &Params,
    turns: &[Message],
    reference: Option<&str>,
    said: &Said,
    before: &[String],
) -> Result<Content, &'static str> {
    // Silence is nothing to learn from, but an answer that may be rejected.
    if said.text.is_empty() && params.form == Form::Chat {
        return Err("empty");
    }
    if !said.finished && !params.keeps_cut() {
        return Err("unfinished");
    }
    if before.contains(&said.text) {
        return Err("repeats");
    }
    match params.form {
        Form::Chat => {
            let mut messages = turns.to_vec();
            messages.push(Message::assistant(&said.text));
            Ok(Content::Chat(Chat { messages, tools: None }))
        }
        Form::Preference => {
            let reference = reference.ok_or("no_reference")?;
            if reference.trim() == said.text {
                return Err("equal");
            }
            Ok(Content::Preference(Preference {
                prompt: turns.to_vec(),
                chosen: vec![Message::assistant(reference)],
                rejected: vec![Message::assistant(&said.text)],
                margin: None,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, finished: bool) -> Said {
        Said { text: text.into(), finished }
    }
    fn of(form: Form, reference: Option<&str>, said: &Said) -> Result<Content, &'static str> {
        judge(&Params { form, ..Params::default() }, &[Message::user("q")], reference, said, &["again".into()])
    }

    #[test]
    fn a_cut_answer_is_no_conversation_but_may_be_rejected() {
        assert_eq!(of(Form::Chat, None, &said("a", false)), Err("unfinished"));
        assert!(of(Form::Preference, Some("b"), &said("a", false)).is_ok());
    }

    #[test]
    fn a_pair_needs_two_different_answers() {
        assert_eq!(of(Form::Preference, Some(" a "), &said("a", true)), Err("equal"));
        assert_eq!(of(Form::Preference, None, &said("a", true)), Err("no_reference"));
        let Ok(Content::Preference(pair)) = of(Form::Preference, Some("b"), &said("a", true)) else { panic!("a pair") };
        assert_eq!((pair.chosen[0].content.as_str(), pair.rejected[0].content.as_str()), ("b", "a"));
    }

    #[test]
    fn an_empty_or_repeated_answer_is_dropped_but_silence_may_be_rejected() {
        assert_eq!(of(Form::Chat, None, &said("", true)), Err("empty"));
        assert!(of(Form::Preference, Some("b"), &said("", true)).is_ok());
        assert_eq!(of(Form::Chat, None, &said("again", true)), Err("repeats"));
    }
}
