//! `{in.data}`, `{out.model}`, `{seed}`: what stands in an argument until the program starts.

/// Replaces the placeholders that `value` knows; every other brace stays as it is, and what is put in is not read again.
pub(crate) fn fill(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        filled.push_str(before);
        let inner = from[1..].split('}').next().filter(|inner| inner.len() + 1 < from.len());
        match inner.and_then(|inner| Some((inner, value(inner)?))) {
            Some((inner, value)) => {
                filled.push_str(&value);
                rest = &from[inner.len() + 2..];
            }
            None => {
                filled.push('{');
                rest = &from[1..];
            }
        }
    }
    filled + rest
}

/// The placeholders of these texts that look like ours: `in.…`, `out.…`, `seed`, `scratch`, `cores`.
pub(crate) fn names<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut names = Vec::new();
    for text in texts {
        fill(text, |inner| {
            let is_ours = ["in.", "out."].iter().any(|start| inner.starts_with(start));
            if is_ours || ["seed", "scratch", "cores"].contains(&inner) {
                names.push(inner.to_owned());
            }
            None
        });
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_placeholders_are_replaced_once_and_other_braces_stay() {
        let value = |name: &str| match name {
            "in.data" => Some("/tmp/{seed}.jsonl".to_owned()),
            "seed" => Some("42".to_owned()),
            _ => None,
        };
        assert_eq!(fill("--data={in.data} {seed}", value), "--data=/tmp/{seed}.jsonl 42");
        for text in ["{\"a\": {\"b\": 1}}", "{", "}{", "{{", "{in.other}", "é{é}", ""] {
            assert_eq!(fill(text, value), text);
        }
        assert_eq!(fill("{{seed}}", value), "{42}");
    }

    #[test]
    fn the_names_of_several_texts_are_found() {
        let texts = ["{in.a}{out.b}".to_owned(), "{x} {cores} {in.}".to_owned()];
        assert_eq!(names(&texts), ["in.a", "out.b", "cores", "in."]);
    }
}
