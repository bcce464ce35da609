//! Keys: what makes two stages the same.
//!
//! | in the key | not in the key |
//! |---|---|
//! | operator and VERSION; params that differ from their default; digests of inputs by port and label; content of sources; the seed, if it is used; the numerics class | stage names, paths, times, retries, resources, device number, parallelism, `tuning` params |

use llmflow_contract::{Digest, Entry, Hasher, Numerics, Port, Registry, Role, StagePlan};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Change, Read};

/// One named part of a key, as text that can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// `operator`, `with.lora_r`, `in.data`, `in.data.code`, `source.path`, `seed`, `numerics`.
    pub part: String,
    pub value: String,
}

/// The part that names the numerics class.
pub(super) const NUMERICS: &str = "numerics";

/// Everything a key is made of.
pub struct Subject<'a> {
    pub entry: &'a Entry,
    /// Settled.
    pub params: &'a Value,
    pub inputs: &'a [(Port, Vec<Read>)],
    pub sources: &'a [(String, String)],
    pub plan: &'a StagePlan,
    pub seed: u64,
}

/// The parts of a key in their fixed order. Hashing them gives the key; comparing two lists explains it.
pub fn components(subject: &Subject) -> Vec<Component> {
    let mut parts = vec![Component {
        part: "operator".into(),
        value: format!("{} v{}", subject.entry.name, subject.entry.version),
    }];
    let mut add = |part: String, value: String| parts.push(Component { part, value });
    for param in subject.entry.params.iter() {
        let value = &subject.params[&param.name];
        let is_default = param.default.as_ref().unwrap_or(&Value::Null) == value;
        if matches!(param.role, Role::Key | Role::Horizon) && !is_default {
            add(format!("with.{}", param.name), value.to_string());
        }
        // Under which names a program finds its secrets shows in what it does; what they are called here does not.
        if let (Role::Secret, Some(secrets)) = (param.role, value.as_object().filter(|secrets| !secrets.is_empty())) {
            let names: Vec<&str> = secrets.keys().map(String::as_str).collect();
            add(format!("with.{}", param.name), names.join(" "));
        }
    }
    for (port, reads) in subject.inputs {
        // Those of one label stand together.
        for reads in reads.chunk_by(|a, b| a.label == b.label) {
            let label = reads[0].label.as_ref().map(|label| format!(".{label}")).unwrap_or_default();
            let shown: Vec<String> = reads.iter().map(|read| read.digest.hex()).collect();
            add(format!("in.{port}{label}"), shown.join(" "));
        }
    }
    for (name, content) in subject.sources {
        add(format!("source.{name}"), content.clone());
    }
    if subject.plan.seeded {
        add("seed".into(), subject.seed.to_string());
    }
    if let Some(class) = subject.plan.numerics.class() {
        add(NUMERICS.into(), class);
    }
    parts
}

/// The digests that a key's parts name for a port, or for one of its labels.
pub fn digests_at(parts: &[Component], port: &Port, label: Option<&str>) -> Vec<Digest> {
    let slot = label.map_or_else(|| format!("in.{port}"), |label| format!("in.{port}.{label}"));
    let part = parts.iter().find(|part| part.part == slot);
    part.iter().flat_map(|part| part.value.split(' ')).filter_map(|digest| digest.parse().ok()).collect()
}

/// The keys of the same work on other devices, whose results serve where there is none of this key's own.
pub fn stand_ins(parts: &[Component], numerics: &Numerics) -> Vec<Digest> {
    let classes = numerics.stand_ins();
    let on = |class: Option<String>| {
        let mut parts = parts.to_vec();
        let part = parts.iter_mut().find(|part| part.part == NUMERICS);
        part.zip(class).into_iter().for_each(|(part, class)| part.value = class);
        digest(&parts)
    };
    classes.iter().map(|other| on(other.class())).collect()
}

/// What a result was computed on, if not on what its stage would be computed on now: `cuda`.
pub fn other_device(found: &[Component], numerics: &Numerics) -> Option<String> {
    let Numerics::Seeded { device, .. } = numerics else { return None };
    let class = found.iter().find(|part| part.part == NUMERICS)?;
    let (made_on, _) = class.value.split_once('/')?;
    (made_on != device.name()).then(|| made_on.to_owned())
}

/// The key of these parts.
pub fn digest(parts: &[Component]) -> Digest {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.part(part.part.as_bytes()).part(part.value.as_bytes());
    }
    hasher.finish()
}

