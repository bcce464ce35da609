//! What tokens, templates and masks promise.

use super::*;

fn trained() -> TextTokenizer {
    let texts = ["the cat sat on the mat", "a dog and a cat", "numbers 12 and 345"];
    train_bpe(texts.into_iter(), 300, 1).unwrap()
}

fn chat() -> Vec<ChatMessage> {
    vec![
        ChatMessage::new("system", ""),
        ChatMessage::new("user", "the cat?"),
        ChatMessage::new("assistant", "a dog, the cat"),
        ChatMessage::new("user", "the cat"),
        ChatMessage::new("assistant", "naïve 🐈"),
    ]
}

#[test]
fn any_text_survives_and_digits_stand_alone() {
    let tokenizer = trained();
    for text in ["the cat", "naïve 🐈 12\n\n\t", "", "<|im_end|>"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap(), false).unwrap(), text);
    }
    assert_eq!(tokenizer.encode("345", false).unwrap().len(), 3);
    assert_eq!(tokenizer.find_id("<|endoftext|>"), Some(0));
    assert_eq!(tokenizer.encode("<|im_end|>", false).unwrap(), [2]);
}

#[test]
fn training_twice_gives_the_same_bytes() {
    assert_eq!(trained().json().to_string(), trained().json().to_string());
    assert!(train_bpe(["x"].into_iter(), 200, 1).is_err());
}

#[test]
fn a_mask_covers_what_the_assistant_says_and_the_end_of_its_turn() {
    let tokenizer = trained();
    let Encoded { ids, loss_mask } = tokenizer.encode_for_training(&chat()).unwrap();
    assert_eq!(ids, tokenizer.encode_chat(&chat(), false).unwrap());
    let learned: Vec<u32> = ids.iter().zip(&loss_mask).filter(|(_, mask)| **mask).map(|(id, _)| *id).collect();
    assert_eq!(tokenizer.decode(&learned, false).unwrap(), "a dog, the cat<|im_end|>naïve 🐈<|im_end|>");
}

#[test]
fn a_prompt_ends_where_the_answer_starts() {
    let tokenizer = trained();
    let prompt = tokenizer.encode_chat(&chat()[..2], true).unwrap();
    let whole = tokenizer.encode_for_training(&chat()[..3]).unwrap();
    assert_eq!(whole.ids[..prompt.len()], prompt);
    assert_eq!(whole.loss_mask.iter().position(|mask| *mask), Some(prompt.len()));
}

#[test]
fn a_stream_gives_whole_characters_only() {
    let tokenizer = trained();
    let text = "the cat 🐈 naïve, the dog";
    let mut stream = tokenizer.stream();
    let mut shown = String::new();
    for id in tokenizer.encode(text, false).unwrap() {
        let piece = stream.push(id).unwrap();
        assert!(!piece.contains('\u{FFFD}'));
        shown += &piece;
    }
    shown += &stream.finish().unwrap();
    assert_eq!(shown, text);
}

#[test]
fn templates_speak_python_refuse_and_end() {
    let render = |template: &str| template::render(template, &chat()[1..2], true, &Special::default());
    assert_eq!(render("{{ ' A '.strip().lower() + messages[0].get('role') }}").unwrap(), "auser");
    assert_eq!(render("{% if 'cat' in messages[0]['content'] %}\n  {% set x = 1 %}\nyes{% endif %}").unwrap(), "yes");
    assert_eq!(render("{{ {'a': '<b>'} | tojson }}").unwrap(), r#"{"a": "<b>"}"#);
    assert_eq!(render("{% for m in [1,2,3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}").unwrap(), "1");
    assert!(render("{{ raise_exception('no tools') }}").unwrap_err().to_string().contains("no tools"));
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    assert!(render(endless).is_err());
}
