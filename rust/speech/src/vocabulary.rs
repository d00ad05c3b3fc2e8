//! Whisper's special tokens.

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{Error, Result};
use serde_json::Value;

/// Names of languages, by their codes, in the order in which Whisper was given their tokens.
pub const LANGUAGES: &[(&str, &str)] = &[
    ("en", "english"),
    ("zh", "chinese"),
    ("de", "german"),
    ("es", "spanish"),
    ("ru", "russian"),
    ("ko", "korean"),
    ("fr", "french"),
    ("ja", "japanese"),
    ("pt", "portuguese"),
    ("tr", "turkish"),
    ("pl", "polish"),
    ("ca", "catalan"),
    ("nl", "dutch"),
    ("ar", "arabic"),
    ("sv", "swedish"),
    ("it", "italian"),
    ("id", "indonesian"),
    ("hi", "hindi"),
    ("fi", "finnish"),
    ("vi", "vietnamese"),
    ("he", "hebrew"),
    ("uk", "ukrainian"),
    ("el", "greek"),
    ("ms", "malay"),
    ("cs", "czech"),
    ("ro", "romanian"),
    ("da", "danish"),
    ("hu", "hungarian"),
    ("ta", "tamil"),
    ("no", "norwegian"),
    ("th", "thai"),
    ("ur", "urdu"),
    ("hr", "croatian"),
    ("bg", "bulgarian"),
    ("lt", "lithuanian"),
    ("la", "latin"),
    ("mi", "maori"),
    ("ml", "malayalam"),
    ("cy", "welsh"),
    ("sk", "slovak"),
    ("te", "telugu"),
    ("fa", "persian"),
    ("lv", "latvian"),
    ("bn", "bengali"),
    ("sr", "serbian"),
    ("az", "azerbaijani"),
    ("sl", "slovenian"),
    ("kn", "kannada"),
    ("et", "estonian"),
    ("mk", "macedonian"),
    ("br", "breton"),
    ("eu", "basque"),
    ("is", "icelandic"),
    ("hy", "armenian"),
    ("ne", "nepali"),
    ("mn", "mongolian"),
    ("bs", "bosnian"),
    ("kk", "kazakh"),
    ("sq", "albanian"),
    ("sw", "swahili"),
    ("gl", "galician"),
    ("mr", "marathi"),
    ("pa", "punjabi"),
    ("si", "sinhala"),
    ("km", "khmer"),
    ("sn", "shona"),
    ("yo", "yoruba"),
    ("so", "somali"),
    ("af", "afrikaans"),
    ("oc", "occitan"),
    ("ka", "georgian"),
    ("be", "belarusian"),
    ("tg", "tajik"),
    ("sd", "sindhi"),
    ("gu", "gujarati"),
    ("am", "amharic"),
    ("yi", "yiddish"),
    ("lo", "lao"),
    ("uz", "uzbek"),
    ("fo", "faroese"),
    ("ht", "haitian creole"),
    ("ps", "pashto"),
    ("tk", "turkmen"),
    ("nn", "nynorsk"),
    ("mt", "maltese"),
    ("sa", "sanskrit"),
    ("lb", "luxembourgish"),
    ("my", "myanmar"),
    ("bo", "tibetan"),
    ("tl", "tagalog"),
    ("mg", "malagasy"),
    ("as", "assamese"),
    ("tt", "tatar"),
    ("haw", "hawaiian"),
    ("ln", "lingala"),
    ("ha", "hausa"),
    ("ba", "bashkir"),
    ("jw", "javanese"),
    ("su", "sundanese"),
    ("yue", "cantonese"),
];

/// The tokens that steer the decoder.
#[derive(Clone)]
pub struct Vocabulary {
    /// Text to ids and back.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Ends a text.
    pub end: u32,
    /// Begins a transcript.
    pub start: u32,
    /// Stands before the text that came before.
    pub previous: Option<u32>,
    /// Says that nobody speaks.
    pub no_speech: Option<u32>,
    /// Says that no timestamps follow.
    pub no_timestamps: Option<u32>,
    /// Asks for the language that is spoken, and for English.
    pub transcribe: Option<u32>,
    /// Asks for English.
    pub translate: Option<u32>,
    /// The timestamp of zero seconds, and those behind it, every 0.02 s.
    pub first_timestamp: Option<u32>,
    /// The languages: code and token.
    pub languages: Vec<(&'static str, u32)>,
    /// Never written.
    pub suppressed: Vec<u32>,
    /// Not written first.
    pub suppressed_first: Vec<u32>,
    /// The heads, layer by layer, that follow the sound.
    pub alignment_heads: Vec<(usize, usize)>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("languages", &self.languages.len())
            .finish_non_exhaustive()
    }
}

