//! Tokenizers from the metadata of a GGUF file.

use std::borrow::Cow;
use std::ops::Range;

use alloyforge_types::{Error, Metadata, Result};

use crate::byte_level;
use crate::json::clean_up;
use crate::keys::Keys;
use crate::models::{
    Bpe, CharsMap, Inexpressible, Plamo2, Rwkv, Spelling, Unigram, WordPiece, encode_spm, unescape,
};
use crate::partition::{Fragment, Partition};
use crate::pre_tokenizers::{self, PreTokenizer};
use crate::special::{Specials, set_stripping};
use crate::splitter::Splitter;
use crate::tokenizer::TextTokenizer;
use crate::vocabulary::{Kind, Vocabulary, parse_byte};

/// The tokenizer that the metadata of a GGUF file describes; `label` names the file in errors.
///
/// # Errors
/// `Format` for a vocabulary that is damaged or contradicts itself, naming the key; `Unsupported` for
/// a model or a pre-tokenizer that is not known.
pub fn from_gguf(metadata: &Metadata, label: &str) -> Result<TextTokenizer> {
    GgufTokenizer::read(Keys::new(metadata, label)).map(TextTokenizer::from)
}

/// How text becomes ids.
#[derive(Debug)]
enum Model {
    Bpe(Bpe),
    /// Byte pair encoding of what lies between blanks, which are no tokens.
    Blankless {
        bpe: Bpe,
        lowercase: bool,
    },
    Spm {
        add_space_prefix: bool,
    },
    WordPiece(WordPiece),
    Unigram(Unigram),
    Rwkv(Rwkv),
    Plamo2(Plamo2),
}

/// How a token's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// Bytes as characters.
    ByteLevel,
    /// Blanks as `▁`.
    Marked,
    /// As it is.
    Plain,
    /// Like `Marked`; and blanks before punctuation, which no text has, are left out.
    Words,
    /// With escapes.
    Escaped,
}

/// A vocabulary, its model and its conventions.
#[derive(Debug)]
pub(crate) struct GgufTokenizer {
    vocabulary: Vocabulary,
    model: Model,
    partition: Partition,
    specials: Specials,
    writing: Writing,
    add_bos: bool,
    add_eos: bool,
    strips_leading_space: bool,
}

/// What `tokenizer.ggml.model` says, and what follows from it alone.
struct Family {
    kind: FamilyKind,
    defaults: Specials,
    add_bos: bool,
    add_eos: bool,
    add_separator: bool,
}

