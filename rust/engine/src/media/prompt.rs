//! Prompts with media: placeholders become tokens and places for rows.

use std::ops::Range;
use std::sync::Arc;

use alloyforge_interfaces::{MediaPrompts, Tokenizer};
use alloyforge_types::{Error, MediaItem, MediaKind, MediaPositions, MediaSpan, PromptPiece, Result};

/// The media of a prompt and where they stand in its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaPrompt {
    /// The items, in the order of their placeholders.
    pub(crate) items: Vec<Arc<MediaItem>>,
    /// Where their rows stand, ascending.
    pub(crate) spans: Vec<MediaSpan>,
    pub(crate) positions: Option<MediaPositions>,
    /// Whether the rows of a span see each other in both directions.
    pub(crate) is_two_way: bool,
}

impl MediaPrompt {
    /// Tokens of the prompt that rows replace.
    pub fn num_rows(&self) -> usize {
        self.spans.iter().map(|s| s.num_rows).sum()
    }
}

/// A prompt before its placeholders are expanded.
pub(crate) enum Source<'a> {
    /// Text, and the ranges of it that spell special tokens without meaning any.
    Text(&'a str, &'a [Range<usize>]),
    /// Token ids.
    Tokens(&'a [u32]),
}

/// Puts prompts with media together.
pub(crate) struct Assembly<'a> {
    prompts: &'a dyn MediaPrompts,
    tokenizer: &'a dyn Tokenizer,
    /// Items by kind, in the caller's order, each with how many are placed.
    given: [(MediaKind, Vec<Arc<MediaItem>>, usize); 3],
    tokens: Vec<u32>,
    items: Vec<Arc<MediaItem>>,
    spans: Vec<MediaSpan>,
    /// Text that is not encoded yet, with its literal ranges: what stands between two places for rows
    /// is encoded as a whole.
    text: String,
    literal: Vec<Range<usize>>,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(
        prompts: &'a dyn MediaPrompts,
        tokenizer: &'a dyn Tokenizer,
        items: Vec<MediaItem>,
    ) -> Self {
        let mut given = MediaKind::ALL.map(|kind| (kind, Vec::new(), 0));
        for item in items {
            if let Some((_, list, _)) = given.iter_mut().find(|(kind, ..)| *kind == item.kind) {
                list.push(Arc::new(item));
            }
        }
        Self {
            prompts,
            tokenizer,
            given,
            tokens: Vec::new(),
            items: Vec::new(),
            spans: Vec::new(),
            text: String::new(),
            literal: Vec::new(),
        }
    }

    /// The tokens of `source`, without BOS, and its media.
    ///
    /// # Errors
    /// `InvalidRequest` naming the parameter whose items and placeholders differ in number; `Media`.
    pub(crate) fn build(mut self, source: &Source<'_>) -> Result<(Vec<u32>, MediaPrompt)> {
        match *source {
            Source::Text(text, literal) => self.read_text(text, literal)?,
            Source::Tokens(tokens) => self.read_tokens(tokens)?,
        }
        self.flush()?;
        for (kind, list, placed) in &self.given {
            if *placed != list.len() {
                let fault = format!(
                    "{} given for {placed} placeholders in the prompt",
                    count(list.len(), kind.noun())
                );
                return Err(Error::invalid(kind.parameter(), fault));
            }
        }
        let is_two_way = self.prompts.two_way_rows() > 0;
        let media = MediaPrompt { items: self.items, spans: self.spans, positions: None, is_two_way };
        Ok((self.tokens, media))
    }

    fn read_text(&mut self, text: &str, literal: &[Range<usize>]) -> Result<()> {
        let mut at = 0;
        let mut literal = literal.iter().peekable();
        while at < text.len() {
            if let Some(range) = literal.peek()
                && range.start <= at
            {
                // what somebody wrote stays as it is
                let end = range.end.max(at);
                let start = self.text.len();
                self.text.push_str(text.get(at..end).unwrap_or_default());
                self.literal.push(start..self.text.len());
                literal.next();
                at = end;
                continue;
            }
            let rest = &text[at..];
            if let Some((kind, len)) = self.placeholder_at(rest) {
                self.place(kind)?;
                at += len;
                continue;
            }
            let len = rest.chars().next().map_or(1, char::len_utf8);
            self.text.push_str(&rest[..len]);
            at += len;
        }
        Ok(())
    }

    /// The longest placeholder that `text` begins with.
    fn placeholder_at(&self, text: &str) -> Option<(MediaKind, usize)> {
        let all = MediaKind::ALL
            .into_iter()
            .flat_map(|kind| self.prompts.placeholders(kind).iter().map(move |p| (kind, p.as_str())));
        let found = all.filter(|(_, p)| !p.is_empty() && text.starts_with(p));
        // where two kinds share a text, it is that of the kind which has items left
        found.max_by_key(|(kind, p)| (p.len(), self.num_left(*kind).min(1))).map(|(kind, p)| (kind, p.len()))
    }

    fn num_left(&self, kind: MediaKind) -> usize {
        let of_kind = self.given.iter().find(|(k, ..)| *k == kind);
        of_kind.map_or(0, |(_, list, placed)| list.len().saturating_sub(*placed))
    }

    fn read_tokens(&mut self, tokens: &[u32]) -> Result<()> {
        let mut patterns: Vec<(MediaKind, Vec<u32>)> = Vec::new();
        for kind in MediaKind::ALL {
            for placeholder in self.prompts.placeholders(kind) {
                patterns.push((kind, self.tokenizer.encode(placeholder, true)?));
            }
        }
        patterns.retain(|(_, p)| !p.is_empty());
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            let found = patterns.iter().filter(|(_, p)| rest.starts_with(p));
            let found = found.max_by_key(|(kind, p)| (p.len(), self.num_left(*kind).min(1)));
            match found.map(|(kind, p)| (*kind, p.len())) {
                Some((kind, len)) => {
                    self.place(kind)?;
                    self.flush()?;
                    at += len;
                }
                None => {
                    self.tokens.push(tokens[at]);
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// Puts the next item of `kind` in.
    fn place(&mut self, kind: MediaKind) -> Result<()> {
        let Some((_, list, placed)) = self.given.iter_mut().find(|(k, ..)| *k == kind) else {
            return Err(Error::internal("a kind of media without a place"));
        };
        *placed += 1;
        // one too many is told with the whole count
        let Some(item) = list.get(*placed - 1).cloned() else { return Ok(()) };
        let index = self.items.len();
        self.items.push(Arc::clone(&item));
        let mut first_row = 0;
        for piece in self.prompts.expand(&item)? {
            match piece {
                PromptPiece::Text(text) => self.text.push_str(&text),
                PromptPiece::Rows(0) => {}
                PromptPiece::Rows(num_rows) => {
                    self.flush()?;
                    let first = self.tokens.len();
                    // a vocabulary without the token does as well with any other
                    let token = self.tokenizer.token_id(self.prompts.row_token(kind)).unwrap_or(0);
                    let len = first.checked_add(num_rows).filter(|&len| len < MAX_TOKENS);
                    let Some(len) = len else {
                        return Err(Error::ContextLength { tokens: usize::MAX, limit: MAX_TOKENS });
                    };
                    self.tokens.resize(len, token);
                    self.spans.push(MediaSpan { item: index, first, first_row, num_rows });
                    first_row += num_rows;
                }
            }
        }
        Ok(())
    }

    /// Encodes the text that has gathered.
    fn flush(&mut self) -> Result<()> {
        if !self.text.is_empty() {
            let ids = match self.literal.is_empty() {
                true => self.tokenizer.encode(&self.text, true)?,
                false => self.tokenizer.encode_around(&self.text, &self.literal)?,
            };
            self.tokens.extend(ids);
        }
        self.text.clear();
        self.literal.clear();
        Ok(())
    }
}

/// Tokens beyond which no context reaches, so that no count can overflow.
const MAX_TOKENS: usize = 1 << 28;

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun} was") } else { format!("{n} {noun}s were") }
}

impl MediaPrompt {
    /// Moves every span `by` tokens to the right, behind a BOS token that was put in front.
    pub(crate) fn shift(&mut self, by: usize) {
        self.spans.iter_mut().for_each(|s| s.first += by);
    }

    /// Settles the positions of a prompt of `len` tokens.
    ///
    /// # Errors
    /// As [`MediaPrompts::positions`].
    pub(crate) fn locate(&mut self, prompts: &dyn MediaPrompts, len: usize) -> Result<()> {
        self.positions = prompts.positions(len, &self.spans, &self.items)?;
        match &self.positions {
            Some(p) if p.prompt.len() != len => {
                Err(Error::internal(format!("{} positions for {len} tokens", p.prompt.len())))
            }
            _ => Ok(()),
        }
    }
}
