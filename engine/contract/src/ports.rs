//! Ports: the typed inputs and outputs of an operator.
//!
//! ```
//! use llmflow_contract::{Artifact, Made, inputs, kinds, outputs};
//! inputs! {
//!     pub struct In {
//!         /// The model to tune.
//!         pub model: Artifact<kinds::Model>,
//!         /// Rows to measure on.
//!         pub eval: Option<Artifact<kinds::Chat>>,
//!     }
//! }
//! outputs! {
//!     pub struct Out {
//!         /// The trained adapter.
//!         pub adapter: Made<kinds::Adapter>,
//!     }
//! }
//! # use llmflow_contract::{Arity, Inputs};
//! assert_eq!(In::specs()[1].arity, Arity::Optional);
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AnyArtifact, AnyMade, Artifact, Failure, KindSet, Made, Port, PortKind};

/// How many artifacts a port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arity {
    One,
    Optional,
    Many,
}

/// One port of an operator. The first declared is the main one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    pub port: Port,
    pub accepts: KindSet,
    pub arity: Arity,
    pub doc: String,
}

/// Artifacts by port: what the engine hands over.
#[derive(Debug, Default)]
pub struct Bound(BTreeMap<Port, Vec<AnyArtifact>>);

impl Bound {
    pub fn new(by_port: BTreeMap<Port, Vec<AnyArtifact>>) -> Self {
        Self(by_port)
    }
    fn take(&mut self, port: &str) -> Vec<AnyArtifact> {
        self.0.remove(port).unwrap_or_default()
    }
    /// Every port that was given, by name.
    pub fn into_ports(self) -> BTreeMap<Port, Vec<AnyArtifact>> {
        self.0
    }
}

/// The inputs of an operator; made by [`crate::inputs!`].
pub trait Inputs: Sized {
    /// Whether the user names the ports; the operator's `plan` types them.
    const BY_NAME: bool = false;
    fn specs() -> Vec<PortSpec>;
    /// # Errors
    /// A bug: the planner lets no stage start whose required input is absent.
    fn bind(bound: Bound) -> Result<Self, Failure>;
}

/// The outputs of an operator; made by [`crate::outputs!`].
pub trait Outputs: Sized {
    /// Whether params name the ports: [`crate::Operator::named_outputs`].
    const BY_NAME: bool = false;
    /// Whether the first output is the one that a stage's name alone means.
    const HAS_MAIN: bool = true;
    fn specs() -> Vec<PortSpec>;
    fn into_made(self) -> Vec<(Port, AnyMade)>;
}

/// For operators whose inputs are named by the user.
impl Inputs for Bound {
    const BY_NAME: bool = true;
    fn specs() -> Vec<PortSpec> {
        Vec::new()
    }
    fn bind(bound: Bound) -> Result<Self, Failure> {
        Ok(bound)
    }
}

/// Outputs that params name, main output first.
#[derive(Debug, Default)]
pub struct Named(pub Vec<(Port, AnyMade)>);

impl Outputs for Named {
    const BY_NAME: bool = true;
    fn specs() -> Vec<PortSpec> {
        Vec::new()
    }
    fn into_made(self) -> Vec<(Port, AnyMade)> {
        self.0
    }
}

/// For operators that only report.
impl Outputs for () {
    fn specs() -> Vec<PortSpec> {
        Vec::new()
    }
    fn into_made(self) -> Vec<(Port, AnyMade)> {
        Vec::new()
    }
}

/// For sources: operators without inputs.
impl Inputs for () {
    fn specs() -> Vec<PortSpec> {
        Vec::new()
    }
    fn bind(_: Bound) -> Result<Self, Failure> {
        Ok(())
    }
}

