//! The pre-tokenizers by the name that `tokenizer.ggml.pre` gives.
//!
//! The names, which of them are alike, and their flags are llama.cpp's; so is what each cuts, down to
//! where that differs from the model's own tokenizer, since files were made and tested with it:
//! categories are one letter (`\p{Lu}` means `\p{L}`), and a character class written out in literals
//! has no blank beyond ASCII, even where its ranges span one.

/// What a pre-tokenizer's name stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreTokenizer {
    /// Applied in turn; each cuts its matches out of what the one before left.
    pub(crate) patterns: &'static [&'static str],
    /// A word that is a token is that token, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// Whether BOS begins a text where the file does not say.
    pub(crate) add_bos: bool,
    /// Whether SEP ends a text where the file does not say.
    pub(crate) add_sep: bool,
    /// Whether the file's default BOS is none.
    pub(crate) no_bos: bool,
    /// Merges are about text as it is, not about bytes.
    pub(crate) plain: bool,
    /// Blanks are written `▁`.
    pub(crate) escapes: bool,
    /// A word of newlines that is a token is that token, and BOS begins a text whatever the file says.
    pub(crate) gemma: bool,
}

const BASE: PreTokenizer = PreTokenizer {
    patterns: &[],
    ignore_merges: false,
    add_bos: false,
    add_sep: false,
    no_bos: false,
    plain: false,
    escapes: false,
    gemma: false,
};

/// Contractions of English in either case.
macro_rules! contractions {
    () => {
        "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
    };
}

/// What ends most patterns: blanks, of which the last goes to the word behind.
macro_rules! blanks {
    () => {
        r"\s+(?!\S)|\s+"
    };
}