fn ids(value: Option<&Value>, limit: usize) -> Vec<u32> {
    let ids = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64);
    ids.filter(|&id| (id as usize) < limit).map(|id| id as u32).collect()
}

impl Vocabulary {
    /// The tokens of `tokenizer`, with what `config` and `generation` say; `rows` is the head's and
    /// `shape` the decoder's layers and heads.
    ///
    /// # Errors
    /// `Format` where the tokens that begin or end a text are missing.
    pub fn new(
        tokenizer: Arc<dyn Tokenizer>,
        config: &Value,
        generation: Option<&Value>,
        rows: usize,
        shape: (usize, usize),
        label: &str,
    ) -> Result<Self> {
        let said = |key: &str| {
            let value = generation.and_then(|g| g.get(key)).filter(|v| !v.is_null());
            value.or_else(|| config.get(key).filter(|v| !v.is_null()))
        };
        let id = |key: &str| {
            let id = said(key).and_then(|v| v.as_u64().or_else(|| v.as_array()?.first()?.as_u64()));
            id.filter(|&id| (id as usize) < rows).map(|id| id as u32)
        };
        let piece = |text: &str| tokenizer.token_id(text).filter(|&id| (id as usize) < rows);
        let missing = |what: &str| Error::format(label, what, "is in neither vocabulary nor configuration");
        let start = piece("<|startoftranscript|>").or_else(|| id("decoder_start_token_id"));
        let end = piece("<|endoftext|>").or_else(|| id("eos_token_id"));
        let no_timestamps = piece("<|notimestamps|>").or_else(|| id("no_timestamps_token_id"));
        // older tokenizers leave the timestamps out, which then are the rows behind their last token
        let unnamed = || no_timestamps.map(|id| id + 1).filter(|&id| id as usize >= tokenizer.vocab_size());
        let languages =
            LANGUAGES.iter().filter_map(|&(code, _)| Some((code, piece(&format!("<|{code}|>"))?))).collect();
        let heads: Vec<(usize, usize)> = said("alignment_heads")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair.get(0)?.as_u64()? as usize, pair.get(1)?.as_u64()? as usize)))
            .filter(|&(layer, head)| layer < shape.0 && head < shape.1)
            .collect();
        let alignment_heads = if heads.is_empty() {
            (shape.0 / 2..shape.0).flat_map(|layer| (0..shape.1).map(move |head| (layer, head))).collect()
        } else {
            heads
        };
        Ok(Self {
            end: end.ok_or_else(|| missing("the token `<|endoftext|>`"))?,
            start: start.ok_or_else(|| missing("the token `<|startoftranscript|>`"))?,
            previous: piece("<|startofprev|>").or_else(|| id("prev_sot_token_id")),
            no_speech: piece("<|nospeech|>").or_else(|| piece("<|nocaptions|>")),
            first_timestamp: piece("<|0.00|>").or_else(unnamed).filter(|&id| (id as usize) < rows),
            no_timestamps,
            transcribe: piece("<|transcribe|>"),
            translate: piece("<|translate|>"),
            languages,
            suppressed: ids(said("suppress_tokens"), rows),
            suppressed_first: ids(said("begin_suppress_tokens"), rows),
            alignment_heads,
            tokenizer,
        })
    }

    /// Whether it knows more than English: only then it is told language and task. What English-only
    /// models have of those tokens is never used.
    pub fn is_multilingual(&self, vocab_size: usize) -> bool {
        self.languages.len() > 1 && self.transcribe.is_some() && vocab_size != 51864
    }

    /// The code of a language that is called `name`: a code, or the language's English name.
    pub fn language(&self, name: &str) -> Option<(&'static str, u32)> {
        let name = name.to_lowercase();
        let code = LANGUAGES.iter().find(|(code, full)| *code == name || *full == name)?.0;
        self.languages.iter().copied().find(|(known, _)| *known == code)
    }

    /// Whether `id` is a timestamp.
    pub fn is_timestamp(&self, id: u32) -> bool {
        self.first_timestamp.is_some_and(|first| id >= first)
    }

    /// The text of `ids`, special tokens and timestamps left out.
    pub fn text(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !self.is_timestamp(id)
                && !self.tokenizer.is_special(id)
                && let Some(piece) = self.tokenizer.token_bytes(id)
            {
                bytes.extend_from_slice(&piece);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
