//! The values of secrets on their way from the engine's environment to one worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use llmflow_contract::{Failure, Registry, Scrubber, Secret, SecretName};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Values by variable. What prints them prints how many there are.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The values of these names, from this process's environment.
    ///
    /// # Errors
    /// `secret/unset`, of the environment.
    pub fn read(names: &[SecretName]) -> Result<Self, Failure> {
        let value = |name: &SecretName| match std::env::var(name.variable()) {
            Ok(value) if !value.is_empty() => Ok((name.variable().to_owned(), value)),
            _ => {
                let name = name.variable();
                Err(Failure::environment("secret/unset", format!("the environment variable `{name}` is not set"))
                    .help(format!("export {name}=…, then run the same command again")))
            }
        };
        names.iter().map(value).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A failure without any of the values in it, whoever wrote its text.
    pub fn scrub(&self, mut failure: Failure) -> Failure {
        let scrubber = Scrubber::new(self.0.values().map(String::as_str));
        let texts = [Some(&mut failure.message), failure.help.as_mut()].into_iter().flatten();
        texts.chain(&mut failure.causes).for_each(|text| *text = scrubber.scrub(text));
        failure
    }

    /// # Errors
    /// A bug for a name that no param of the stage holds.
    pub fn find(&self, name: &SecretName) -> Result<Secret, Failure> {
        let value = self.0.get(name.variable()).map(Secret::new);
        value.ok_or_else(|| Failure::bug(format!("no param of this stage names the secret `{}`", name.variable())))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Variables of the engine's environment that no worker inherits: the secrets that any stage names, and the keys to
/// remote sources.
#[derive(Clone, Debug, Default)]
pub struct Withheld(pub BTreeSet<String>);

impl Withheld {
    pub fn new<'a>(registry: &Registry, secrets: impl IntoIterator<Item = &'a SecretName>) -> Self {
        let credentials = registry.entries().flat_map(|entry| entry.credentials).map(|name| (*name).to_owned());
        Self(credentials.chain(secrets.into_iter().map(|name| name.variable().to_owned())).collect())
    }

    /// Of all stages of a plan.
    pub fn of_plan(registry: &Registry, plan: &Plan) -> Self {
        let stages = plan.stages.iter().filter(|stage| stage.entry.takes_secrets());
        let names: Vec<SecretName> = stages.flat_map(|stage| stage.entry.secrets(&stage.settled.params())).collect();
        Self::new(registry, &names)
    }

    /// From here on no other process of this user reads the values out of this one (`/proc/PID/environ`), if there are any:
    /// among them are the programs that stages run.
    pub fn hide(&self) {
        #[cfg(target_os = "linux")]
        if self.0.iter().any(|name| std::env::var_os(name).is_some()) {
            let _ = nix::sys::prctl::set_dumpable(false); // fails for no value that there is
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_not_set_is_named_with_the_way_to_set_it() {
        let name = SecretName::parse("${secret.LLMFLOW_TEST_NEVER_SET}").unwrap();
        let failure = Secrets::read(&[name]).unwrap_err();
        assert_eq!(failure.help.unwrap(), "export LLMFLOW_TEST_NEVER_SET=…, then run the same command again");
    }

    #[test]
    fn the_values_reach_the_worker_and_no_debug_output() {
        let secrets = Secrets(BTreeMap::from([("TOKEN".into(), "canary-1".into())]));
        assert_eq!(format!("{secrets:?}"), "Secrets(1)");
        let sent: Secrets = serde_json::from_str(&serde_json::to_string(&secrets).unwrap()).unwrap();
        assert_eq!(sent.find(&SecretName::parse("${secret.TOKEN}").unwrap()).unwrap().expose(), "canary-1");
        assert!(sent.find(&SecretName::parse("${secret.OTHER}").unwrap()).is_err());
        let failure = secrets.scrub(Failure::bug("401 for canary-1").help("is canary-1 right?").cause("canary-1"));
        assert!(!serde_json::to_string(&failure).unwrap().contains("canary"), "{failure:?}");
    }
}
