//! `Session`: a loaded model.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use alloyforge::{BackendChoice, DraftSource, OpenOptions, open};
use alloyforge_engine::{ChatRequest, ProbeKind};
use alloyforge_tokenize::without_bos;
use alloyforge_types::{DType, Error, KvType, QuantType};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::bell::Bell;
use crate::conversation::Conversation;
use crate::error::{Raise, core};
use crate::request::Request;
use crate::results::class;
use crate::wait::{elsewhere, until};
use crate::{json, sampling};

/// A loaded model.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Session {
    session: Arc<alloyforge_engine::Session>,
}

/// A chat's prompt.
#[pyclass(frozen, get_all, module = "alloyforge._native")]
pub(crate) struct Prompt {
    text: String,
    tokens: Vec<u32>,
}

/// What a prompt may be.
enum PromptArgument<'py> {
    Text(String),
    Tokens(Vec<u32>),
    Chat(Bound<'py, Prompt>),
}

impl<'py> PromptArgument<'py> {
    fn read(prompt: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        if let Ok(text) = prompt.cast::<PyString>() {
            return Ok(Self::Text(text.to_str()?.to_owned()));
        }
        if let Ok(chat) = prompt.cast::<Prompt>() {
            return Ok(Self::Chat(chat.clone()));
        }
        match prompt.extract() {
            Ok(tokens) => Ok(Self::Tokens(tokens)),
            Err(_) => Err(Error::invalid(name, "must be text or a list of token ids")).raise(),
        }
    }

    /// The token ids, encoded without the interpreter's lock.
    fn tokens(self, py: Python<'py>, session: &alloyforge_engine::Session) -> PyResult<Vec<u32>> {
        match self {
            Self::Text(text) => core(py, || session.encode_prompt(&text)),
            Self::Tokens(tokens) => Ok(tokens),
            Self::Chat(prompt) => Ok(prompt.get().tokens.clone()),
        }
    }
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (
        path, *, device="auto", backend="auto", dtype="auto", quantize=None, context_len=None,
        kv_dtype="auto", kv_memory=None, threads=None, max_batch=None, prefix_cache=true, draft=None,
        progress=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are the public interface's, by keyword only")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        device: &str,
        backend: &str,
        dtype: &str,
        quantize: Option<&str>,
        context_len: Option<usize>,
        kv_dtype: &str,
        kv_memory: Option<u64>,
        threads: Option<usize>,
        max_batch: Option<usize>,
        prefix_cache: bool,
        draft: Option<PathBuf>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        // written by the loader's threads, read here: they never wait for the interpreter's lock
        let told = Arc::new(AtomicU32::new(0));
        let teller = Arc::clone(&told);
        let options = OpenOptions {
            device: device.to_owned(),
            backend: BackendChoice::from_name(backend).raise()?,
            dtype: named("dtype", Some(dtype), DType::from_name, &["f32", "f16", "bf16"])?,
            quantize: named(
                "quantize",
                quantize,
                target_type,
                &["int8", "int4", "q8_0", "q4_0", "q4_k", "..."],
            )?,
            context_len,
            kv_type: named("kv_dtype", Some(kv_dtype), KvType::from_name, &["f32", "f16", "bf16", "q8_0"])?,
            kv_memory,
            threads,
            max_batch,
            no_prefix_cache: !prefix_cache,
            draft: draft
                .map(|d| if d.as_os_str() == "ngram" { DraftSource::Ngram } else { DraftSource::Model(d) }),
            progress: Some(Arc::new(move |done: f32| teller.store(done.to_bits(), Ordering::Relaxed))),
        };
        let session = elsewhere(
            py,
            move || open(&path, &options),
            |_| match progress {
                Some(progress) => progress.call1((f32::from_bits(told.load(Ordering::Relaxed)),)).map(drop),
                None => Ok(()),
            },
        )?;
        Ok(Self { session: Arc::new(session) })
    }

    /// Puts a request in line.
    #[pyo3(signature = (
        prompt, sampling, *, stream=false, bell=None, tag=0, special_text=false, conversation=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are given by keyword only")]
    fn submit(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        sampling: &Bound<'_, PyDict>,
        stream: bool,
        bell: Option<&Bound<'_, Bell>>,
        tag: u64,
        special_text: bool,
        conversation: Option<&Bound<'_, Conversation>>,
    ) -> PyResult<Request> {
        let mut request = self.session.request();
        sampling::apply(sampling, &mut request)?;
        request.stream = stream;
        request.special_text = special_text;
        request.conversation = conversation.map(|c| c.get().id());
        request.prompt = PromptArgument::read(prompt, "prompt")?.tokens(py, &self.session)?;
        let handle = core(py, || self.session.submit(request))?;
        if let Some(bell) = bell {
            let rope = bell.get().rope();
            handle.set_waker(Arc::new(move || rope.ring(tag)));
        }
        Ok(Request::new(handle))
    }