/// Where the states saved on the way to this key lie together with those of keys that go further or less far: the parts
/// without those of role horizon. None where the plan does not allow it.
pub fn kin(parts: &[Component], entry: &Entry, plan: &StagePlan) -> Option<Digest> {
    if !plan.extends {
        return None;
    }
    let is_horizon = |name: &str| entry.params.iter().any(|param| param.name == name && param.role == Role::Horizon);
    let is_kept = |part: &&Component| !part.part.strip_prefix("with.").is_some_and(is_horizon);
    let mut kept: Vec<Component> = parts.iter().filter(is_kept).cloned().collect();
    kept.push(Component { part: "horizon".into(), value: "open".into() }); // no key is such an address
    Some(digest(&kept))
}

/// The parts that differ, in the order of `now`, then those that are gone.
pub fn changes(before: &[Component], now: &[Component]) -> Vec<Change> {
    let find = |parts: &[Component], name: &str| {
        parts.iter().find(|component| component.part == name).map(|component| component.value.clone())
    };
    let gone = before.iter().filter(|old| find(now, &old.part).is_none());
    now.iter()
        .chain(gone)
        .map(|part| &part.part)
        .filter(|name| find(before, name) != find(now, name))
        .map(|name| Change { part: name.clone(), before: find(before, name), now: find(now, name), origin: None })
        .collect()
}

/// [`changes`], with the values of params at their default.
pub fn valued_changes(before: &[Component], now: &[Component], registry: &Registry) -> Vec<Change> {
    let operator = now.iter().find(|component| component.part == "operator");
    let name = operator.and_then(|operator| operator.value.split(' ').next());
    let mut changes = changes(before, now);
    if let Some(entry) = name.and_then(|name| registry.find(name)) {
        changes.iter_mut().for_each(|change| fill_default(change, entry));
    }
    changes
}

/// A param at its default is no part of a key, but it has a value.
pub(super) fn fill_default(change: &mut Change, entry: &Entry) {
    let Some(name) = change.part.strip_prefix("with.") else { return };
    let param = entry.params.iter().find(|param| param.name == name);
    let default = param.and_then(|param| param.default.as_ref()).filter(|value| !value.is_null());
    let default = default.map(Value::to_string);
    change.before = change.before.take().or_else(|| default.clone());
    change.now = change.now.take().or(default);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: &str, value: &str) -> Component {
        Component { part: part.into(), value: value.into() }
    }

    /// Results of years lie under such keys: what is written here changes with the operator's VERSION alone.
    #[test]
    fn a_key_is_made_of_its_parts_and_of_labels_where_there_are_any() {
        let registry = crate::pipeline::tests::operators::registry();
        let entry = registry.find("data.dedup").unwrap();
        let plan = StagePlan::new(Vec::new(), Vec::new());
        let read = |text: &str, label: Option<&str>| Read {
            digest: Digest::of(text.as_bytes()),
            label: label.map(str::to_owned),
        };
        let of = |reads: Vec<Read>| {
            let inputs = [(Port::from("data"), reads)];
            let defaults =
                entry.params.iter().map(|param| (param.name.clone(), param.default.clone().unwrap_or_default()));
            let mut params = Value::Object(defaults.collect());
            params["threshold"] = 0.5.into();
            components(&Subject { entry, params: &params, inputs: &inputs, sources: &[], plan: &plan, seed: 42 })
        };
        let [a, b, c] = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()).hex());
        let plain = of(vec![read("a", None), read("b", None)]);
        let whole =
            [part("operator", "data.dedup v1"), part("with.threshold", "0.5"), part("in.data", &format!("{a} {b}"))];
        assert_eq!(plain, whole);
        assert_eq!(digest(&plain).hex(), "94db976d2e4a508973f0adc84285c39fc6fb1145d194ee89126e6cbfaf2c06f1");
        let labelled = of(vec![read("a", Some("talk")), read("b", Some("talk")), read("c", Some("code"))]);
        assert_eq!(labelled[2..], [part("in.data.talk", &format!("{a} {b}")), part("in.data.code", &c)]);
    }

    #[test]
    fn the_key_and_its_explanation_see_the_same_parts() {
        let before = [part("operator", "train.sft v1"), part("with.lora_r", "16"), part("seed", "42")];
        let now = [part("operator", "train.sft v1"), part("with.lora_r", "32")];
        assert_ne!(digest(&before), digest(&now));
        let changed = changes(&before, &now);
        assert_eq!(changed.iter().map(|change| change.part.as_str()).collect::<Vec<_>>(), ["with.lora_r", "seed"]);
        assert_eq!(changed[0].before.as_deref(), Some("16"));
        assert_eq!(changed[1].now, None);
        assert!(changes(&now, &now).is_empty());
    }
}
