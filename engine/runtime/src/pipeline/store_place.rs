//! `store`: where artifacts lie, as a URL or as a folder beside the file.
//!
//! Owns: which texts name a place. Must not know: whether there is a store, and how one is opened.

use std::path::{Path, PathBuf};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    node::{Node, Value},
    publish::inside,
    source::{At, SourceFile},
};

/// Object stores.
const REMOTE: [&str; 3] = ["s3", "gs", "az"];
const FORMS: &str = "write `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, `file:///FOLDER` or a folder beside the file";

pub(super) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    let text = match &node.value {
        Value::String(text) if !text.trim().is_empty() => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => {
            let given = if node.as_str().is_some() { "empty" } else { node.describe() };
            let message = format!("`store` is a folder or a URL, not {given}");
            diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help(FORMS));
            return None;
        }
    };
    if let Err((message, help)) = check(&text) {
        diagnostics.push(Diagnostic::new("store/url", message, node.span).help(help));
        return None;
    }
    Some(At::new(text, node.span))
}

/// What is wrong with the place of a store, and what to write instead.
fn check(store: &str) -> Result<(), (String, String)> {
    let refuse = |help: String| Err((format!("`{store}` is no store"), help));
    if let Some(rest) = store.strip_prefix('~') {
        let message = format!("`{store}`: no shell reads this, `~` would be a folder of that name");
        return Err((message, format!("store: \"${{env.HOME}}{rest}\"")));
    }
    let Some((scheme, rest)) = store.split_once("://") else {
        // `s3:/x` and `s3//x` would be folders of that name.
        let (scheme, rest) = store.split_at(store.find([':', '/']).unwrap_or(store.len()));
        let is_slip = rest.starts_with(':') || rest.starts_with("//");
        let path = rest.trim_start_matches([':', '/']);
        return match scheme {
            "file" if is_slip => refuse(format!("store: file:///{path}")),
            _ if REMOTE.contains(&scheme) && is_slip => refuse(format!("store: {scheme}://{path}")),
            _ if rest.starts_with(":/") => refuse(FORMS.to_owned()),
            _ => Ok(()),
        };
    };
    let host = rest.split('/').next().unwrap_or_default();
    match scheme {
        "memory" => Ok(()),
        "file" if rest.starts_with('/') => Ok(()),
        "file" if host == "localhost" => refuse(format!("store: file://{}", &rest[host.len()..])),
        "file" => {
            let message = format!("`{store}`: the path of a `file` URL begins with `/`");
            Err((message, format!("store: {rest}  # a folder beside the file")))
        }
        _ if REMOTE.contains(&scheme) && host.contains('@') => {
            let message = "the URL of a store may not hold credentials: it is recorded with every run".to_owned();
            Err((message, format!("put them into the environment, and write `{scheme}://BUCKET/PREFIX`")))
        }
        _ if REMOTE.contains(&scheme) && !host.is_empty() => Ok(()),
        _ => refuse(FORMS.to_owned()),
    }
}

/// The folder of a store below the file's own, relative to it.
pub(super) fn folder_within(store: &str, source: &SourceFile) -> Option<PathBuf> {
    let path = match store.split_once("://") {
        Some(("file", path)) => path,
        Some(_) => return None,
        None => store,
    };
    let path = Path::new(path);
    let relative = path.strip_prefix(crate::plan::absolute(source.base())).unwrap_or(path);
    inside(relative.to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_store_is_refused_with_what_to_write() {
        for (store, help) in [
            ("ftp://x/y", FORMS),
            ("s3//x", "store: s3://x"),
            ("s3:/x", "store: s3://x"),
            ("s3:x", "store: s3://x"),
            ("file:/tmp/x", "store: file:///tmp/x"),
            ("file//x", "store: file:///x"),
            ("http:/x", FORMS),
            ("s3://", FORMS),
            ("s3:///x", FORMS),
            ("~/zz", "store: \"${env.HOME}/zz\""),
            ("file://relative", "store: relative  # a folder beside the file"),
            ("file://localhost/tmp/s9", "store: file:///tmp/s9"),
            ("gs://key:secret@b/x", "put them into the environment, and write `gs://BUCKET/PREFIX`"),
        ] {
            assert_eq!(check(store).unwrap_err().1, help, "{store}");
        }
        for store in
            ["s3://b", "gs://b/p", "az://c/p", "file:///tmp/x", "memory://x", "st", "../st", "/tmp/st", "s3", "s3/x"]
        {
            assert_eq!(check(store), Ok(()), "{store}");
        }
    }

    #[test]
    fn a_store_below_the_file_is_found_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let source = SourceFile::new(base.join("p.yaml"), "");
        let within = |store: &str| folder_within(store, &source);
        let absolute = base.join("st").display().to_string();
        for store in ["st", "./a/../st/", &absolute, &format!("file://{absolute}")] {
            assert_eq!(within(store), Some(PathBuf::from("st")), "{store}");
        }
        for store in [".", "../st", "/elsewhere", "s3://b/st"] {
            assert_eq!(within(store), None, "{store}");
        }
    }
}
