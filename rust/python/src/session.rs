//! `Session`: a loaded model.

use std::path::PathBuf;
use std::sync::Arc;

use alloyforge::{BackendChoice, DraftSource, EmbeddingModel, OpenOptions, Opened, open};
use alloyforge_engine::{ChatRequest, Embeddings, MediaPrompt, ProbeKind, PromptSource};
use alloyforge_tokenize::without_bos;
use alloyforge_types::{DType, Error, KvType, QuantMix};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyString};

use crate::bell::Bell;
use crate::conversation::Conversation;
use crate::error::{Raise, core};
use crate::request::Request;
use crate::results::class;
use crate::wait::{elsewhere, until, watched};
use crate::{json, media, sampling};

/// A loaded model.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Session {
    model: Model,
}

/// What it is behind.
enum Model {
    Text(Arc<alloyforge_engine::Session>),
    Embedding(Arc<EmbeddingModel>),
}

/// A prompt that is put together: a chat's, or one with media.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Prompt {
    text: String,
    tokens: Vec<u32>,
    media: Option<MediaPrompt>,
}

#[pymethods]
impl Prompt {
    /// The text before media are expanded; empty where token ids were given.
    #[getter]
    fn text(&self) -> &str {
        &self.text
    }

    /// The token ids.
    #[getter]
    fn tokens(&self) -> Vec<u32> {
        self.tokens.clone()
    }
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

    /// The token ids, encoded without the interpreter's lock, and the media among them.
    fn tokens(
        self,
        py: Python<'py>,
        session: &alloyforge_engine::Session,
    ) -> PyResult<(Vec<u32>, Option<MediaPrompt>)> {
        match self {
            Self::Text(text) => Ok((core(py, || session.encode_prompt(&text))?, None)),
            Self::Tokens(tokens) => Ok((tokens, None)),
            Self::Chat(prompt) => Ok((prompt.get().tokens.clone(), prompt.get().media.clone())),
        }
    }
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (
        path, *, device="auto", backend="auto", dtype="auto", quantize=None, context_len=None,
        kv_dtype="auto", kv_memory=None, threads=None, max_batch=None, prefix_cache=true, projector=None,
        draft=None, progress=None,
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
        projector: Option<PathBuf>,
        draft: Option<PathBuf>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let options = OpenOptions {
            device: device.to_owned(),
            backend: BackendChoice::from_name(backend).raise()?,
            dtype: named("dtype", Some(dtype), DType::from_name, &["f32", "f16", "bf16"])?,
            quantize: named(
                "quantize",
                quantize,
                QuantMix::from_name,
                &QuantMix::names().collect::<Vec<_>>(),
            )?,
            context_len,
            kv_type: named("kv_dtype", Some(kv_dtype), KvType::from_name, &["f32", "f16", "bf16", "q8_0"])?,
            kv_memory,
            threads,
            max_batch,
            no_prefix_cache: !prefix_cache,
            projector,
            draft: draft
                .map(|d| if d.as_os_str() == "ngram" { DraftSource::Ngram } else { DraftSource::Model(d) }),
            progress: None,
        };
        let session =
            watched(py, progress, move |tell| open(&path, &OpenOptions { progress: Some(tell), ..options }))?;
        let model = match session {
            Opened::Text(session) => Model::Text(Arc::from(session)),
            Opened::Embedding(model) => Model::Embedding(Arc::from(model)),
        };
        Ok(Self { model })
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
        let session = self.text()?;
        let mut request = session.request();
        sampling::apply(sampling, &mut request)?;
        request.stream = stream;
        request.special_text = special_text;
        request.conversation = conversation.map(|c| c.get().id());
        let (tokens, media) = PromptArgument::read(prompt, "prompt")?.tokens(py, session)?;
        (request.prompt, request.media) = (tokens, media);
        let handle = core(py, || session.submit(request))?;
        if let Some(bell) = bell {
            let rope = bell.get().rope();
            handle.set_waker(Arc::new(move || rope.ring(tag)));
        }
        Ok(Request::new(handle))
    }

    /// A conversation, which keeps the blocks of the requests that name it.
    fn conversation(&self, py: Python<'_>) -> PyResult<Conversation> {
        let session = self.text()?;
        let kept = core(py, || session.conversation())?;
        Ok(Conversation::new(Arc::clone(session), kept))
    }