#[derive(Clone, Copy)]
enum FamilyKind {
    Bpe { pre: &'static PreTokenizer, blankless: bool },
    Spm,
    WordPiece,
    Unigram,
    Rwkv,
    Plamo2,
}

impl Family {
    fn read(keys: Keys<'_>) -> Result<Self> {
        let model = keys.str("model")?.ok_or_else(|| keys.fault("model", "the file has no tokenizer"))?;
        let pre = keys.str("pre")?.unwrap_or("");
        let ids = |bos: Option<u32>, eos: Option<u32>, unknown: Option<u32>| Specials {
            bos,
            eos,
            unknown,
            ..Specials::default()
        };
        let family = |kind, defaults, add_bos, add_eos, add_separator| Self {
            kind,
            defaults,
            add_bos,
            add_eos,
            add_separator,
        };
        Ok(match model {
            "gpt2" | "gemma4" | "whitespace" => {
                let pre = match (model, pre) {
                    ("gemma4", _) => "gemma4",
                    (_, "") => "default",
                    (_, pre) => pre,
                };
                let pre = pre_tokenizers::find(pre).ok_or_else(|| {
                    Error::unsupported(keys.label, format!("{} = \"{pre}\"", Keys::full("pre")))
                })?;
                let defaults = match model {
                    "gemma4" => ids(None, None, None),
                    _ => ids(if pre.no_bos { None } else { Some(11) }, Some(11), None),
                };
                let kind = FamilyKind::Bpe { pre, blankless: model == "whitespace" };
                family(kind, defaults, pre.add_bos, false, pre.add_sep)
            }
            "llama" => family(FamilyKind::Spm, ids(Some(1), Some(2), Some(0)), true, false, false),
            "bert" => {
                let defaults = Specials { separator: Some(102), ..ids(Some(101), None, Some(100)) };
                family(FamilyKind::WordPiece, defaults, true, false, true)
            }
            "t5" => family(FamilyKind::Unigram, ids(None, Some(1), Some(2)), false, true, false),
            "rwkv" => family(FamilyKind::Rwkv, Specials::default(), false, false, false),
            "plamo2" => family(FamilyKind::Plamo2, ids(Some(1), Some(2), Some(0)), false, false, false),
            "none" | "no_vocab" => return Err(keys.fault("model", "the file has no tokenizer")),
            other => {
                let what = format!("{} = \"{other}\"", Keys::full("model"));
                return Err(Error::unsupported(keys.label, what));
            }
        })
    }
}

/// Reads the tokens with their kinds and scores.
fn read_vocabulary(keys: Keys<'_>) -> Result<Vocabulary> {
    let texts = keys.strings("tokens")?.ok_or_else(|| keys.fault("tokens", "is missing"))?;
    let enough = |key: &str, len: usize| {
        if len >= texts.len() {
            return Ok(());
        }
        Err(keys.fault(key, format!("has {len} entries for {} tokens", texts.len())))
    };
    let mut kinds = Vec::new();
    if let Some(numbers) = keys.integers("token_type")? {
        enough("token_type", numbers.len())?;
        kinds = numbers.into_iter().map(Kind::from_number).collect();
    }
    let mut scores = Vec::new();
    if let Some(values) = keys.floats("scores")? {
        enough("scores", values.len())?;
        scores = values;
    }
    if let Some(at) = scores.iter().position(|score| score.is_nan()) {
        return Err(keys.fault("scores", format!("the score of token {at} is not a number")));
    }
    for (id, (text, kind)) in texts.iter().zip(&kinds).enumerate() {
        if kind.is(Kind::BYTE) && parse_byte(text).is_none() {
            return Err(keys.fault("tokens", format!("byte token {id}, `{text}`, names no byte")));
        }
    }
    Vocabulary::new(texts, kinds, scores, keys.label, &Keys::full("tokens"))
}

fn read_bpe(keys: Keys<'_>, vocabulary: &Vocabulary, pre: &PreTokenizer) -> Result<Bpe> {
    let merges = match keys.strings("merges")? {
        Some(merges) => merges,
        // Its merges follow from its tokens, but files that lack them have been written.
        None if keys.str("pre")? == Some("kimi-k2") => [].into(),
        None => return Err(keys.fault("merges", "is missing")),
    };
    let splitter = Splitter::new(pre.patterns).map_err(Error::internal)?;
    let spelling = if pre.plain { Spelling::Plain } else { Spelling::Bytes };
    let key = Keys::full("merges");
    let bpe = Bpe::new(vocabulary, &merges, splitter, spelling, (keys.label, &key))?;
    Ok(bpe.ignore_merges(pre.ignore_merges).whole_newlines(pre.gemma))
}

impl GgufTokenizer {
    fn read(keys: Keys<'_>) -> Result<Self> {
        let family = Family::read(keys)?;
        let mut vocabulary = read_vocabulary(keys)?;
        let mut defaults = family.defaults;
        if let (FamilyKind::WordPiece, Some(cls)) = (family.kind, keys.integer("cls_token_id")?) {
            defaults.bos = u32::try_from(cls).ok();
        }
        let specials = Specials::read(keys, &mut vocabulary, defaults)?;
        set_stripping(keys, &mut vocabulary, keys.str("pre")?.unwrap_or(""));

        let space_prefix = keys.bool("add_space_prefix")?;
        let lowercase = keys.bool("normalizer.lowercase")?;
        let mut add_bos = keys.bool("add_bos_token")?.unwrap_or(family.add_bos);
        let add_eos = keys.bool("add_eos_token")?.unwrap_or(family.add_eos);
        let add_separator = keys.bool("add_sep_token")?.unwrap_or(family.add_separator);

        let (model, writing, strips_leading_space) = match family.kind {
            FamilyKind::Bpe { pre, blankless } => {
                add_bos |= pre.gemma;
                let bpe = read_bpe(keys, &vocabulary, pre)?;
                let writing = match (pre.escapes, pre.plain) {
                    (true, _) => Writing::Marked,
                    (false, true) => Writing::Plain,
                    (false, false) => Writing::ByteLevel,
                };
                let lowercase = lowercase.unwrap_or(false);
                let model = if blankless { Model::Blankless { bpe, lowercase } } else { Model::Bpe(bpe) };
                (model, writing, false)
            }
            FamilyKind::Spm => {
                let add_space_prefix = space_prefix.unwrap_or(true);
                (Model::Spm { add_space_prefix }, Writing::Marked, add_space_prefix)
            }
            FamilyKind::WordPiece => {
                let lowercase = lowercase.unwrap_or(true);
                let strip_accents = keys.bool("normalizer.strip_accents")?.unwrap_or(lowercase);
                // A text always begins with CLS and ends with SEP.
                add_bos = true;
                let model = WordPiece::new(&vocabulary, lowercase, strip_accents);
                (Model::WordPiece(model), Writing::Words, true)
            }
            FamilyKind::Unigram => {
                let bytes = keys.bytes("precompiled_charsmap")?;
                let charsmap = match &bytes {
                    None => CharsMap::default(),
                    Some(bytes) => CharsMap::new(bytes)
                        .ok_or_else(|| keys.fault("precompiled_charsmap", "is shorter than it says"))?,
                };
                let mut model = Unigram::new(&vocabulary, charsmap);
                model.add_space_prefix = space_prefix.unwrap_or(false);
                model.remove_extra_whitespaces = keys.bool("remove_extra_whitespaces")?.unwrap_or(false);
                let strips = model.add_space_prefix || model.remove_extra_whitespaces;
                (Model::Unigram(model), Writing::Marked, strips)
            }
            FamilyKind::Rwkv => (Model::Rwkv(Rwkv::new(&vocabulary)), Writing::Escaped, false),
            FamilyKind::Plamo2 => {
                let model = Plamo2::new(&vocabulary)
                    .ok_or_else(|| keys.fault("tokens", "lacks the tokens of some bytes"))?;
                (Model::Plamo2(model), Writing::Plain, false)
            }
        };
        for (wanted, id, flag, key) in [
            (add_bos, specials.bos, "add_bos_token", "bos_token_id"),
            (add_eos, specials.eos, "add_eos_token", "eos_token_id"),
            (add_separator, specials.separator, "add_sep_token", "seperator_token_id"),
        ] {
            if wanted && id.is_none() {
                return Err(keys.fault(key, format!("is missing, and `{}` asks for it", Keys::full(flag))));
            }
        }
        let partition = Partition::new(&vocabulary).map_err(|fault| keys.fault("tokens", fault))?;
        Ok(Self { vocabulary, model, partition, specials, writing, add_bos, add_eos, strips_leading_space })
    }

