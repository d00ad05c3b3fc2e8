//! Reads a regular expression into a tree.
//!
//! The dialect is what tokenizers use: classes, groups, alternation, all quantifiers, lookahead,
//! anchors, `(?i)`. Back references, lookbehind and atomic groups are refused, and the caller falls
//! back to a general engine. What stands inside a class is read by `regex-syntax`.

use regex_syntax::hir::ClassUnicode;

use super::class::{MAX_CLASSES, parse_class};

/// How a quantifier chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greed {
    /// As many as possible, giving back.
    Greedy,
    /// As few as possible.
    Lazy,
    /// As many as possible, never giving back.
    Possessive,
}

/// A regular expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// One character of a class, by its bit.
    Class(u64),
    /// One after the other.
    Concat(Vec<Node>),
    /// The first that leads to a match.
    Alternate(Vec<Node>),
    /// A node several times.
    Repeat { node: Box<Node>, min: u32, max: Option<u32>, greed: Greed },
    /// A node that must, or must not, match from here.
    Look { node: Box<Node>, negate: bool },
    /// The beginning of a line.
    LineStart,
    /// The end of a line.
    LineEnd,
    /// The beginning of the text.
    TextStart,
    /// The end of the text.
    TextEnd,
    /// Between a word character, of the class given, and one that is none.
    WordBoundary { word: u64, negate: bool },
}

/// Groups inside one another; deeper patterns are refused rather than recursed into.
const MAX_DEPTH: usize = 40;

