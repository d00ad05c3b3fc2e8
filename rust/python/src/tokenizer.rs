//! `Tokenizer`: a model's tokenizer by itself.

use std::path::PathBuf;

use alloyforge_interfaces::Tokenizer as _;
use alloyforge_tokenize::{TextTokenizer, decode, encode_with_bos, without_bos};
use alloyforge_types::Error;
use pyo3::prelude::*;

use crate::error::core;

/// Text to token ids and back.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Tokenizer {
    tokenizer: TextTokenizer,
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(Self { tokenizer: core(py, || alloyforge::open_tokenizer(&path))? })
    }

    /// One more than the highest id.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// The token ids of a text.
    #[pyo3(signature = (text, *, special=true, add_bos=None))]
    fn encode(&self, py: Python<'_>, text: &str, special: bool, add_bos: Option<bool>) -> PyResult<Vec<u32>> {
        core(py, || encode_with_bos(&self.tokenizer, text, special, add_bos))
    }

    /// The text of token ids.
    #[pyo3(signature = (tokens, *, skip_special=false))]
    fn decode(&self, py: Python<'_>, tokens: Vec<u32>, skip_special: bool) -> PyResult<String> {
        core(py, || {
            let tokens = without_bos(&self.tokenizer, &tokens);
            if let Some(id) = tokens.iter().find(|&&id| self.tokenizer.token_bytes(id).is_none()) {
                return Err(Error::invalid("tokens", format!("token id {id} is outside the vocabulary")));
            }
            Ok(decode(&self.tokenizer, tokens, skip_special))
        })
    }
}
