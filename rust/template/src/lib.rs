//! Chat templates: jinja2 as transformers sets it up, with bounds.
//!
//! A chat template is a program that comes with a model, written for one implementation: Python's
//! jinja2 in an immutable sandbox, with `trim_blocks`, `lstrip_blocks`, loop controls, a `generation`
//! tag, and a `tojson` that escapes no HTML. What it prints is the prompt, so a space too many is a
//! worse answer. This crate therefore follows jinja2 and, below it, Python: how values print, compare,
//! divide, slice and fail.
//!
//! It is also untrusted, so a rendering has a budget of work, memory and depth, and every allocation
//! whose size the template chooses is counted before it is made.
//!
//! A key decision: minijinja gives the tokens, and grammar, values and evaluation are ours. Its
//! grammar and its values are another language's (`str(True)`, `7 / 2`, `{{ 1, 2 }}`, `x[]`, when an
//! attribute is missing), and its operators make a string of ten gigabytes before anything is asked.
//!
//! What of jinja2 is missing, and fails with a message when used: `autoescape true`, random filters
//! and functions, `pprint` and `urlize`, integers beyond 128 bits, and everything that loads another
//! template.
//!
//! ```
//! let template = alloyforge_template::ChatTemplate::compile(
//!     "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}",
//! )?;
//! let context = serde_json::json!({"messages": [{"role": "user", "content": " Hello "}]});
//! assert_eq!(template.render(&context, None)?, "<|user|>Hello\n");
//! # Ok::<(), alloyforge_types::Error>(())
//! ```
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod args;
mod budget;
mod clock;
mod eval;
mod fault;
mod filters;
mod format;
mod globals;
mod json;
mod methods;
mod ops;
mod predicates;
mod strings;
mod syntax;
mod unicode;
mod value;

use std::sync::Arc;

use alloyforge_types::{Error, Result};
use serde_json::Value as Json;

use clock::Clock;
use eval::Interp;

/// A template, read once and rendered any number of times, from any thread.
#[derive(Clone)]
pub struct ChatTemplate {
    source: Arc<syntax::Source>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("names", &self.source.names).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// `InvalidRequest` for `chat_template`: a syntax error, with its line, or a source that is too
    /// long or too deeply nested.
    pub fn compile(source: &str) -> Result<Self> {
        Ok(Self { source: Arc::new(syntax::parse(source)?) })
    }

    /// Renders the template with the variables in `context`, an object or null.
    ///
    /// `now` is what `strftime_now` takes for the present, in ISO 8601; `None`: the system's clock, in
    /// local time.
    ///
    /// # Errors
    /// `InvalidRequest`: for `chat_template` where the template fails, with the message that it gave
    /// to `raise_exception` as the fault, or uses up its budget; for `context` and `now` where they
    /// are not of their form.
    pub fn render(&self, context: &Json, now: Option<&str>) -> Result<String> {
        let clock = match now {
            Some(now) => Clock::parse(now)?,
            None => Clock::now(),
        };
        let empty = serde_json::Map::new();
        let context = match context {
            Json::Object(map) => map,
            Json::Null => &empty,
            _ => return Err(Error::invalid("context", "the template's variables must be an object")),
        };
        Ok(Interp::render(&self.source, context, clock)?)
    }

    /// Whether the template reads the variable `name`: `tools`, say.
    pub fn mentions(&self, name: &str) -> bool {
        self.source.names.iter().any(|known| &**known == name)
    }
}