/// What the GPT-4 family has in common behind words and numbers.
macro_rules! symbols_lines_blanks {
    () => {
        concat!(r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|", blanks!())
    };
}

/// Words with letters of either case told apart for ASCII alone, and their contractions.
macro_rules! cased_words {
    ($letters:literal, $tail:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[",
            $letters,
            r"--[a-z]]*[",
            $letters,
            r"--[A-Z]]+",
            $tail,
            r"|[^\r\n\p{L}\p{N}]?[",
            $letters,
            r"--[a-z]]+[",
            $letters,
            r"--[A-Z]]*",
            $tail,
            "|"
        )
    };
}

const GPT2: &str = concat!(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|", blanks!());
const LLAMA3: &str =
    concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|", symbols_lines_blanks!());
const QWEN2: &str = concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", symbols_lines_blanks!());
const DEEPSEEK_WORDS: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|"##,
    blanks!()
);
const KANA_AND_HAN: &str = "[一-龥぀-ゟ゠-ヿ]+";
// Up to a run's first one to three digits, so many that threes are left. What is before them stays with
// them; later patterns part it.
const DIGITS_FROM_RIGHT: &str = r"\P{N}*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const LINES: &str = r"[^\n]+|\n+";
const DIGIT: &str = r"\p{N}";

const LLAMA3_KIND: PreTokenizer = PreTokenizer { patterns: &[LLAMA3], ..BASE };
const QWEN2_KIND: PreTokenizer = PreTokenizer { patterns: &[QWEN2], ..BASE };
const GPT2_KIND: PreTokenizer = PreTokenizer { patterns: &[GPT2], ..BASE };
const DEEPSEEK3: PreTokenizer =
    PreTokenizer { patterns: &[r"\p{N}{1,3}", KANA_AND_HAN, DEEPSEEK_WORDS], ..BASE };
const GPT4O: PreTokenizer = PreTokenizer {
    patterns: &[concat!(
        cased_words!(r"\p{L}", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"),
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
        blanks!()
    )],
    ..BASE
};
const GEMMA4: PreTokenizer =
    PreTokenizer { patterns: &[LINES], plain: true, escapes: true, gemma: true, ..BASE };

/// What a file without a name gets.
pub(crate) const DEFAULT: PreTokenizer =
    PreTokenizer { patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ..BASE };

/// Names and what they stand for.
const TABLE: &[(&[&str], PreTokenizer)] = &[
    (&["default"], DEFAULT),
    (
        &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        PreTokenizer { ignore_merges: true, add_bos: true, ..LLAMA3_KIND },
    ),
    (&["dbrx", "smaug-bpe"], LLAMA3_KIND),
    (&["chatglm-bpe"], PreTokenizer { no_bos: true, ..LLAMA3_KIND }),
    (&["glm4", "glm5"], PreTokenizer { no_bos: true, ignore_merges: true, ..LLAMA3_KIND }),
    (
        &["jais-2"],
        PreTokenizer {
            patterns: &[concat!(
                contractions!(),
                r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
                r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)",
                r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
            )],
            ..BASE
        },
    ),
    (
        &["minicpm5"],
        PreTokenizer {
            patterns: &[
                r"\p{N}{1,3}",
                concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|", symbols_lines_blanks!()),
            ],
            ignore_merges: true,
            ..BASE
        },
    ),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "stablelm2",
            "megrez",
        ],
        QWEN2_KIND,
    ),
    (
        &["qwen35"],
        PreTokenizer {
            patterns: &[concat!(
                contractions!(),
                r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|",
                blanks!()
            )],
            ..BASE
        },
    ),
    (
        &["ufakzeka"],
        PreTokenizer {
            patterns: &[concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", symbols_lines_blanks!())],
            ..BASE
        },
    ),
    (&["laguna"], PreTokenizer { patterns: &[LINES, QWEN2], ..BASE }),
    (
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        PreTokenizer {
            patterns: &[concat!(
                r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|",
                blanks!()
            )],
            ..BASE
        },
    ),
    (
        &["seed-coder"],
        PreTokenizer {
            patterns: &[concat!(
                contractions!(),
                r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|",
                blanks!()
            )],
            ..BASE
        },
    ),
    (
        &["exaone-moe"],
        PreTokenizer {
            patterns: &[concat!(
                contractions!(),
                r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|",
                blanks!()
            )],
            ..BASE
        },
    ),
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        GPT2_KIND,
    ),
    (&["jina-v1-en", "jina-v2-code", "roberta-bpe"], PreTokenizer { add_sep: true, ..GPT2_KIND }),
    (
        &["starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2", "command-r", "smollm"],
        PreTokenizer { patterns: &[DIGIT, GPT2], ..BASE },
    ),
    (&["falcon"], PreTokenizer { patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], ..BASE }),
    (
        &["chameleon"],
        PreTokenizer {
            patterns: &[
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                DIGIT,
                r"[\p{P}!-/:-@\[-`{-~]",
                GPT2,
            ],
            add_bos: true,
            ..BASE
        },
    ),
    (
        &["deepseek-llm"],
        PreTokenizer {
            patterns: &[
                r"[\r\n]",
                concat!(
                    r"\s?",
                    r"[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}",
                    r"\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}",
                    r"\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}",
                    r"\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}",
                    r"\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}",
                    r"\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}",
                    r"\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}",
                    r"\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}",
                    r"\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}",
                    r"\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}",
                    r"\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}",
                    r"\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}",
                    r"\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}",
                    r"\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}",
                    r"\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}",
                    r"\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}",
                    r"\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}",
                    r"\u{1e900}-\u{1e943}]+",
                ),
                "\\s?[!-/:-~！-／：-～‘-‟、-。]+",
                r"\s+$",
                "[一-龥ࠀ-一가-퟿--\\s]+",
                r"\p{N}+",
            ],
            ..BASE
        },
    ),
    (
        &["deepseek-coder"],
        PreTokenizer {
            patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿--\\s]+", DIGIT],
            ..BASE
        },
    ),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], DEEPSEEK3),
    (
        &["spark2_5"],
        PreTokenizer {
            patterns: &[
                r"\p{N}{1,3}",
                KANA_AND_HAN,
                concat!(
                    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
                    r"| ?[\p{P}\p{S}]+|[\r\n]|",
                    blanks!()
                ),
                DIGIT,
            ],
            ..BASE
        },
    ),
    (
        &["afmoe"],
        PreTokenizer {
            patterns: &[
                DIGITS_FROM_RIGHT,
                "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
                DEEPSEEK_WORDS,
            ],
            ..BASE
        },
    ),
    (
        &["tiny_aya", "cohere2moe"],
        PreTokenizer {
            patterns: &[
                DIGITS_FROM_RIGHT,
                concat!(
                    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
                    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
                    blanks!()
                ),
            ],
            ..BASE
        },
    ),
    (
        &["youtu"],
        PreTokenizer {
            patterns: &[
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
                concat!(
                    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
                    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
                    blanks!()
                ),
            ],
            ignore_merges: true,
            ..BASE
        },
    ),
    (
        &["tekken"],
        PreTokenizer {
            patterns: &[concat!(
                cased_words!(r"\p{L}", ""),
                r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
                blanks!()
            )],
            ignore_merges: true,
            add_bos: true,
            ..BASE
        },
    ),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], GPT4O),
    (
        &["granite-embed-multi-97m"],
        PreTokenizer {
            patterns: &[concat!(
                cased_words!(r"\p{L}\p{M}", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"),
                r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
                blanks!()
            )],
            ignore_merges: true,
            ..BASE
        },
    ),
    (
        &["kimi-k2"],
        PreTokenizer {
            patterns: &[concat!(
                r"[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{20000}-\u{2a6df}\u{2a700}-\u{2ebef}\u{f900}-\u{faff}\u{2f800}-\u{2fa1f}]+",
                r"|[^\r\n\p{L}\p{N}]?[\p{L}--[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{20000}-\u{2a6df}\u{2a700}-\u{2ebef}\u{f900}-\u{faff}\u{2f800}-\u{2fa1f}]]+",
                "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
                r"|\p{N}{1,3}|",
                symbols_lines_blanks!()
            )],
            ..BASE
        },
    ),
    (&["superbpe"], PreTokenizer { patterns: &[r"\p{N}+", "(?=(?:[0-9]{3})+(?![0-9]))"], ..BASE }),
    (&["bloom", "gpt3-finnish", "poro-chat"], PreTokenizer { patterns: &[BLOOM], ..BASE }),
    (&["viking"], PreTokenizer { patterns: &[BLOOM, DIGIT], ..BASE }),
    (&["gemma4", "granite-embed-multi-311m"], GEMMA4),
    (&["sarvam-moe"], PreTokenizer { gemma: false, ..GEMMA4 }),
    (&["whitespace"], PreTokenizer { patterns: &[r"\S+"], plain: true, ..BASE }),
];