    /// The ids of `text`, without what begins and ends a text; special tokens are not read from what
    /// touches one of `literal`.
    pub(crate) fn encode(&self, text: &str, special: bool, literal: &[Range<usize>]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut after_token = true;
        for fragment in self.partition.split(&self.vocabulary, text, special, literal) {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    after_token = true;
                }
                Fragment::Text(range) => {
                    self.encode_plain(&text[range], after_token, &mut ids).map_err(|Inexpressible(c)| {
                        let fault = format!("the vocabulary has no token for {c:?}");
                        Error::invalid("text", fault)
                    })?;
                    after_token = false;
                }
            }
        }
        Ok(ids)
    }

    /// Appends the ids of text without special tokens.
    fn encode_plain(
        &self,
        text: &str,
        after_token: bool,
        out: &mut Vec<u32>,
    ) -> std::result::Result<(), Inexpressible> {
        let vocabulary = &self.vocabulary;
        let unknown = self.specials.unknown;
        match &self.model {
            Model::Bpe(bpe) if self.writing == Writing::Marked => {
                bpe.encode(vocabulary, &text.replace(' ', "▁"), out);
            }
            Model::Bpe(bpe) => bpe.encode(vocabulary, text, out),
            Model::Blankless { bpe, lowercase } => {
                for word in text.split_whitespace() {
                    if *lowercase {
                        let lower: String = word.chars().filter_map(|c| c.to_lowercase().next()).collect();
                        bpe.encode(vocabulary, &lower, out);
                    } else {
                        bpe.encode(vocabulary, word, out);
                    }
                }
            }
            Model::Spm { add_space_prefix } => {
                let prefix = if *add_space_prefix && after_token { "▁" } else { "" };
                let marked = [prefix, &text.replace(' ', "▁")].concat();
                encode_spm(vocabulary, unknown, &marked, out)?;
            }
            Model::WordPiece(model) => model.encode(text, unknown, out)?,
            Model::Unigram(model) => model.encode(vocabulary, text, unknown, out)?,
            Model::Rwkv(model) => model.encode(text, unknown, out)?,
            Model::Plamo2(model) => model.encode(vocabulary, text, out),
        }
        Ok(())
    }

    /// The bytes that a token adds to a text.
    pub(crate) fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        if id as usize >= self.vocabulary.len() {
            return None;
        }
        let (text, kind) = (self.vocabulary.text(id), self.vocabulary.kind(id));
        if kind.is(Kind::BYTE)
            && let Some(byte) = parse_byte(text)
        {
            return Some(Cow::Owned(vec![byte]));
        }
        let as_it_is = kind.is(Kind::CONTROL.and(Kind::UNKNOWN).and(Kind::USER_DEFINED));
        if as_it_is && self.writing != Writing::Escaped {
            return Some(Cow::Borrowed(text.as_bytes()));
        }
        Some(match self.writing {
            Writing::ByteLevel => Cow::Owned(byte_level::decode(text)),
            Writing::Words => Cow::Owned(clean_up(text.replace('▁', " ")).into_bytes()),
            Writing::Marked if text.contains('▁') => Cow::Owned(text.replace('▁', " ").into_bytes()),
            Writing::Marked | Writing::Plain => Cow::Borrowed(text.as_bytes()),
            Writing::Escaped => Cow::Owned(unescape(text)),
        })
    }

    /// Tokens in the vocabulary.
    pub(crate) fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether a token is no text.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        (id as usize) < self.vocabulary.len() && self.vocabulary.kind(id).is(Kind::CONTROL.and(Kind::UNKNOWN))
    }

    /// The token that is `piece`.
    pub(crate) fn token_id(&self, piece: &str) -> Option<u32> {
        self.vocabulary.id(piece)
    }

    /// Whether a decoded text has a blank too many at its beginning.
    pub(crate) fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }

    /// The special tokens.
    pub(crate) fn specials(&self) -> &Specials {
        &self.specials
    }

    /// Whether BOS is put before a text.
    pub(crate) fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// What is put before and behind a text.
    pub(crate) fn frame(&self) -> (Vec<u32>, Vec<u32>) {
        let bos = self.specials.bos.filter(|_| self.add_bos);
        let ending = match self.model {
            Model::WordPiece(_) => self.specials.separator,
            _ => self.specials.eos.filter(|_| self.add_eos),
        };
        (bos.into_iter().collect(), ending.into_iter().collect())
    }
}
