//! Addresses: how people point at what a run made, such as `@-1/sft` or `quiet-otter/sft.adapter`.

use llmflow_contract::{Failure, Port, StageId};

/// A run, perhaps one of its stages, perhaps one of that stage's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `@` (newest), `@-N` (N before it), a name's unique prefix, or a tag.
    pub run: String,
    pub stage: Option<StageId>,
    pub port: Option<Port>,
}

impl Address {
    /// Reads `RUN[/STAGE[.PORT]]`.
    ///
    /// # Errors
    /// `address/form` if a part is empty or `@` is followed by anything but `-N`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::input("address/form", format!("`{text}` is no address"))
                .help("write `RUN/STAGE.PORT`, such as `@/sft.adapter`; `@` is the newest run, `@-1` the one before")
        };
        let (run, rest) = text.split_once('/').map_or((text, None), |(run, rest)| (run, Some(rest)));
        let is_run = match run.strip_prefix('@') {
            Some(back) => back.is_empty() || back.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok()),
            None => !run.is_empty(),
        };
        let (stage, port) = match rest {
            Some(rest) => rest.rsplit_once('.').map_or((Some(rest), None), |(stage, port)| (Some(stage), Some(port))),
            None => (None, None),
        };
        if !is_run || stage.is_some_and(str::is_empty) || port.is_some_and(str::is_empty) {
            return Err(bad());
        }
        Ok(Self { run: run.to_owned(), stage: stage.map(StageId::from), port: port.map(Port::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_nonsense_is_refused() {
        let parts = |text: &str| {
            let address = Address::parse(text).unwrap();
            (address.run, address.stage.map(|s| s.to_string()), address.port.map(|p| p.to_string()))
        };
        assert_eq!(parts("@"), ("@".into(), None, None));
        assert_eq!(parts("@-1/sft"), ("@-1".into(), Some("sft".into()), None));
        assert_eq!(parts("quiet/sft.adapter"), ("quiet".into(), Some("sft".into()), Some("adapter".into())));
        for bad in ["", "/x", "@x", "@-", "@/", "a/.p", "a/s."] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
