//! `operators`

use llmflow_contract::{Entry, Failure, ParamInfo};
use llmflow_runtime::{pipeline::nearest, run::Error};
use serde_json::json;

use super::{DONE, Setting};
use crate::{args::OperatorsArgs, render::operators as screen};

/// Lists the operators, or describes one.
pub fn operators(args: OperatorsArgs, setting: &Setting) -> Result<u8, Error> {
    let (registry, out) = (setting.registry, setting.screen);
    if let Some(entry) = args.name.as_deref().and_then(|name| registry.find(name)) {
        if out.json {
            out.print_json(&described(entry));
        } else {
            out.print(&screen::one(entry, out.width, out.paint));
        }
        return Ok(DONE);
    }
    let is_wanted = |entry: &&Entry| match &args.name {
        Some(family) => entry.name.split('.').next() == Some(family),
        None => true,
    };
    let found: Vec<&Entry> = registry.entries().filter(is_wanted).collect();
    if found.is_empty() {
        let name = args.name.unwrap_or_default();
        return Err(unknown(&name, registry.entries().map(|entry| entry.name)).into());
    }
    if out.json {
        let list: Vec<_> = found.iter().map(|entry| described(entry)).collect();
        out.print_json(&list);
    } else {
        out.print(&screen::list(&found, out.width, out.paint));
    }
    Ok(DONE)
}

fn unknown<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Failure {
    let failure = Failure::input("cli/operator", format!("there is no operator or family `{name}`"));
    let verb = name.rsplit('.').next().unwrap_or(name);
    let names: Vec<&str> = names.collect();
    let mut near: Vec<&str> = names.iter().copied().filter(|known| known.contains(verb)).take(3).collect();
    if near.is_empty() {
        near.extend(nearest(name, names));
    }
    if near.is_empty() || verb.is_empty() {
        failure.help("llmflow operators lists them")
    } else {
        failure.help(near.iter().map(|name| format!("llmflow operators {name}")).collect::<Vec<_>>().join("\n"))
    }
}

fn described(entry: &Entry) -> serde_json::Value {
    let params: Vec<&ParamInfo> = entry.params.iter().collect();
    json!({
        "name": entry.name, "version": entry.version, "doc": entry.doc, "inputs": entry.inputs,
        "outputs": entry.outputs, "serves": entry.serves, "params": params, "schema": entry.schema(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_operator_is_told_with_the_nearest() {
        let help = |name: &str| unknown(name, ["data.load", "model.load", "train.sft"].into_iter()).help.unwrap();
        assert_eq!(help("train.sfx"), "llmflow operators train.sft");
        assert_eq!(help("load"), "llmflow operators data.load\nllmflow operators model.load");
        assert_eq!(help("nothing.like.it"), "llmflow operators lists them");
    }
}