    /// A conversation, which keeps the blocks of the requests that name it.
    fn conversation(&self, py: Python<'_>) -> PyResult<Conversation> {
        let kept = core(py, || self.session.conversation())?;
        Ok(Conversation::new(Arc::clone(&self.session), kept))
    }

    /// The prompt of a chat.
    fn chat_prompt(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        template: Option<String>,
    ) -> PyResult<Prompt> {
        let chat = chat_request(messages, tools, template)?;
        core(py, || {
            Ok(Prompt { text: self.session.render(&chat)?, tokens: self.session.encode_chat(&chat)? })
        })
    }

    /// The text of a chat's prompt.
    fn render(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        template: Option<String>,
    ) -> PyResult<String> {
        let chat = chat_request(messages, tools, template)?;
        core(py, || self.session.render(&chat))
    }

    /// Logits of shape `(n_tokens, vocab)`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let tokens = PromptArgument::read(prompt, "prompt")?.tokens(py, &self.session)?;
        let shape = [tokens.len(), self.session.info().vocab_size];
        let values = self.probe(py, tokens, ProbeKind::Logits)?;
        PyArray1::from_vec(py, values).reshape(shape)
    }

    /// How probable a text is.
    fn score<'py>(&self, py: Python<'py>, prompt: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let tokens = PromptArgument::read(prompt, "text_or_tokens")?.tokens(py, &self.session)?;
        if tokens.len() < 2 {
            let fault = format!("must hold at least two tokens, not {}", tokens.len());
            return Err(Error::invalid("text_or_tokens", fault)).raise();
        }
        let logprobs = self.probe(py, tokens.clone(), ProbeKind::Score)?;
        let mean = logprobs.iter().copied().map(f64::from).sum::<f64>() / logprobs.len() as f64;
        class(py, "Score")?.call1((tokens, PyArray1::from_vec(py, logprobs), (-mean).exp()))
    }

    /// Text to token ids.
    #[pyo3(signature = (text, *, special=true, add_bos=None))]
    fn tokenize(
        &self,
        py: Python<'_>,
        text: &str,
        special: bool,
        add_bos: Option<bool>,
    ) -> PyResult<Vec<u32>> {
        core(py, || self.session.tokenize(text, special, add_bos))
    }

    /// Token ids to text.
    #[pyo3(signature = (tokens, *, skip_special=false))]
    fn detokenize(&self, py: Python<'_>, tokens: Vec<u32>, skip_special: bool) -> PyResult<String> {
        core(py, || self.session.detokenize(without_bos(&**self.session.tokenizer(), &tokens), skip_special))
    }

    /// What is loaded.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = self.session.info();
        let memory = (info.memory.weights, info.memory.kv, info.memory.workspace);
        class(py, "SessionInfo")?.call1((
            &info.architecture,
            info.parameters,
            &info.file_type,
            info.vocab_size,
            info.context_len,
            &info.device,
            info.threads,
            &info.chat_template,
            info.kv_type.name(),
            info.kv_bytes_per_token,
            class(py, "Memory")?.call1(memory)?,
        ))
    }

    /// Counts.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = self.session.stats();
        class(py, "SessionStats")?.call1((
            stats.running,
            stats.waiting,
            stats.kv_blocks_used,
            stats.kv_blocks_total,
            stats.prefix_hit_tokens,
            stats.preemptions,
            stats.prompt_tokens,
            stats.completion_tokens,
            stats.drafted_tokens,
            stats.accepted_tokens,
        ))
    }

    /// Ends all requests and frees the memory.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.session.close());
    }
}

impl Session {
    fn probe(&self, py: Python<'_>, tokens: Vec<u32>, kind: ProbeKind) -> PyResult<Vec<f32>> {
        let probe = core(py, || self.session.probe(tokens, kind))?;
        until(py, move |turn| probe.wait(Some(turn)))?.raise()
    }
}

/// What a name stands for; nothing said and `auto` leave the choice open.
fn named<T>(
    option: &str,
    name: Option<&str>,
    of_name: impl Fn(&str) -> Option<T>,
    known: &[&str],
) -> PyResult<Option<T>> {
    let Some(name) = name.filter(|name| *name != "auto") else { return Ok(None) };
    match of_name(name) {
        Some(found) => Ok(Some(found)),
        None => {
            let fault = format!("`{name}` is none of {}", known.join(", "));
            Err(Error::invalid(option, fault)).raise()
        }
    }
}

fn target_type(name: &str) -> Option<QuantType> {
    match name {
        "int8" => Some(QuantType::Q8_0),
        "int4" => Some(QuantType::Q4K),
        _ => QuantType::from_name(name),
    }
}

fn chat_request(
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    template: Option<String>,
) -> PyResult<ChatRequest> {
    let tools = tools.map(|tools| json::from_python(tools, "tools")).transpose()?;
    Ok(ChatRequest {
        messages: json::from_python(messages, "messages")?,
        tools,
        template,
        ..Default::default()
    })
}
