//! The core's results as the dataclasses of `alloyforge.results`.

use alloyforge_engine::{Chunk, Completion, Event, Output, Timings, TokenLogprob, Usage};
use alloyforge_types::Error;
use pyo3::prelude::*;

use crate::error::Raise;

/// The class `name` of `alloyforge.results`.
pub(crate) fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("alloyforge.results")?.getattr(name)
}

/// An event as a `Chunk` or a `Completion`.
///
/// # Errors
/// What the request failed with.
pub(crate) fn event<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyAny>> {
    match event {
        Event::Chunk(chunk) => self::chunk(py, chunk),
        Event::Finished(output) => completion(py, *output),
        Event::Failed(error) => Err(error).raise(),
    }
}

fn chunk(py: Python<'_>, chunk: Chunk) -> PyResult<Bound<'_, PyAny>> {
    let logprobs = logprobs(py, chunk.logprobs)?;
    class(py, "Chunk")?.call1((chunk.text, chunk.tokens, logprobs, chunk.choice))
}

/// The first choice, with the others in it. Its usage counts the whole request.
fn completion(py: Python<'_>, output: Output) -> PyResult<Bound<'_, PyAny>> {
    let Output { choices, usage, timings } = output;
    let timings = self::timings(py, timings)?;
    let mut choices = choices.into_iter();
    let Some(first) = choices.next() else {
        return Err(Error::internal("a request without an answer")).raise();
    };
    let mut others = Vec::with_capacity(choices.len());
    for choice in choices {
        let usage = Usage { completion_tokens: choice.tokens.len(), ..usage };
        others.push(one(py, choice, usage, &timings, Vec::new())?);
    }
    one(py, first, usage, &timings, others)
}

fn one<'py>(
    py: Python<'py>,
    choice: Completion,
    usage: Usage,
    timings: &Bound<'py, PyAny>,
    others: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let Usage { prompt_tokens, cached_tokens, completion_tokens, drafted_tokens, accepted_tokens } = usage;
    let usage = (prompt_tokens, cached_tokens, completion_tokens, drafted_tokens, accepted_tokens);
    let usage = class(py, "Usage")?.call1(usage)?;
    let Completion { text, tokens, logprobs, finish_reason, .. } = choice;
    let logprobs = self::logprobs(py, logprobs)?;
    class(py, "Completion")?.call1((text, tokens, logprobs, finish_reason.name(), usage, timings, others))
}

fn timings(py: Python<'_>, timings: Timings) -> PyResult<Bound<'_, PyAny>> {
    let Timings { queue, prefill, decode, first_token } = timings;
    class(py, "Timings")?.call1((queue, prefill, decode, first_token))
}

fn logprobs<'py>(
    py: Python<'py>,
    logprobs: Option<Vec<TokenLogprob>>,
) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    let Some(logprobs) = logprobs else { return Ok(None) };
    let class = class(py, "Logprob")?;
    let mut out = Vec::with_capacity(logprobs.len());
    for TokenLogprob { token, logprob, top } in logprobs {
        let top: PyResult<Vec<_>> = top.into_iter().map(|pair| class.call1(pair)).collect();
        out.push(class.call1((token, logprob, top?))?);
    }
    Ok(Some(out))
}
