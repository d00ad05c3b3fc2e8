//! The token stream: minijinja's tokens, with the few differences from jinja2's put right.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::machinery::{Span, Token as Raw, Tokenizer};
use minijinja::syntax::SyntaxConfig;

use super::literal::unescape;
use super::tree::{Block, Literal, NameId};
use crate::fault::{Fault, Outcome};

/// A token, as the grammar sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'s> {
    Data(&'s str),
    Name(&'s str),
    Str(String),
    Int(i128),
    Float(f64),
    /// An operator or bracket, by its spelling.
    Op(&'static str),
    VariableStart,
    VariableEnd,
    BlockStart,
    BlockEnd,
    End,
}

impl Token<'_> {
    /// As an error message names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Data(_) => "template data".into(),
            Self::Name(name) => format!("'{name}'"),
            Self::Str(_) => "a string".into(),
            Self::Int(_) | Self::Float(_) => "a number".into(),
            Self::Op(op) => format!("'{op}'"),
            Self::VariableStart => "'{{'".into(),
            Self::VariableEnd => "end of print statement".into(),
            Self::BlockStart => "'{%'".into(),
            Self::BlockEnd => "end of statement block".into(),
            Self::End => "end of template".into(),
        }
    }
}

/// What the grammar reads from, and what it collects beside the tree.
pub(super) struct Parser<'s> {
    source: &'s str,
    tokenizer: Tokenizer<'s>,
    /// Where the last token that was read from the tokenizer ends, in bytes.
    last_end: usize,
    pub(super) current: Token<'s>,
    pub(super) line: u16,
    next: Option<(Token<'s>, u16)>,
    /// Nesting of expressions and blocks at this point.
    pub(super) depth: usize,
    /// Loops around this point, within the innermost macro: where `break` may stand.
    pub(super) loops: usize,
    names: HashMap<Arc<str>, NameId>,
    pub(super) name_list: Vec<Arc<str>>,
    pub(super) literals: Vec<Literal>,
    pub(super) blocks: Vec<Arc<Block>>,
    /// Unknown filters and tests that were met, as faults. jinja2 refuses a template for one, but
    /// where an `if` of the same scope may spare it.
    pub(super) unknown: Vec<Fault>,
    /// Which of `caller`, `kwargs` and `varargs` the macros around this point use.
    pub(super) macro_uses: Vec<[bool; 3]>,
}

/// Deepest nesting of brackets, calls and blocks. Python itself stops at 100 blocks and 200 brackets.
pub(super) const MAX_NESTED: usize = 100;
/// Longest chain of operators that nest to the left, `a + b + c`.
pub(super) const MAX_CHAIN: usize = 200;

