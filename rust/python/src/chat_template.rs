//! `ChatTemplate`: a template by itself.

use alloyforge_types::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};

use crate::error::{Raise, core};
use crate::json;

/// A chat template, as models carry it.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct ChatTemplate {
    template: alloyforge_template::ChatTemplate,
}

#[pymethods]
impl ChatTemplate {
    #[new]
    fn new(py: Python<'_>, source: &str) -> PyResult<Self> {
        Ok(Self { template: core(py, || alloyforge_template::ChatTemplate::compile(source))? })
    }

    /// Renders the template.
    #[pyo3(signature = (context=None, *, messages=None, tools=None, add_generation_prompt=true, now=None))]
    fn render(
        &self,
        py: Python<'_>,
        context: Option<&Bound<'_, PyDict>>,
        messages: Option<&Bound<'_, PyAny>>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        now: Option<&str>,
    ) -> PyResult<String> {
        let mut variables = match context {
            Some(context) => match json::from_python(context, "context")? {
                Value::Object(variables) => variables,
                _ => return Err(Error::invalid("context", "must be a dictionary")).raise(),
            },
            None => Map::new(),
        };
        for (name, value) in [("messages", messages), ("tools", tools)] {
            if let Some(value) = value {
                variables.insert(name.into(), json::from_python(value, name)?);
            }
        }
        // what the context says outright comes before a default
        variables.entry("add_generation_prompt").or_insert(add_generation_prompt.into());
        core(py, || self.template.render(&Value::Object(variables), now))
    }
}