    /// The prompt of a chat, with prepared media in it.
    #[pyo3(signature = (messages, tools, template, media=None))]
    fn chat_prompt(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        template: Option<String>,
        media: Option<Vec<Bound<'_, PyAny>>>,
    ) -> PyResult<Prompt> {
        let session = self.text()?;
        let chat = chat_request(messages, tools, template)?;
        let items = media::items(&media.unwrap_or_default())?;
        core(py, || {
            let text = session.render(&chat)?;
            if items.is_empty() {
                return Ok(Prompt { text, tokens: session.encode_chat(&chat)?, media: None });
            }
            let (tokens, media) = session.media_prompt(PromptSource::Chat(&chat), items.hashed())?;
            Ok(Prompt { text, tokens, media: Some(media) })
        })
    }

    /// A prompt with prepared media in the places of its placeholders.
    fn media_prompt(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        media: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<Prompt> {
        let session = self.text()?;
        let items = media::items(&media)?;
        let (text, given) = match PromptArgument::read(prompt, "prompt")? {
            PromptArgument::Text(text) => (text, None),
            PromptArgument::Tokens(tokens) => (String::new(), Some(tokens)),
            PromptArgument::Chat(_) => return Err(Error::invalid("prompt", "has its media already")).raise(),
        };
        core(py, || {
            let source = match &given {
                Some(tokens) => PromptSource::Tokens(tokens),
                None => PromptSource::Text(&text),
            };
            let (tokens, media) = session.media_prompt(source, items.hashed())?;
            Ok(Prompt { text, tokens, media: Some(media) })
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
        let session = self.text()?;
        let chat = chat_request(messages, tools, template)?;
        core(py, || session.render(&chat))
    }

    /// Logits of shape `(n_tokens, vocab)`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let session = self.text()?;
        let (tokens, media) = PromptArgument::read(prompt, "prompt")?.tokens(py, session)?;
        let shape = [tokens.len(), session.info().vocab_size];
        let values = self.probe(py, tokens, media, ProbeKind::Logits)?;
        PyArray1::from_vec(py, values).reshape(shape)
    }

    /// How probable a text is.
    fn score<'py>(&self, py: Python<'py>, prompt: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let session = self.text()?;
        let (tokens, media) = PromptArgument::read(prompt, "text_or_tokens")?.tokens(py, session)?;
        if tokens.len() < 2 {
            let fault = format!("must hold at least two tokens, not {}", tokens.len());
            return Err(Error::invalid("text_or_tokens", fault)).raise();
        }
        let logprobs = self.probe(py, tokens.clone(), media, ProbeKind::Score)?;
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
        match &self.model {
            Model::Text(session) => core(py, || session.tokenize(text, special, add_bos)),
            Model::Embedding(model) => core(py, || model.session.tokenize(text)),
        }
    }

    /// Token ids to text.
    #[pyo3(signature = (tokens, *, skip_special=false))]
    fn detokenize(&self, py: Python<'_>, tokens: Vec<u32>, skip_special: bool) -> PyResult<String> {
        let session = self.text()?;
        core(py, || session.detokenize(without_bos(&**session.tokenizer(), &tokens), skip_special))
    }

    /// What is loaded.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = match &self.model {
            Model::Text(session) => session.info(),
            Model::Embedding(model) => &model.info,
        };
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

