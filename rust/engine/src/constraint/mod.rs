//! Answers that keep to a form: a JSON Schema, a regular expression, or a grammar.
//!
//! Which tokens may come next is llguidance's to say: an Earley parser over bytes that is walked along the
//! trie of the vocabulary. What it says is a function of the form and of the answer's tokens so far, so a
//! constrained answer is the same in company, after a preemption and with guesses, as any other is.
//!
//! A form comes from somebody else: it is read on a thread with a stack of its own, its length and its
//! work are bounded, and whatever goes wrong in it is the request's fault. The tokens that are allowed
//! behind a drawn one are worked out beside the model's next step.

mod guide;
mod vocabulary;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{Error, Result};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory, panic_utils};
use serde_json::{Value, json};

pub(crate) use guide::Guide;
use guide::MaskDesk;

/// The form that an answer keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// JSON that a JSON Schema, given as JSON, allows.
    Schema(String),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// A text of a grammar in llguidance's dialect of Lark, which begins with the rule `start`.
    Grammar(String),
}

impl Constraint {
    /// The parameter that gives it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Schema(_) => "schema",
            Self::Regex(_) => "regex",
            Self::Grammar(_) => "grammar",
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Schema(text) | Self::Regex(text) | Self::Grammar(text) => text,
        }
    }
}

/// The longest form, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// Stack for reading a form of [`MAX_BYTES`], every few bytes of which may go one level deeper. Only what
/// is used is taken.
const STACK: usize = 512 << 20;

/// Forms that are kept read.
const MAX_KEPT: usize = 16;

/// Blank space between the parts of JSON, which a model may not go on with for ever.
const BLANK: &str = r"[\x20\x0A\x0D\x09]{1,32}";

/// Makes guides of forms, for one vocabulary.
pub(crate) struct Constraints {
    tokenizer: Arc<dyn Tokenizer>,
    vocab_size: usize,
    factory: Arc<OnceLock<Result<ParserFactory>>>,
    desk: MaskDesk,
    /// Forms read before, the last one last, each with a matcher that has seen nothing.
    kept: Mutex<Vec<(Constraint, Matcher)>>,
}

impl Constraints {
    /// For the tokens of `tokenizer` and a model of `vocab_size`.
    pub(crate) fn new(tokenizer: Arc<dyn Tokenizer>, vocab_size: usize) -> Self {
        Self {
            tokenizer,
            vocab_size,
            factory: Arc::default(),
            desk: MaskDesk::default(),
            kept: Mutex::default(),
        }
    }

    /// `n` guides along `constraint`.
    ///
    /// # Errors
    /// `InvalidRequest` naming the form where it is wrong or too large; `Internal` without a thread.
    pub(crate) fn guides(&self, constraint: &Constraint, n: usize) -> Result<Vec<Guide>> {
        let matcher = self.matcher(constraint)?;
        let desk = self.desk.open()?;
        Ok((0..n).map(|_| Guide::new(matcher.deep_clone(), desk.clone(), constraint.name())).collect())
    }

