//! Reading one level of `config.json`, with messages that name the key.

use serde_json::Value;

/// One level of the file, with its place for messages.
pub(super) struct Fields<'a> {
    pub(super) value: &'a Value,
    pub(super) at: &'static str,
}

impl Fields<'_> {
    pub(super) fn int(&self, key: &str) -> Result<i64, String> {
        let value = self.value.get(key).ok_or(format!("{}{key} is missing", self.at))?;
        // Every size divides or shapes something; only token ids may be 0.
        let least = if key.ends_with("_id") { 0 } else { 1 };
        value.as_i64().filter(|n| *n >= least).ok_or_else(|| {
            format!("{}{key} is {value}, not a whole number of at least {least}", self.at)
        })
    }

    pub(super) fn int_or(&self, key: &str, default: i64) -> Result<i64, String> {
        if self.value.get(key).is_none_or(Value::is_null) { Ok(default) } else { self.int(key) }
    }

    pub(super) fn float_or(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v.as_f64().ok_or(format!("{}{key} is {v}, not a number", self.at)),
        }
    }

    pub(super) fn must_be(&self, key: &str, only: &str) -> Result<(), String> {
        match self.value.get(key).and_then(Value::as_str) {
            Some(v) if v != only => {
                Err(format!("{}{key} is {v:?}; only {only:?} can be run", self.at))
            }
            _ => Ok(()),
        }
    }
}