/// The pre-tokenizer called `name`.
pub(crate) fn find(name: &str) -> Option<&'static PreTokenizer> {
    TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, pre)| pre)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::splitter::Splitter;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let pre = find(name).expect("a name");
        let mut begin = 0;
        let ends = Splitter::new(pre.patterns).expect("patterns").split(text);
        ends.into_iter().map(|end| &text[std::mem::replace(&mut begin, end)..end]).collect()
    }

    #[test]
    fn every_name_is_there_once_and_every_pattern_is_understood() {
        let mut seen = HashSet::new();
        for (names, pre) in TABLE {
            for name in *names {
                assert!(seen.insert(name), "{name} twice");
            }
            Splitter::new(pre.patterns).expect("patterns");
        }
        assert!(find("").is_none());
    }

    #[test]
    fn words_as_published_examples_cut_them() {
        assert_eq!(
            words("gpt-2", "I'll say:  hello123 \n"),
            ["I", "'ll", " say", ":", " ", " hello", "123", " \n"]
        );
        assert_eq!(words("llama3", "I'LL 12345\n\n x"), ["I", "'LL", " ", "123", "45", "\n\n", " x"]);
        assert_eq!(words("qwen2", "ab 123"), ["ab", " ", "1", "2", "3"]);
        assert_eq!(words("superbpe", "1234567"), ["1", "234", "567"]);
        assert_eq!(words("afmoe", "1234567"), ["1", "234", "567"]);
        assert_eq!(words("gpt-4o", "helloWorld's"), ["hello", "World's"]);
        assert_eq!(words("kimi-k2", "中文abc's"), ["中文", "abc's"]);
        assert_eq!(words("gemma4", "a b\n\nc"), ["a b", "\n\n", "c"]);
        assert_eq!(words("bloom", "a (b), c"), ["a", " (", "b", "),", " c"]);
    }
}