    fn matcher(&self, constraint: &Constraint) -> Result<Matcher> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, matcher)) = lock().iter().find(|(kept, _)| kept == constraint) {
            return Ok(matcher.deep_clone());
        }
        if constraint.text().len() > MAX_BYTES {
            let fault = format!("is longer than {MAX_BYTES} bytes");
            return Err(Error::invalid(constraint.name(), fault));
        }
        let matcher = self.read(constraint)?;
        let mut kept = lock();
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push((constraint.clone(), matcher.deep_clone()));
        Ok(matcher)
    }

    fn read(&self, constraint: &Constraint) -> Result<Matcher> {
        let (factory, tokenizer) = (Arc::clone(&self.factory), Arc::clone(&self.tokenizer));
        let (constraint, vocab_size) = (constraint.clone(), self.vocab_size);
        let reader = thread::Builder::new().name("alloyforge-form".into()).stack_size(STACK);
        let work = move || {
            let made = factory.get_or_init(|| vocabulary::factory(&*tokenizer, vocab_size));
            let factory = made.as_ref().map_err(Clone::clone)?;
            let name = constraint.name();
            let read = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut matcher = Matcher::new(factory.create_parser(grammar(&constraint)?));
                matcher.compute_mask_or_eos()?;
                Ok(matcher)
            }));
            let is_gbnf = matches!(&constraint, Constraint::Grammar(text) if text.contains("::="));
            let fault = |error: &str| {
                let hint = if is_gbnf { ". Rules are `name: ...` as Lark has them, not GBNF's" } else { "" };
                Error::invalid(name, said(error) + hint)
            };
            let matcher = read.map_err(|error| fault(&error.to_string()))?;
            match matcher.get_error() {
                None => Ok(matcher),
                Some(error) => Err(fault(&error)),
            }
        };
        let reader = reader
            .spawn(work)
            .map_err(|error| Error::internal(format!("no thread to read a form on: {error}")))?;
        reader.join().unwrap_or_else(|_| Err(Error::internal("a form could not be read")))
    }
}

fn grammar(constraint: &Constraint) -> anyhow::Result<TopLevelGrammar> {
    Ok(match constraint {
        Constraint::Schema(text) => {
            let mut schema: Value = serde_json::from_str(text)?;
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("x-guidance".into(), json!({ "whitespace_pattern": BLANK }));
            } else if !schema.is_boolean() {
                anyhow::bail!("must be an object");
            }
            TopLevelGrammar::from_json_schema(schema)
        }
        Constraint::Regex(text) => TopLevelGrammar::from_regex(unanchored(text)),
        Constraint::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
    })
}

/// A regular expression without the anchors at its ends, which it has in any case.
fn unanchored(text: &str) -> &str {
    if text.contains('|') {
        return text;
    }
    let text = text.strip_prefix('^').unwrap_or(text);
    match text.strip_suffix('$') {
        Some(body) if (body.len() - body.trim_end_matches('\\').len()).is_multiple_of(2) => body,
        _ => text,
    }
}

