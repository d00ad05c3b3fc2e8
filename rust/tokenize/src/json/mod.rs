//! Tokenizers from `tokenizer.json`, run by the `tokenizers` crate.
//!
//! The crate does the work, with some of its parts replaced: regular expressions, whose engine gives up
//! on long runs (see [`crate::pattern`]); decoding, which must give each token's bytes by itself; what is
//! put around a text; and the model, which all pipelines share: one that reads special tokens in a text,
//! and those to which they are text.

mod decoder;
mod frame;
mod model;
mod normalizer;
mod pipelines;
mod pre_tokenizer;

use std::borrow::Cow;
use std::ops::Range;

use alloyforge_types::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, Model, ModelWrapper, TokenizerImpl};

use crate::tokenizer::TextTokenizer;
use decoder::Decoder;
pub(crate) use decoder::clean_up;
use frame::Frame;
use model::Shared;
use normalizer::Normalizer;
use pipelines::{Pipelines, Trio, guarded};
use pre_tokenizer::PreTokenizer;

/// The tokenizer that a `tokenizer.json` describes. `label` names the file in errors; the other
/// arguments are the parsed files of the same folder, which say what begins and ends a text.
///
/// # Errors
/// `Format` where the file is no tokenizer.
pub fn from_json(
    bytes: &[u8],
    label: &str,
    tokenizer_config: Option<&Value>,
    config: Option<&Value>,
    generation_config: Option<&Value>,
) -> Result<TextTokenizer> {
    let about = Folder { tokenizer_config, config, generation_config };
    guarded(|| JsonTokenizer::read(bytes, &about))
        .map(TextTokenizer::from)
        .map_err(|fault| Error::format(label, "tokenizer", fault))
}

/// What a folder says beside its `tokenizer.json`.
struct Folder<'a> {
    tokenizer_config: Option<&'a Value>,
    config: Option<&'a Value>,
    generation_config: Option<&'a Value>,
}

impl Folder<'_> {
    /// The text of a token that the tokenizer's configuration names.
    fn token(&self, key: &str) -> Option<&str> {
        text_of(self.tokenizer_config?.get(key)?)
    }

    /// The ids under `key` of the first file that has it.
    fn ids(&self, key: &str) -> Vec<u32> {
        let nested = self.config.and_then(|config| config.get("text_config"));
        for file in [self.generation_config, self.config, nested].into_iter().flatten() {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids: Vec<u32> = match file.get(key) {
                Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
                Some(value) => id(value).into_iter().collect(),
                None => continue,
            };
            if !ids.is_empty() {
                return ids;
            }
        }
        Vec::new()
    }

    /// The texts of all tokens that the tokenizer's configuration calls special.
    fn special_tokens(&self) -> Vec<&str> {
        let Some(config) = self.tokenizer_config.and_then(Value::as_object) else { return Vec::new() };
        let named = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
        let mut texts: Vec<&str> =
            named.iter().filter_map(|name| self.token(&format!("{name}_token"))).collect();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            match config.get(key) {
                Some(Value::Array(tokens)) => texts.extend(tokens.iter().filter_map(text_of)),
                Some(Value::Object(tokens)) => texts.extend(tokens.values().filter_map(text_of)),
                _ => {}
            }
        }
        if let Some(Value::Object(tokens)) = config.get("added_tokens_decoder") {
            let special = |token: &&Value| token.get("special") == Some(&Value::Bool(true));
            texts.extend(tokens.values().filter(special).filter_map(text_of));
        }
        texts
    }
}

/// A token's text, written as such or as an object with its content.
fn text_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// What must be known of the file before it can be read as a whole.
#[derive(Deserialize)]
struct Outline {
    model: ModelOutline,
}

#[derive(Deserialize)]
struct ModelOutline {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

type Pipeline<M> = TokenizerImpl<Shared<M>, Normalizer, PreTokenizer, Frame, Decoder>;

/// A tokenizer and what its folder says of it.
pub(crate) struct JsonTokenizer {
    pipelines: Box<dyn Pipelines>,
    decoder: Decoder,
    frame: Frame,
    bos: Option<u32>,
    eos: Vec<u32>,
    unknown: Option<u32>,
    vocab_size: usize,
}

impl JsonTokenizer {
    fn read(bytes: &[u8], about: &Folder<'_>) -> std::result::Result<Self, String> {
        let outline: Outline = serde_json::from_slice(bytes).map_err(|fault| fault.to_string())?;
        // Read by its own type, the model is not held in memory as JSON first.
        match outline.model.kind.as_deref() {
            Some("BPE") => Self::build(read_pipeline::<BPE>(bytes)?, outline.model, about),
            _ => Self::build(read_pipeline::<ModelWrapper>(bytes)?, outline.model, about),
        }
    }

