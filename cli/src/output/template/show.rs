//! How Go prints a value with `%v`.

use serde_json::Value;

/// What Go prints for a value that is not there.
pub(super) const NO_VALUE: &str = "<no value>";

/// The value as an action prints it.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => NO_VALUE.to_owned(),
        other => inner(other),
    }
}

/// The value as a part of another one, and as `%v` prints it.
pub(super) fn inner(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inner).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            // Go prints maps in the order of their keys.
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let items: Vec<String> =
                keys.into_iter().map(|key| format!("{key}:{}", inner(&map[key]))).collect();
            format!("map[{}]", items.join(" "))
        }
    }
}

/// Go's truth: everything but the zero value of a type.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// The name of the value's type, for error texts.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}