/// Reads a pattern; its tree and its classes, or what is not understood.
pub(crate) fn parse(pattern: &str) -> Result<(Node, Vec<ClassUnicode>), String> {
    let mut parser = Parser { text: pattern, at: 0, classes: Vec::new(), ignore_case: false, depth: 0 };
    let node = parser.alternation()?;
    match parser.peek() {
        None => Ok((node, parser.classes)),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    classes: Vec<ClassUnicode>,
    ignore_case: bool,
    depth: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn unexpected(&self) -> String {
        format!("`{}` at byte {}", self.rest().chars().take(8).collect::<String>(), self.at)
    }

    fn class(&mut self, text: &str) -> Result<u64, String> {
        let class = parse_class(text, self.ignore_case).ok_or_else(|| format!("the class `{text}`"))?;
        let bit = match self.classes.iter().position(|known| *known == class) {
            Some(bit) => bit,
            None if self.classes.len() < MAX_CLASSES => {
                self.classes.push(class);
                self.classes.len() - 1
            }
            None => return Err(format!("more than {MAX_CLASSES} classes")),
        };
        Ok(1 << bit)
    }

    fn alternation(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("groups more than {MAX_DEPTH} deep"));
        }
        let ignore_case = self.ignore_case;
        let mut branches = vec![self.concatenation()?];
        while self.eat("|") {
            branches.push(self.concatenation()?);
        }
        self.ignore_case = ignore_case;
        self.depth -= 1;
        Ok(if branches.len() > 1 { Node::Alternate(branches) } else { branches.remove(0) })
    }

    fn concatenation(&mut self) -> Result<Node, String> {
        let mut items = Vec::new();
        loop {
            match self.peek() {
                None | Some('|' | ')') => return Ok(Node::Concat(items)),
                _ if self.eat("(?i)") => self.ignore_case = true,
                _ => {
                    let atom = self.atom()?;
                    items.push(self.quantified(atom)?);
                }
            }
        }
    }

    fn atom(&mut self) -> Result<Node, String> {
        let begin = self.at;
        match self.next() {
            Some('(') => self.group(),
            Some('[') => {
                self.skip_class().ok_or_else(|| format!("the class at byte {begin}"))?;
                let text = self.text.get(begin..self.at).unwrap_or("").to_owned();
                self.class(&text).map(Node::Class)
            }
            Some('\\') => self.escape(begin),
            Some('.') => self.class(r"[^\n]").map(Node::Class),
            Some('^') => Ok(Node::LineStart),
            Some('$') => Ok(Node::LineEnd),
            Some(c) if !matches!(c, '*' | '+' | '?' | '{') => {
                self.class(&regex_syntax::escape(&c.to_string())).map(Node::Class)
            }
            _ => {
                self.at = begin;
                Err(self.unexpected())
            }
        }
    }

    /// Moves behind the `]` that closes the class whose `[` has been read.
    fn skip_class(&mut self) -> Option<()> {
        let mut open = 1;
        self.eat("^");
        self.eat("]");
        while open > 0 {
            match self.next()? {
                '\\' => drop(self.next()?),
                '[' => open += 1,
                ']' => open -= 1,
                _ => {}
            }
        }
        Some(())
    }

    fn escape(&mut self, begin: usize) -> Result<Node, String> {
        let Some(c) = self.next() else { return Err(self.unexpected()) };
        match c {
            'b' | 'B' => return Ok(Node::WordBoundary { word: self.class(r"\w")?, negate: c == 'B' }),
            'A' => return Ok(Node::TextStart),
            'z' => return Ok(Node::TextEnd),
            'p' | 'P' | 'x' | 'u' => {
                let plain = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 1,
                };
                if self.peek() == Some('{') {
                    while self.next().ok_or_else(|| format!("`\\{c}{{` without `}}`"))? != '}' {}
                } else {
                    for _ in 0..plain {
                        self.next();
                    }
                }
            }
            's' | 'S' | 'd' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' => {}
            _ if c.is_ascii_alphanumeric() => return Err(format!("`\\{c}`")),
            _ => return self.class(&regex_syntax::escape(&c.to_string())).map(Node::Class),
        }
        let text = self.text.get(begin..self.at).unwrap_or("").to_owned();
        self.class(&text).map(Node::Class)
    }

    fn group(&mut self) -> Result<Node, String> {
        let ignore_case = self.ignore_case;
        let look = if self.eat("?=") {
            Some(false)
        } else if self.eat("?!") {
            Some(true)
        } else {
            if self.eat("?i:") {
                self.ignore_case = true;
            } else if self.eat("?-i:") {
                self.ignore_case = false;
            } else if !self.eat("?:") && self.peek() == Some('?') {
                return Err(self.unexpected());
            }
            None
        };
        let node = self.alternation()?;
        self.ignore_case = ignore_case;
        if !self.eat(")") {
            return Err(format!("a group without `)` at byte {}", self.at));
        }
        Ok(match look {
            None => node,
            Some(negate) => Node::Look { node: Box::new(node), negate },
        })
    }

    fn quantified(&mut self, mut node: Node) -> Result<Node, String> {
        loop {
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    let (min, max) = self.counts().ok_or_else(|| self.unexpected())?;
                    node = self.repeat(node, min, max);
                    continue;
                }
                _ => return Ok(node),
            };
            self.at += 1;
            node = self.repeat(node, min, max);
        }
    }

    fn repeat(&mut self, node: Node, min: u32, max: Option<u32>) -> Node {
        let greed = if self.eat("?") {
            Greed::Lazy
        } else if self.eat("+") {
            Greed::Possessive
        } else {
            Greed::Greedy
        };
        Node::Repeat { node: Box::new(node), min, max, greed }
    }

    /// `{n}`, `{n,}`, `{n,m}`, from its opening brace on.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let inside = self.rest().strip_prefix('{')?;
        let inside = inside.get(..inside.find('}')?)?;
        let counts = match inside.split_once(',') {
            None => {
                let count = inside.parse().ok()?;
                (count, Some(count))
            }
            Some((min, "")) => (min.parse().ok()?, None),
            Some((min, max)) => (min.parse().ok()?, Some(max.parse().ok()?)),
        };
        let length = inside.len() + 2;
        if counts.1.is_some_and(|max| max < counts.0) {
            return None;
        }
        self.at += length;
        Some(counts)
    }
}
