//! A model with its texts: what users hold.

use std::path::Path;
use std::sync::Arc;

use alloyforge_interfaces::{MediaPrompts, MemoryUse, Model, Tokenizer};
use alloyforge_tokenize::{decode, encode_with_bos};
use alloyforge_types::{Error, KvType, MediaItem, MediaKind, Result};
use serde_json::{Map, Value};

use crate::chat::{Chat, ChatRequest};
use crate::defaults::default_request;
use crate::media::{Assembly, Source};
use crate::{
    Conversation, Draft, Engine, EngineOptions, Handle, MediaModel, MediaPrompt, Probe, ProbeKind, Request,
    Stats,
};

/// What a session is made of.
pub struct SessionParts {
    /// The model, loaded for the rows that `options` name.
    pub model: Box<dyn Model>,
    /// Its tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Its chat template's source. One that does not compile is an error when it is used.
    pub chat_template: Option<String>,
    /// What templates may name beside the messages: `bos_token`, `eos_token`, …, each a text.
    pub template_variables: Map<String, Value>,
    /// Its `generation_config.json`.
    pub generation_config: Option<Value>,
    /// Its parameters, counted.
    pub parameters: u64,
    /// The type of most of its weights.
    pub file_type: String,
    /// What it sees and hears with.
    pub media: Option<MediaModel>,
    /// Limits and sizes.
    pub options: EngineOptions,
    /// Where guesses at the tokens to come are from.
    pub draft: Draft,
}

/// What there is to know of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// The family's name.
    pub architecture: String,
    /// Parameters, counted.
    pub parameters: u64,
    /// The type of most weights.
    pub file_type: String,
    /// Rows of the model's embedding.
    pub vocab_size: usize,
    /// Most tokens that one sequence may hold.
    pub context_len: usize,
    /// The device, by the name the public API uses.
    pub device: String,
    /// Threads that compute.
    pub threads: usize,
    /// The chat template's source.
    pub chat_template: Option<String>,
    /// The type of cached keys and values.
    pub kv_type: KvType,
    /// Bytes that one token takes in the KV cache.
    pub kv_bytes_per_token: u64,
    /// Bytes held.
    pub memory: MemoryUse,
}