#[doc(hidden)]
pub trait InputField: Sized {
    const ARITY: Arity;
    fn accepts() -> KindSet;
    fn take(bound: &mut Bound, port: &'static str) -> Result<Self, Failure>;
}

impl<K: PortKind> InputField for Artifact<K> {
    const ARITY: Arity = Arity::One;
    fn accepts() -> KindSet {
        KindSet::of(K::ACCEPTS)
    }
    fn take(bound: &mut Bound, port: &'static str) -> Result<Self, Failure> {
        let found = bound.take(port).pop();
        found.map(Self::new).ok_or_else(|| Failure::bug(format!("input `{port}` was not bound")))
    }
}

impl<K: PortKind> InputField for Option<Artifact<K>> {
    const ARITY: Arity = Arity::Optional;
    fn accepts() -> KindSet {
        KindSet::of(K::ACCEPTS)
    }
    fn take(bound: &mut Bound, port: &'static str) -> Result<Self, Failure> {
        Ok(bound.take(port).pop().map(Artifact::new))
    }
}

impl<K: PortKind> InputField for Vec<Artifact<K>> {
    const ARITY: Arity = Arity::Many;
    fn accepts() -> KindSet {
        KindSet::of(K::ACCEPTS)
    }
    fn take(bound: &mut Bound, port: &'static str) -> Result<Self, Failure> {
        Ok(bound.take(port).into_iter().map(Artifact::new).collect())
    }
}

#[doc(hidden)]
pub trait OutputField {
    fn accepts() -> KindSet;
    fn into_any(self) -> AnyMade;
}

impl<K: PortKind> OutputField for Made<K> {
    fn accepts() -> KindSet {
        KindSet::of(K::ACCEPTS)
    }
    fn into_any(self) -> AnyMade {
        Made::into_any(self)
    }
}

/// Declares a struct of inputs: one field a port, `Artifact`, `Option<Artifact>` or `Vec<Artifact>`.
#[macro_export]
macro_rules! inputs {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[doc = $doc:literal])+ $field_vis:vis $field:ident : $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name { $($(#[doc = $doc])+ $field_vis $field: $type),+ }
        impl $crate::Inputs for $name {
            fn specs() -> Vec<$crate::PortSpec> {
                vec![$($crate::PortSpec {
                    port: $crate::Port::from(stringify!($field)),
                    accepts: <$type as $crate::InputField>::accepts(),
                    arity: <$type as $crate::InputField>::ARITY,
                    doc: concat!($($doc),+).trim().to_owned(),
                }),+]
            }
            fn bind(mut bound: $crate::Bound) -> Result<Self, $crate::Failure> {
                Ok(Self { $($field: <$type as $crate::InputField>::take(&mut bound, stringify!($field))?),+ })
            }
        }
    };
}

/// Declares a struct of outputs: one `Made` a port. The first is the main one, unless the struct is marked
/// `#[no_main_output]`: then a stage name alone means none of them, and a pipeline says `stage.port`.
#[macro_export]
macro_rules! outputs {
    (#[no_main_output] $($rest:tt)*) => { $crate::outputs! { @has_main false; $($rest)* } };
    (@has_main $has_main:literal; $(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[doc = $doc:literal])+ $field_vis:vis $field:ident : $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name { $($(#[doc = $doc])+ $field_vis $field: $type),+ }
        impl $crate::Outputs for $name {
            const HAS_MAIN: bool = $has_main;
            fn specs() -> Vec<$crate::PortSpec> {
                vec![$($crate::PortSpec {
                    port: $crate::Port::from(stringify!($field)),
                    accepts: <$type as $crate::OutputField>::accepts(),
                    arity: $crate::Arity::One,
                    doc: concat!($($doc),+).trim().to_owned(),
                }),+]
            }
            fn into_made(self) -> Vec<($crate::Port, $crate::AnyMade)> {
                vec![$(($crate::Port::from(stringify!($field)), $crate::OutputField::into_any(self.$field))),+]
            }
        }
    };
    ($($rest:tt)*) => { $crate::outputs! { @has_main true; $($rest)* } };
}