impl<'s> Parser<'s> {
    pub(super) fn new(source: &'s str) -> Outcome<Self> {
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| Fault::new(e.to_string()))?;
        let mut parser = Self {
            source,
            tokenizer: Tokenizer::new(source, "chat_template", false, syntax),
            last_end: 0,
            current: Token::End,
            line: 1,
            next: None,
            depth: 0,
            loops: 0,
            names: HashMap::new(),
            name_list: Vec::new(),
            literals: Vec::new(),
            blocks: Vec::new(),
            unknown: Vec::new(),
            macro_uses: Vec::new(),
        };
        parser.advance()?;
        Ok(parser)
    }

    /// Steps to the next token and returns the one that was current.
    pub(super) fn advance(&mut self) -> Outcome<Token<'s>> {
        let (token, line) = match self.next.take() {
            Some(next) => next,
            None => self.read()?,
        };
        self.line = line;
        Ok(std::mem::replace(&mut self.current, token))
    }

    /// The token after the current one.
    pub(super) fn look(&mut self) -> Outcome<&Token<'s>> {
        if self.next.is_none() {
            self.next = Some(self.read()?);
        }
        Ok(self.next.as_ref().map_or(&Token::End, |(token, _)| token))
    }

    fn read(&mut self) -> Outcome<(Token<'s>, u16)> {
        let raw = self.tokenizer.next_token().map_err(|e| {
            let detail = e.detail().map_or_else(|| e.kind().to_string(), String::from);
            Fault::syntax(e.line().unwrap_or(0).try_into().unwrap_or(u16::MAX), detail)
        })?;
        let Some((raw, span)) = raw else {
            return Ok((Token::End, self.line));
        };
        let token = self.convert(raw, span)?;
        self.last_end = span.end_offset as usize;
        Ok((token, span.start_line))
    }

    fn convert(&self, raw: Raw<'s>, span: Span) -> Outcome<Token<'s>> {
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        let spelling = self.source.get(start..end).unwrap_or("");
        let line = span.start_line;
        Ok(match raw {
            Raw::TemplateData(text) => Token::Data(self.raw_block(text, start)),
            Raw::Ident(name) => Token::Name(name),
            Raw::Str(text) => Token::Str(text.into()),
            Raw::String(_) => {
                let inside = spelling.get(1..spelling.len().saturating_sub(1)).unwrap_or("");
                Token::Str(unescape(inside, line)?)
            }
            Raw::Int(value) => Token::Int(value.into()),
            Raw::Int128(value) => match i128::try_from(*value) {
                Ok(value) => Token::Int(value),
                Err(_) => return Err(Fault::syntax(line, "the integer is too large")),
            },
            Raw::Float(value) => Token::Float(value),
            Raw::VariableStart => Token::VariableStart,
            Raw::VariableEnd if spelling.starts_with('+') => {
                return Err(Fault::syntax(line, "unexpected '+' before the end of a print statement"));
            }
            Raw::VariableEnd => Token::VariableEnd,
            Raw::BlockStart => Token::BlockStart,
            Raw::BlockEnd => Token::BlockEnd,
            Raw::Plus => Token::Op("+"),
            Raw::Minus => Token::Op("-"),
            Raw::Mul => Token::Op("*"),
            Raw::Div => Token::Op("/"),
            Raw::FloorDiv => Token::Op("//"),
            Raw::Pow => Token::Op("**"),
            Raw::Mod => Token::Op("%"),
            Raw::Dot => Token::Op("."),
            Raw::Comma => Token::Op(","),
            Raw::Colon => Token::Op(":"),
            Raw::Tilde => Token::Op("~"),
            Raw::Assign => Token::Op("="),
            Raw::Pipe => Token::Op("|"),
            Raw::Eq => Token::Op("=="),
            Raw::Ne => Token::Op("!="),
            Raw::Gt => Token::Op(">"),
            Raw::Gte => Token::Op(">="),
            Raw::Lt => Token::Op("<"),
            Raw::Lte => Token::Op("<="),
            Raw::BracketOpen => Token::Op("["),
            Raw::BracketClose => Token::Op("]"),
            Raw::ParenOpen => Token::Op("("),
            Raw::ParenClose => Token::Op(")"),
            Raw::BraceOpen => Token::Op("{"),
            Raw::BraceClose => Token::Op("}"),
        })
    }

    /// The text of a data token that the tokenizer reports to begin at byte `start`.
    ///
    /// Inside `{% raw %}` minijinja drops a newline after the tag, jinja2 keeps it: only there does
    /// what precedes the token end a tag that was no token of its own.
    fn raw_block(&self, text: &'s str, start: usize) -> &'s str {
        let gap = self.source.get(self.last_end..start).unwrap_or("");
        if !gap.ends_with("%}") || gap.ends_with("-%}") || !self.source[start..].starts_with('\n') {
            return text;
        }
        let begins_late = !std::ptr::eq(text.as_ptr(), self.source[start..].as_ptr());
        if !begins_late {
            return text;
        }
        self.source.get(start..start + 1 + text.len()).unwrap_or(text)
    }

    /// The fault `message` at the current line.
    pub(super) fn fault(&self, message: impl std::fmt::Display) -> Fault {
        Fault::syntax(self.line, message)
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(&self.current, Token::Op(current) if *current == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(&self.current, Token::Name(current) if *current == name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> Outcome<bool> {
        let found = self.is_op(op);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> Outcome<bool> {
        let found = self.is_name(name);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Outcome<()> {
        if self.skip_op(op)? {
            return Ok(());
        }
        Err(self.fault(format_args!("expected '{op}', got {}", self.current.describe())))
    }

    pub(super) fn expect_name(&mut self) -> Outcome<&'s str> {
        match self.current {
            Token::Name(name) => {
                self.advance()?;
                Ok(name)
            }
            _ => Err(self.fault(format_args!("expected a name, got {}", self.current.describe()))),
        }
    }

    pub(super) fn expect(&mut self, wanted: Token<'static>) -> Outcome<()> {
        if self.current == wanted {
            self.advance()?;
            return Ok(());
        }
        Err(self.fault(format_args!("expected {}, got {}", wanted.describe(), self.current.describe())))
    }

    /// Enters a bracket or block; [`Parser::leave`] undoes it.
    pub(super) fn enter(&mut self) -> Outcome<()> {
        self.depth += 1;
        if self.depth > MAX_NESTED {
            return Err(self.fault(format_args!("nested more than {MAX_NESTED} deep")));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn name_id(&mut self, name: &str) -> NameId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let id = self.name_list.len() as NameId;
        let name: Arc<str> = name.into();
        self.name_list.push(name.clone());
        self.names.insert(name, id);
        id
    }

    pub(super) fn literal(&mut self, literal: Literal) -> u32 {
        self.literals.push(literal);
        (self.literals.len() - 1) as u32
    }
}
