//! A value that may differ between the combinations of a matrix.

use std::sync::Arc;

/// One value for all combinations, or a few values and which of them each combination takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Varied<T> {
    Same(T),
    Differs {
        values: Vec<T>,
        /// Of each combination, the position in `values`.
        of: Arc<[u32]>,
    },
}

impl<T> Varied<T> {
    /// What one combination takes; 0 without a matrix.
    pub fn get(&self, combination: u32) -> &T {
        match self {
            Self::Same(value) => value,
            Self::Differs { values, of } => &values[of[combination as usize] as usize],
        }
    }

    /// Each value once.
    pub fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Differs { values, .. } => values,
        }
    }

    /// The same with other values: each is made once, however many combinations take it.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Varied<U> {
        let mut make = make;
        match self {
            Self::Same(value) => Varied::Same(make(value)),
            Self::Differs { values, of } => Varied::Differs { values: values.into_iter().map(make).collect(), of },
        }
    }

    /// As [`Self::map`], of borrowed values.
    pub fn map_ref<U>(&self, make: impl FnMut(&T) -> U) -> Varied<U> {
        let mut make = make;
        match self {
            Self::Same(value) => Varied::Same(make(value)),
            Self::Differs { values, of } => {
                Varied::Differs { values: values.iter().map(make).collect(), of: Arc::clone(of) }
            }
        }
    }
}
