//! Python's plain data as JSON values and back: what templates see, what metadata shows.

use alloyforge_types::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

use crate::error::to_exception;

/// Nesting beyond which data is refused, so that a structure that holds itself ends.
const MAX_DEPTH: usize = 64;

/// `data` as JSON; `name` is what errors call it.
///
/// # Errors
/// `InvalidRequestError` for a type that JSON has not, a key that is no string, and deep nesting.
pub(crate) fn from_python(data: &Bound<'_, PyAny>, name: &str) -> PyResult<Value> {
    convert(data, name, MAX_DEPTH)
}

fn convert(data: &Bound<'_, PyAny>, name: &str, depth: usize) -> PyResult<Value> {
    let invalid = |fault: String| Err(to_exception(&Error::invalid(name, fault)));
    let Some(depth) = depth.checked_sub(1) else {
        return invalid(format!("is nested deeper than {MAX_DEPTH} levels"));
    };
    if data.is_none() {
        return Ok(Value::Null);
    }
    // before the integers, which a bool is one of
    if let Ok(flag) = data.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(text) = data.cast::<PyString>() {
        return Ok(Value::String(text.to_str()?.to_owned()));
    }
    if data.is_instance_of::<PyInt>() {
        if let Ok(number) = data.extract::<i64>() {
            return Ok(Value::Number(number.into()));
        }
        return match data.extract::<u64>() {
            Ok(number) => Ok(Value::Number(number.into())),
            Err(_) => invalid("holds an integer of more than 64 bits".into()),
        };
    }
    if let Ok(float) = data.cast::<PyFloat>() {
        return match Number::from_f64(float.value()) {
            Some(number) => Ok(Value::Number(number)),
            None => invalid(format!("holds the number {}, which JSON has not", float.value())),
        };
    }
    if let Ok(dict) = data.cast::<PyDict>() {
        let mut map = Map::with_capacity(dict.len());
        for (key, value) in dict {
            let Ok(key) = key.cast::<PyString>() else {
                return invalid(format!("holds the key {}, which is no string", key.repr()?));
            };
            map.insert(key.to_str()?.to_owned(), convert(&value, name, depth)?);
        }
        return Ok(Value::Object(map));
    }
    if data.is_instance_of::<PyList>() || data.is_instance_of::<PyTuple>() {
        let items: PyResult<Vec<Value>> = data.try_iter()?.map(|x| convert(&x?, name, depth)).collect();
        return Ok(Value::Array(items?));
    }
    invalid(format!("holds a value of type {}", data.get_type().name()?))
}