    /// The embeddings of texts, of shape `(n, dim)`.
    #[pyo3(signature = (texts, *, normalize=true))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        normalize: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let model = self.embedder("texts")?;
        matrix(py, elsewhere(py, move || model.session.embed(&texts, normalize), |_| Ok(()))?)
    }

    /// How well each document answers a query, in the documents' order.
    fn rerank(&self, py: Python<'_>, query: String, documents: Vec<String>) -> PyResult<Vec<f32>> {
        let model = match &self.model {
            Model::Embedding(model) => Arc::clone(model),
            Model::Text(_) => {
                let fault = "this model writes text and scores no pairs of texts: a cross-encoder does";
                return Err(Error::invalid("documents", fault)).raise();
            }
        };
        elsewhere(py, move || model.session.rerank(&query, &documents), |_| Ok(()))
    }

    /// The embeddings of prepared pictures, of shape `(n, dim)`.
    #[pyo3(signature = (items, *, normalize=true))]
    fn embed_images<'py>(
        &self,
        py: Python<'py>,
        items: Vec<Bound<'py, PyAny>>,
        normalize: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let model = self.embedder("images")?;
        let items = media::items(&items)?;
        let work = move || model.session.embed_images(&items.hashed(), normalize);
        matrix(py, elsewhere(py, work, |_| Ok(()))?)
    }

    /// For each prepared picture its labels with their scores, best first.
    #[pyo3(signature = (items, labels=None))]
    fn classify(
        &self,
        py: Python<'_>,
        items: Vec<Bound<'_, PyAny>>,
        labels: Option<Vec<String>>,
    ) -> PyResult<Vec<Vec<(String, f32)>>> {
        let model = self.embedder("images")?;
        let items = media::items(&items)?;
        elsewhere(py, move || model.session.classify(&items.hashed(), labels.as_deref()), |_| Ok(()))
    }

    /// Which processor prepares the model's media, and how, as JSON; `null` where it takes none.
    fn processor(&self) -> String {
        match &self.model {
            Model::Text(session) => session.processor().to_string(),
            Model::Embedding(model) => model.processor.to_string(),
        }
    }

    /// Counts.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = match &self.model {
            Model::Text(session) => session.stats(),
            Model::Embedding(_) => Default::default(),
        };
        let counts = class(py, "SessionStats")?;
        let named = [
            ("running", stats.running as u64),
            ("waiting", stats.waiting as u64),
            ("kv_blocks_used", stats.kv_blocks_used as u64),
            ("kv_blocks_total", stats.kv_blocks_total as u64),
            ("prefix_hit_tokens", stats.prefix_hit_tokens),
            ("preemptions", stats.preemptions),
            ("prompt_tokens", stats.prompt_tokens),
            ("completion_tokens", stats.completion_tokens),
            ("drafted_tokens", stats.drafted_tokens),
            ("accepted_tokens", stats.accepted_tokens),
            ("steps", stats.steps),
        ]
        .into_py_dict(py)?;
        named.set_item("busy_seconds", stats.busy_seconds)?;
        named.set_item("model_seconds", stats.model_seconds)?;
        counts.call((), Some(&named))
    }

    /// Ends all requests and frees the memory.
    fn close(&self, py: Python<'_>) {
        py.detach(|| match &self.model {
            Model::Text(session) => session.close(),
            Model::Embedding(model) => model.session.close(),
        });
    }
}

/// Rows as an array.
fn matrix(py: Python<'_>, found: Embeddings) -> PyResult<Bound<'_, PyArray2<f32>>> {
    let rows = found.values.len() / found.dim.max(1);
    PyArray1::from_vec(py, found.values).reshape([rows, found.dim])
}

impl Session {
    /// The model where it writes.
    fn text(&self) -> PyResult<&Arc<alloyforge_engine::Session>> {
        match &self.model {
            Model::Text(session) => Ok(session),
            Model::Embedding(_) => Err(Error::invalid("model", "has no decoder: it writes no text")).raise(),
        }
    }

    /// The model where it embeds.
    fn embedder(&self, name: &str) -> PyResult<Arc<EmbeddingModel>> {
        match &self.model {
            Model::Embedding(model) => Ok(Arc::clone(model)),
            Model::Text(_) => {
                let fault = "this model writes text, and its files do not say how it would embed: \
                             sentence-transformers' modules.json beside config.json does, or a GGUF \
                             file's pooling_type";
                Err(Error::invalid(name, fault)).raise()
            }
        }
    }

    fn probe(
        &self,
        py: Python<'_>,
        tokens: Vec<u32>,
        media: Option<MediaPrompt>,
        kind: ProbeKind,
    ) -> PyResult<Vec<f32>> {
        let session = self.text()?;
        let probe = core(py, || session.probe(tokens, media, kind))?;
        until(py, move |turn| probe.wait(Some(turn)))?.raise()
    }
}

/// What a name stands for; nothing said and `auto` leave the choice open.
pub(crate) fn named<T>(
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
