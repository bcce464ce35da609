//! The values of GGUF metadata.

/// One metadata value. Lists hold one type; lists of lists are not allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Items of one type, whose number comes first.
    List(u32, Vec<Value>),
}

impl Value {
    /// A list of texts.
    pub fn texts(items: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::List(8, items.into_iter().map(|item| Self::Text(item.into())).collect())
    }
    /// A list of `i32`.
    pub fn integers(items: impl IntoIterator<Item = i32>) -> Self {
        Self::List(5, items.into_iter().map(Self::I32).collect())
    }
    /// The number that stands for its type in a file.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::List(..) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }
    /// A whole number that is not negative, whatever its width.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }
    /// A number. An `f32` is taken as the shortest decimal that names it: 1e-5, not 9.99999975e-6.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => value.to_string().parse().ok(),
            Self::F64(value) => Some(value),
            _ => self.as_u64().map(|value| value as f64),
        }
    }
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(_, items) = self { Some(items) } else { None }
    }
}
