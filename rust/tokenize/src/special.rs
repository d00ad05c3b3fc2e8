//! The tokens with a meaning of their own: those that begin and end a text, and those that end an
//! answer.
//!
//! Files name few of them, so more are known by their text. The lists, and what they change about a
//! token's kind, follow llama.cpp; where it takes whichever of a list it meets first, here the list's
//! order decides.

use alloyforge_types::Result;

use crate::keys::Keys;
use crate::vocabulary::{Kind, Vocabulary};

/// The ids of a vocabulary's special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Specials {
    /// Begins a text.
    pub(crate) bos: Option<u32>,
    /// Ends a text.
    pub(crate) eos: Option<u32>,
    /// Ends a turn.
    pub(crate) eot: Option<u32>,
    /// Ends a message.
    pub(crate) eom: Option<u32>,
    /// Stands for what no token expresses.
    pub(crate) unknown: Option<u32>,
    /// Stands between and behind the texts of an encoder.
    pub(crate) separator: Option<u32>,
    /// Every token that ends an answer: EOS first, then by id.
    pub(crate) ends: Vec<u32>,
}

/// Texts that end a turn.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Texts that end an answer.
const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Texts that fill in the middle of a file: their key in the metadata, its older name, their texts, and
/// whether they end an answer.
const FILL_IN: &[(&str, Option<&str>, &[&str], bool)] = &[
    (
        "fim_pre_token_id",
        Some("prefix_token_id"),
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        false,
    ),
    (
        "fim_suf_token_id",
        Some("suffix_token_id"),
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        false,
    ),
    (
        "fim_mid_token_id",
        Some("middle_token_id"),
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        false,
    ),
    ("fim_pad_token_id", None, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"], true),
    (
        "fim_rep_token_id",
        None,
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        true,
    ),
    ("fim_sep_token_id", None, &["<|file_sep|>"], true),
];

/// Structure of a message that an answer is shown with, and so no control tokens.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Specials {
    /// Reads the special tokens' ids; `defaults` are those of a file that says none. Tokens that are
    /// special by their text become so in the vocabulary.
    ///
    /// # Errors
    /// `Format` for an id, of those that begin or end a text, outside the vocabulary.
    pub(crate) fn read(keys: Keys<'_>, vocabulary: &mut Vocabulary, defaults: Self) -> Result<Self> {
        let size = vocabulary.len() as i64;
        let known = |id: Option<u32>| id.filter(|&id| i64::from(id) < size);
        let strict = |key: &str, default: Option<u32>| match keys.integer(key)? {
            None => Ok(known(default)),
            // -1, in either width, is how some files write that there is none.
            Some(-1 | 0xffff_ffff) => Ok(known(default)),
            Some(id) if (0..size).contains(&id) => Ok(Some(id as u32)),
            Some(id) => Err(keys.fault(key, format!("{id} is not among the {size} tokens"))),
        };
        // Of the others, published files name some that their vocabulary lacks.
        let lenient = |key: &str, default: Option<u32>| {
            let id = keys.integer(key)?.filter(|id| (0..size).contains(id)).map(|id| id as u32);
            Ok::<_, alloyforge_types::Error>(id.or(known(default)))
        };
        let mut specials = Self {
            bos: strict("bos_token_id", defaults.bos)?,
            eos: strict("eos_token_id", defaults.eos)?,
            eot: strict("eot_token_id", None)?,
            eom: strict("eom_token_id", None)?,
            unknown: lenient("unknown_token_id", defaults.unknown)?,
            separator: lenient("seperator_token_id", defaults.separator)?,
            ends: Vec::new(),
        };
        let mut ends = Vec::new();
        specials.eot = specials.eot.or_else(|| first_of(vocabulary, END_OF_TURN));
        specials.eom = specials.eom.or_else(|| first_of(vocabulary, &["<|eom_id|>"]));
        for (key, older, texts, ends_answer) in FILL_IN {
            let older = older.map_or(Ok(None), |older| lenient(older, None))?;
            let id = older.or(lenient(key, None)?).or_else(|| first_of(vocabulary, texts));
            if *ends_answer {
                ends.extend(id);
            }
        }
        for text in END_OF_GENERATION {
            ends.extend(first_of(vocabulary, &[text]));
        }
        for text in SHOWN {
            if let Some(id) = vocabulary.id(text) {
                vocabulary.set_kind(id, Kind::USER_DEFINED);
            }
        }
        ends.extend([specials.eos, specials.eot, specials.eom].into_iter().flatten());
        ends.sort_unstable();
        ends.dedup();
        let ends_with = |text: &str| vocabulary.id(text).filter(|id| ends.binary_search(id).is_ok());
        let mut drop = None;
        let call = ends_with("<|call|>").or(ends_with("<|calls|>"));
        // Where messages have a token for their end and answers have others, an answer goes on behind
        // the end of a message.
        if call.is_some() && ends_with("<|return|>").or(ends_with("<|flush|>")).is_some() {
            drop = ends_with("<|end|>").map(|id| (id, Kind::USER_DEFINED));
        }
        if ends_with("<|tool_response>").is_some() {
            let text = ends_with("</s>").map(|id| (id, Kind::NORMAL));
            for (id, kind) in [drop, text].into_iter().flatten() {
                ends.retain(|&end| end != id);
                vocabulary.set_kind(id, kind);
            }
        } else if let Some((id, kind)) = drop {
            ends.retain(|&end| end != id);
            vocabulary.set_kind(id, kind);
        }
        if let Some(at) = ends.iter().position(|&id| Some(id) == specials.eos) {
            ends[..=at].rotate_right(1);
        }
        specials.ends = ends;
        Ok(specials)
    }
}

/// The first of `texts` that is a token; it becomes a control token, should it not be one.
fn first_of(vocabulary: &mut Vocabulary, texts: &[&str]) -> Option<u32> {
    let id = texts.iter().find_map(|text| vocabulary.id(text))?;
    vocabulary.set_kind(id, vocabulary.kind(id).and(Kind::CONTROL));
    Some(id)
}

/// Lets tokens take blanks with them, as some models' own tokenizers do and their files do not say.
pub(crate) fn set_stripping(keys: Keys<'_>, vocabulary: &mut Vocabulary, pre: &str) {
    let name = keys.general("general.name").to_ascii_lowercase();
    let architecture = keys.general("general.architecture");
    let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let strips_left = |text: &str, vocabulary: &mut Vocabulary| {
        if let Some(id) = vocabulary.id(text) {
            vocabulary.set_kind(id, vocabulary.kind(id).and(Kind::STRIPS_LEFT));
        }
    };
    if any(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
        || any(architecture, &["nomic-bert-moe", "jina-bert-v3"])
    {
        strips_left("<mask>", vocabulary);
    } else if any(&name, &["phi-3", "phi3"]) {
        let special = Kind::CONTROL.and(Kind::USER_DEFINED).and(Kind::UNKNOWN);
        let kept = ["<unk>", "<s>", "<|endoftext|>"].map(|text| vocabulary.id(text));
        for id in vocabulary.ids() {
            let strips = vocabulary.kind(id).is(special) || vocabulary.text(id) == "</s>";
            if strips && !kept.contains(&Some(id)) {
                vocabulary.set_kind(id, vocabulary.kind(id).and(Kind::STRIPS_RIGHT));
            }
        }
    } else if any(&name, &["modern-bert"]) {
        strips_left("[MASK]", vocabulary);
    }
}
