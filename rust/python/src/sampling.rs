//! Keyword arguments as a request's parameters.
//!
//! The ranges are the core's business; here a name is known or not, and a value has the right type.

use alloyforge_engine::{Constraint, Request};
use alloyforge_types::{DryBreaker, Error, Mirostat, Priority};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyMapping, PyString, PyType};

use crate::error::to_exception;
use crate::json;

/// Puts what the caller said into `request`; `None` says nothing.
///
/// # Errors
/// `TypeError` for a name that is not known, `InvalidRequestError` for a value of a wrong type or one
/// that no number of the core can hold.
pub(crate) fn apply(sampling: &Bound<'_, PyDict>, request: &mut Request) -> PyResult<()> {
    // the target and the rate are said on their own or with the switch, in any order
    let (mut tau, mut eta) = (None, None);
    for (key, value) in sampling {
        let key = key.cast::<PyString>()?;
        let name = key.to_str()?;
        let value = (!value.is_none()).then_some(&value);
        let number = |value: &Bound<'_, PyAny>| value.extract().map_err(|_| want(name, "a number", value));
        match name {
            "mirostat_tau" => tau = value.map(number).transpose()?,
            "mirostat_eta" => eta = value.map(number).transpose()?,
            _ => set(name, value, request)?,
        }
    }
    if let Some(m) = &mut request.sampling.mirostat {
        m.tau = tau.unwrap_or(m.tau);
        m.eta = eta.unwrap_or(m.eta);
    }
    Ok(())
}

/// Sets `$place` to the value where one was said.
macro_rules! put {
    ($place:expr, $value:expr, $read:expr) => {
        if let Some(value) = $value {
            $place = $read(value)?;
        }
    };
}

fn set(name: &str, value: Option<&Bound<'_, PyAny>>, request: &mut Request) -> PyResult<()> {
    let s = &mut request.sampling;
    let number = |value: &Bound<'_, PyAny>| value.extract::<f32>().map_err(|_| want(name, "a number", value));
    let count = |value: &Bound<'_, PyAny>| {
        value.extract::<usize>().map_err(|_| want(name, "a whole number of at least 0", value))
    };
    let some_count = |value: &Bound<'_, PyAny>| count(value).map(Some);
    match name {
        "max_tokens" => put!(request.max_tokens, value, some_count),
        "temperature" => put!(s.temperature, value, number),
        "top_k" => put!(s.top_k, value, count),
        "top_p" => put!(s.top_p, value, number),
        "min_p" => put!(s.min_p, value, number),
        "typical_p" => put!(s.typical_p, value, number),
        "top_n_sigma" => put!(s.top_n_sigma, value, number),
        "xtc_probability" => put!(s.xtc.probability, value, number),
        "xtc_threshold" => put!(s.xtc.threshold, value, number),
        "mirostat" => put!(s.mirostat, value, mirostat),
        "repetition_penalty" => put!(s.repetition_penalty, value, number),
        "frequency_penalty" => put!(s.frequency_penalty, value, number),
        "presence_penalty" => put!(s.presence_penalty, value, number),
        "dry_multiplier" => put!(s.dry.multiplier, value, number),
        "dry_base" => put!(s.dry.base, value, number),
        "dry_allowed_length" => put!(s.dry.allowed_length, value, count),
        "dry_sequence_breakers" => put!(s.dry.sequence_breakers, value, breakers),
        "logit_bias" => put!(s.logit_bias, value, biases),
        "seed" => put!(s.seed, value, seed),
        "n" => put!(request.n, value, count),
        "stop" => put!(request.stop, value, texts),
        "stop_tokens" => put!(request.stop_tokens, value, tokens),
        "ignore_eos" => put!(request.ignore_eos, value, flag),
        "logprobs" => put!(request.logprobs, value, some_count),
        "priority" => put!(request.priority, value, priority),
        "timeout" => put!(request.timeout, value, seconds),
        "schema" | "regex" | "grammar" => {
            if let Some(value) = value {
                if let Some(other) = &request.constraint {
                    return Err(invalid(name, format!("cannot be said beside `{}`", other.name())));
                }
                request.constraint = Some(constraint(name, value)?);
            }
        }
        _ => return Err(PyTypeError::new_err(format!("unknown sampling parameter `{name}`"))),
    }
    Ok(())
}