/// A prompt that media belong to.
#[derive(Debug, Clone, Copy)]
pub enum PromptSource<'a> {
    /// Text, in which special tokens are read as such.
    Text(&'a str),
    /// Token ids.
    Tokens(&'a [u32]),
    /// A conversation.
    Chat(&'a ChatRequest),
}

/// A model that serves requests. Any thread may call any method at any time.
pub struct Session {
    engine: Engine,
    tokenizer: Arc<dyn Tokenizer>,
    chat: Chat,
    default_request: Request,
    media: Option<MediaModel>,
    info: Info,
}

impl Session {
    /// Starts serving.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn new(parts: SessionParts) -> Result<Self> {
        let SessionParts {
            model, tokenizer, chat_template, template_variables, options, draft, media, ..
        } = parts;
        let mut engine = Engine::start_drafting(model, draft, Arc::clone(&tokenizer), &options)?;
        let mut encoder_bytes = 0;
        if let Some(media) = &media {
            encoder_bytes = media.encoder.bytes();
            engine = engine.with_encoder(Arc::clone(&media.encoder))?;
        }
        let facts = engine.facts();
        let spec = &facts.spec;
        let token_bytes =
            (0..spec.kv_groups.len()).map(|g| spec.kv_token_bytes(g, facts.kv_type) as u64).sum();
        let info = Info {
            architecture: spec.architecture.clone(),
            parameters: parts.parameters,
            file_type: parts.file_type,
            vocab_size: spec.vocab_size,
            context_len: facts.kv.context_len,
            device: facts.device.clone(),
            threads: facts.threads,
            chat_template: chat_template.clone(),
            kv_type: facts.kv_type,
            kv_bytes_per_token: token_bytes,
            memory: MemoryUse { weights: facts.memory.weights + encoder_bytes, ..facts.memory },
        };
        Ok(Self {
            default_request: default_request(parts.generation_config.as_ref(), info.vocab_size),
            chat: Chat::new(
                Arc::clone(&tokenizer),
                chat_template.as_deref(),
                template_variables,
                media.as_ref().map(|m| Arc::clone(&m.prompts)),
            ),
            engine,
            tokenizer,
            media,
            info,
        })
    }

    /// What there is to know of it.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    /// Which processor prepares its media, and how; null where it takes none.
    pub fn processor(&self) -> &Value {
        self.media.as_ref().map_or(&Value::Null, |m| &m.processor)
    }

    /// Counts, also of a session that is closed.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// A request without a prompt, as the model's own generation settings want it.
    pub fn request(&self) -> Request {
        self.default_request.clone()
    }

    /// Puts a request in line.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit(&self, request: Request) -> Result<Handle> {
        self.engine.submit(request)
    }

    /// As [`Engine::conversation`].
    ///
    /// # Errors
    /// As [`Engine::conversation`].
    pub fn conversation(&self) -> Result<Conversation> {
        self.engine.conversation()
    }

    /// As [`Engine::fork`].
    ///
    /// # Errors
    /// As [`Engine::fork`].
    pub fn fork(&self, conversation: &Conversation) -> Result<Conversation> {
        self.engine.fork(conversation)
    }

    /// As [`Engine::save`].
    ///
    /// # Errors
    /// As [`Engine::save`].
    pub fn save(&self, conversation: &Conversation, path: &Path, text: String) -> Result<()> {
        self.engine.save(conversation, path, text)
    }

    /// As [`Engine::restore`].
    ///
    /// # Errors
    /// As [`Engine::restore`].
    pub fn restore(&self, conversation: &Conversation, path: &Path) -> Result<String> {
        self.engine.restore(conversation, path)
    }

    /// The tokens of `text`. Special tokens written in it become their ids where `special`. BOS is put
    /// first where `add_bos` says so (`None`: where the model wants it), unless it is there already.
    ///
    /// # Errors
    /// `InvalidRequest` where the vocabulary cannot express the text; `Closed`.
    pub fn tokenize(&self, text: &str, special: bool, add_bos: Option<bool>) -> Result<Vec<u32>> {
        self.engine.check_open()?;
        encode_with_bos(&*self.tokenizer, text, special, add_bos)
    }

    /// The tokens of a prompt: [`tokenize`](Self::tokenize) with special tokens and the model's BOS.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenize(text, true, None)
    }

    /// The text of `tokens`, with that of special tokens unless `skip_special`.
    ///
    /// # Errors
    /// `InvalidRequest` naming an id outside the vocabulary; `Closed`.
    pub fn detokenize(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        self.engine.check_open()?;
        if let Some(id) = tokens.iter().find(|&&id| self.tokenizer.token_bytes(id).is_none()) {
            return Err(Error::invalid("tokens", format!("token id {id} is outside the vocabulary")));
        }
        Ok(decode(&*self.tokenizer, tokens, skip_special))
    }

    /// The text that a chat's template gives.
    ///
    /// # Errors
    /// `InvalidRequest` naming what is at fault: the template, the messages; `Closed`.
    pub fn render(&self, chat: &ChatRequest) -> Result<String> {
        self.engine.check_open()?;
        self.chat.render(chat)
    }

    /// The tokens of a chat. Special tokens are those that the template writes; written in a message,
    /// their spelling is text like any other.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn encode_chat(&self, chat: &ChatRequest) -> Result<Vec<u32>> {
        self.engine.check_open()?;
        self.chat.encode(chat)
    }

    /// The tokens of a prompt with `items` in the places of its placeholders, and the media in them:
    /// both go into one [`Request`]. BOS is put first as in [`encode_prompt`](Self::encode_prompt).
    ///
    /// # Errors
    /// `InvalidRequest` for media that the model does not take, and where the items of a kind and their
    /// placeholders differ in number; `Media`; `Closed`.
    pub fn media_prompt(
        &self,
        prompt: PromptSource<'_>,
        items: Vec<MediaItem>,
    ) -> Result<(Vec<u32>, MediaPrompt)> {
        self.engine.check_open()?;
        let prompts = self.media_prompts(&items)?;
        let assembly = Assembly::new(prompts, &*self.tokenizer, items);
        let (mut tokens, mut media) = match prompt {
            PromptSource::Text(text) => assembly.build(&Source::Text(text, &[]))?,
            PromptSource::Tokens(tokens) => assembly.build(&Source::Tokens(tokens))?,
            PromptSource::Chat(chat) => {
                let (text, literal) = self.chat.text(chat)?;
                assembly.build(&Source::Text(&text, &literal))?
            }
        };
        let (bos, by_default) = self.tokenizer.bos();
        if let (Some(bos), PromptSource::Text(_)) = (bos, prompt)
            && by_default
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
            media.shift(1);
        }
        media.locate(prompts, tokens.len())?;
        Ok((tokens, media))
    }

    /// How the model's prompts hold `items`.
    fn media_prompts(&self, items: &[MediaItem]) -> Result<&dyn MediaPrompts> {
        let prompts = self.media.as_ref().map(|m| &*m.prompts);
        let refused = items.iter().find(|item| prompts.is_none_or(|p| p.placeholders(item.kind).is_empty()));
        match (prompts, refused) {
            (Some(prompts), None) => Ok(prompts),
            (_, refused) => {
                let kind = refused.map_or(MediaKind::Image, |item| item.kind);
                Err(Error::invalid(kind.parameter(), "the model takes none"))
            }
        }
    }

    /// Begins to read out what the model thinks of `tokens`.
    ///
    /// # Errors
    /// As [`Engine::probe`].
    pub fn probe(&self, tokens: Vec<u32>, media: Option<MediaPrompt>, kind: ProbeKind) -> Result<Probe> {
        self.engine.probe_with(tokens, media, kind)
    }

    /// The logits of every token, of shape `[tokens, vocab]`.
    ///
    /// # Errors
    /// As [`Engine::probe`], and whatever the model fails with.
    pub fn logits(&self, tokens: Vec<u32>) -> Result<Vec<f32>> {
        self.wait(tokens, ProbeKind::Logits)
    }

    /// The natural log probability of every token but the first, given those before it.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn score(&self, tokens: Vec<u32>) -> Result<Vec<f32>> {
        self.wait(tokens, ProbeKind::Score)
    }

    fn wait(&self, tokens: Vec<u32>, kind: ProbeKind) -> Result<Vec<f32>> {
        self.engine.probe(tokens, kind)?.wait(None).unwrap_or(Err(Error::Closed))
    }

    /// Ends all requests with `Closed` and frees the model's memory. Calls after the first do nothing.
    pub fn close(&self) {
        self.engine.close();
    }
}