/// A fault in the words of who found it, without what it adds for its own developers.
fn said(error: &str) -> String {
    let error = error.split("\n<backtrace>").next().unwrap_or_default().trim();
    let error = error.strip_prefix("panic: ").unwrap_or(error);
    let short: String = error.chars().take(600).collect();
    if short.is_empty() { "cannot be read".into() } else { format!("cannot be kept to: {short}") }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    /// One token a byte, and an end.
    struct Bytes;

    const END: u32 = 256;

    impl Tokenizer for Bytes {
        fn vocab_size(&self) -> usize {
            257
        }

        fn encode(&self, text: &str, _special: bool) -> Result<Vec<u32>> {
            Ok(text.bytes().map(u32::from).collect())
        }

        fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
            match u8::try_from(id) {
                Ok(byte) => Some(Cow::Owned(vec![byte])),
                Err(_) => (id == END).then_some(Cow::Borrowed(b"</s>".as_slice())),
            }
        }

        fn is_special(&self, id: u32) -> bool {
            id == END
        }

        fn token_id(&self, piece: &str) -> Option<u32> {
            (piece == "</s>").then_some(END)
        }

        fn strips_leading_space(&self) -> bool {
            false
        }

        fn bos(&self) -> (Option<u32>, bool) {
            (None, false)
        }

        fn eos(&self) -> &[u32] {
            &[END]
        }
    }

    fn constraints() -> Constraints {
        Constraints::new(Arc::new(Bytes), 260)
    }

    /// Whether `text` is a whole answer, token by token.
    fn takes(constraints: &Constraints, form: &Constraint, text: &str) -> Result<bool> {
        let mut guide = constraints.guides(form, 1)?.remove(0);
        let mut is_over = false;
        for byte in text.bytes().map(u32::from) {
            let allowed = !is_over && is_set(guide.mask()?, byte);
            if !allowed {
                return Ok(false);
            }
            is_over = guide.accept(byte)?;
            if byte % 2 == 0 && !is_over {
                guide.look_ahead();
            }
        }
        Ok(is_over || is_set(guide.mask()?, END))
    }

    fn is_set(mask: &[u32], token: u32) -> bool {
        mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    #[test]
    fn what_a_form_takes_and_what_not() {
        let schema = |text: &str| Constraint::Schema(text.into());
        let regex = |text: &str| Constraint::Regex(text.into());
        let grammar = |text: &str| Constraint::Grammar(text.into());
        let cases: [(Constraint, &[&str], &[&str]); 12] = [
            (
                schema(r#"{"type":"integer","minimum":-3,"maximum":12}"#),
                &["-3", "0", "12"],
                &["-4", "13", "01"],
            ),
            (schema(r#"{"enum":["a",1,null]}"#), &[r#""a""#, "1", "null"], &["a", "2", ""]),
            (
                schema(r#"{"type":"string","minLength":2,"maxLength":3}"#),
                &[r#""ab""#, r#""äöü""#],
                &[r#""a""#],
            ),
            (schema(r#"{"type":"string","pattern":"^a+$"}"#), &[r#""aa""#], &[r#""""#, r#""ab""#]),
            (
                schema(r#"{"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2}"#),
                &["[true]", "[true, false]", "[ true,\nfalse ]"],
                &["[]", "[1]", "[true,true,true]"],
            ),
            (
                schema(
                    r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"number"}},
                        "required":["a"],"additionalProperties":false}"#,
                ),
                &[r#"{"a":null}"#, r#"{"a": null, "b": 1.5e3}"#],
                &["{}", r#"{"b":1}"#, r#"{"a":null,"c":1}"#],
            ),
            (
                schema(
                    r##"{"$defs":{"t":{"type":"object","properties":{"n":{"$ref":"#/$defs/t"}},
                        "additionalProperties":false}},"$ref":"#/$defs/t"}"##,
                ),
                &["{}", r#"{"n":{"n":{}}}"#],
                &[r#"{"n":1}"#],
            ),
            (schema("true"), &["{}", "[1]", r#"{"a":"b"}"#], &["a"]),
            (regex("a[bc]+"), &["ab", "acbc"], &["a", "abd", "xab"]),
            (regex("^(yes)$"), &["yes"], &["no", "yes!"]),
            (regex("a|bc"), &["a", "bc"], &["b", "abc"]),
            (grammar("start: \"(\" start \")\" | \"x\""), &["x", "((x))"], &["(x", "x)", "()"]),
        ];
        let constraints = constraints();
        for (form, taken, refused) in cases {
            // read for the first time, and kept
            for _ in 0..2 {
                for text in taken {
                    assert_eq!(takes(&constraints, &form, text), Ok(true), "{form:?} {text}");
                }
                for text in refused {
                    assert_eq!(takes(&constraints, &form, text), Ok(false), "{form:?} {text}");
                }
            }
        }
    }

    #[test]
    fn another_notation_is_named() {
        let form = Constraint::Grammar("root ::= [ab]{4}".into());
        let error = constraints().guides(&form, 1).map(|_| ()).expect_err("no Lark");
        assert!(matches!(&error, Error::InvalidRequest { name, .. } if name == "grammar"), "{error}");
        assert!(error.to_string().contains("not GBNF's"), "{error}");
    }

    #[test]
    fn blank_space_has_an_end() {
        let form = Constraint::Schema(r#"{"type":"array","items":{"type":"null"},"minItems":1}"#.into());
        let constraints = constraints();
        assert_eq!(takes(&constraints, &form, &format!("[{}null]", " ".repeat(32))), Ok(true));
        assert_eq!(takes(&constraints, &form, &format!("[{}null]", " ".repeat(33))), Ok(false));
    }

    #[test]
    fn anchors_at_the_ends_say_nothing_new() {
        assert_eq!(unanchored("^a$"), "a");
        assert_eq!(unanchored(r"a\$"), r"a\$");
        assert_eq!(unanchored(r"a\\$"), r"a\\");
        assert_eq!(unanchored("^a|b$"), "^a|b$");
    }
}