/// A schema may be given as a dictionary, as JSON, or as a pydantic model.
fn constraint(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Constraint> {
    if let Ok(text) = value.extract::<String>() {
        return Ok(match name {
            "schema" => Constraint::Schema(text),
            "regex" => Constraint::Regex(text),
            _ => Constraint::Grammar(text),
        });
    }
    if name != "schema" {
        return Err(want(name, "a text", value));
    }
    let is_model = value.is_instance_of::<PyType>() && value.hasattr("model_json_schema")?;
    let value = if is_model { value.call_method0("model_json_schema")? } else { value.clone() };
    if !value.is_instance_of::<PyDict>() && !value.is_instance_of::<PyBool>() {
        return Err(want(name, "a dictionary, JSON or a pydantic model", &value));
    }
    Ok(Constraint::Schema(json::from_python(&value, name)?.to_string()))
}

fn seed(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    value.extract().map(Some).map_err(|_| want("seed", "a whole number from 0 to 2^64 - 1", value))
}

fn seconds(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    value.extract().map(Some).map_err(|_| want("timeout", "a number of seconds", value))
}

fn flag(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| want("ignore_eos", "True or False", value))
}

fn tokens(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    value.extract().map_err(|_| want("stop_tokens", "a list of token ids", value))
}

fn texts(value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if let Ok(text) = value.extract::<String>() {
        return Ok(vec![text]);
    }
    value.extract().map_err(|_| want("stop", "a text or a list of texts", value))
}

fn biases(value: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, f32)>> {
    let fault = || want("logit_bias", "a dictionary from token ids to numbers", value);
    let items = value.cast::<PyMapping>().map_err(|_| fault())?.items()?;
    items.iter().map(|item| item.extract().map_err(|_| fault())).collect()
}

fn breakers(value: &Bound<'_, PyAny>) -> PyResult<Vec<DryBreaker>> {
    let fault = || want("dry_sequence_breakers", "a list of texts, or of lists of token ids", value);
    if value.is_instance_of::<PyString>() {
        return Err(fault());
    }
    let breaker = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        if let Ok(text) = item.extract::<String>() {
            return Ok(DryBreaker::Text(text));
        }
        item.extract().map(DryBreaker::Tokens).map_err(|_| fault())
    };
    value.try_iter().map_err(|_| fault())?.map(breaker).collect()
}

fn mirostat(value: &Bound<'_, PyAny>) -> PyResult<Option<Mirostat>> {
    const USUAL: Mirostat = Mirostat { tau: 5.0, eta: 0.1 };
    let fault = || want("mirostat", "True, 2, (tau, eta), or a dictionary with `tau` and `eta`", value);
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(flag.is_true().then_some(USUAL));
    }
    // llama.cpp's numbers for off and for version 2
    match value.extract() {
        Ok(0) => return Ok(None),
        Ok(2) => return Ok(Some(USUAL)),
        _ => {}
    }
    if let Ok((tau, eta)) = value.extract::<(f32, f32)>() {
        return Ok(Some(Mirostat { tau, eta }));
    }
    let mut found = USUAL;
    for item in value.cast::<PyMapping>().map_err(|_| fault())?.items()?.iter() {
        let (key, number) = item.extract::<(String, f32)>().map_err(|_| fault())?;
        match key.as_str() {
            "tau" => found.tau = number,
            "eta" => found.eta = number,
            _ => return Err(fault()),
        }
    }
    Ok(Some(found))
}

fn priority(value: &Bound<'_, PyAny>) -> PyResult<Priority> {
    match value.extract::<String>().as_deref() {
        Ok("low") => Ok(Priority::Low),
        Ok("normal") => Ok(Priority::Normal),
        Ok("high") => Ok(Priority::High),
        Ok("critical") => Ok(Priority::Critical),
        _ => Err(want("priority", "`low`, `normal`, `high` or `critical`", value)),
    }
}

fn want(name: &str, what: &str, found: &Bound<'_, PyAny>) -> PyErr {
    let found = found.repr().map_or_else(|_| "something else".to_owned(), |r| r.to_string());
    let found: String = if found.chars().count() > 60 {
        found.chars().take(57).chain("...".chars()).collect()
    } else {
        found
    };
    invalid(name, format!("must be {what}, not {found}"))
}

fn invalid(name: &str, fault: String) -> PyErr {
    to_exception(&Error::invalid(name, fault))
}