    fn build<M>(
        mut pipeline: Pipeline<M>,
        outline: ModelOutline,
        about: &Folder<'_>,
    ) -> std::result::Result<Self, String>
    where
        M: Model + Send + Sync + 'static,
    {
        let fault = |fault: tokenizers::Error| fault.to_string();
        // A tokenizer neither cuts nor fills a text: the caller does.
        pipeline.with_truncation(None).map_err(fault)?;
        pipeline.with_padding(None);
        // Tokens that only the configuration calls special, of those that there are.
        let added = pipeline.get_added_vocabulary().get_vocab();
        let missing = |text: &&str| !added.contains_key(*text) && pipeline.token_to_id(text).is_some();
        let missing =
            about.special_tokens().into_iter().filter(missing).map(|text| AddedToken::from(text, true));
        let missing: Vec<AddedToken> = missing.collect();
        pipeline.add_special_tokens(missing).map_err(fault)?;

        let bos = about.token("bos_token").and_then(|text| pipeline.token_to_id(text));
        let eos = about.token("eos_token").and_then(|text| pipeline.token_to_id(text));
        let mut frame = pipeline.get_post_processor().cloned().unwrap_or_default();
        let flag = |key: &str| about.tokenizer_config.and_then(|config| config.get(key));
        let (add_bos, add_eos) = (flag("add_bos_token"), flag("add_eos_token"));
        // Said there, this replaces what the tokenizer itself would add, as transformers 5 has it.
        if add_bos.is_some() || add_eos.is_some() {
            let wanted = |flag: Option<&Value>| flag == Some(&Value::Bool(true));
            frame.before = bos.filter(|_| wanted(add_bos)).into_iter().collect();
            frame.behind = eos.filter(|_| wanted(add_eos)).into_iter().collect();
        }
        let mut ends = about.ids("eos_token_id");
        if ends.is_empty() {
            ends.extend(eos);
        }
        let unknown = outline.unk_token.and_then(|text| pipeline.token_to_id(&text)).or(outline.unk_id);
        Ok(Self {
            bos: frame.before.first().copied().or(bos).or_else(|| about.ids("bos_token_id").first().copied()),
            frame,
            eos: ends,
            unknown,
            vocab_size: vocab_size(&pipeline),
            decoder: pipeline.get_decoder().cloned().unwrap_or_default(),
            pipelines: Box::new(Trio::new(pipeline).map_err(fault)?),
        })
    }

    /// The ids of `text`, without what begins and ends a text.
    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.pipelines.encode(text, special).map_err(|fault| Error::invalid("text", fault))
    }

    /// As [`encode`](Self::encode) with special tokens, but none from what touches one of `literal`.
    pub(crate) fn encode_around(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>> {
        self.pipelines.encode_around(text, literal).map_err(|fault| Error::invalid("text", fault))
    }

    /// The bytes that a token adds to a text.
    pub(crate) fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let token = self.pipelines.token(id)?;
        Some(Cow::Owned(self.decoder.bytes(&token)))
    }

    /// One more than the highest id.
    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether a token is no text.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.pipelines.is_special(id)
    }

    /// The token that is `piece`.
    pub(crate) fn token_id(&self, piece: &str) -> Option<u32> {
        self.pipelines.id(piece)
    }

    /// Whether a decoded text has a blank too many at its beginning.
    pub(crate) fn strips_leading_space(&self) -> bool {
        self.decoder.strips_leading_space()
    }

    /// The token that begins a text, and whether it is put before one.
    pub(crate) fn bos(&self) -> (Option<u32>, bool) {
        (self.bos, !self.frame.before.is_empty())
    }

    /// The tokens that end an answer.
    pub(crate) fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The token for what the vocabulary cannot express.
    pub(crate) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// What is put before and behind a text.
    pub(crate) fn frame(&self) -> (Vec<u32>, Vec<u32>) {
        (self.frame.before.clone(), self.frame.behind.clone())
    }
}

fn read_pipeline<'a, M>(bytes: &'a [u8]) -> std::result::Result<Pipeline<M>, String>
where
    M: Model + Deserialize<'a>,
{
    serde_json::from_slice(bytes).map_err(|fault| fault.to_string())
}

fn vocab_size<M: Model>(pipeline: &Pipeline<M>) -> usize {
    let model = pipeline.get_model();
    let count = model.get_vocab_size();
    let last = u32::try_from(count).unwrap_or(u32::MAX).saturating_sub(1);
    // Without gaps the count says it; with gaps all ids must be looked at.
    let dense = count == 0 || model.id_to_token(last).is_some();
    let own = if dense { count } else { model.get_vocab().values().max().map_or(0, |&id| id as usize + 1) };
    let added = pipeline.get_added_vocabulary().get_added_tokens_decoder();
    own.max(added.keys().max().map_or(0, |&id| id as usize + 1))
}
