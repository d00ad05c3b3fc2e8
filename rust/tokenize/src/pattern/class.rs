//! Character classes of one pattern, and a text as the classes its characters belong to.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// Most classes that one pattern may tell apart: one bit each.
pub(crate) const MAX_CLASSES: usize = 64;

/// The characters that a class written as a regular expression stands for; `None` where the text is
/// not one class.
pub(crate) fn parse_class(text: &str, ignore_case: bool) -> Option<ClassUnicode> {
    let hir = regex_syntax::ParserBuilder::new().case_insensitive(ignore_case).build().parse(text).ok()?;
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class.clone()),
        HirKind::Class(Class::Bytes(class)) => class.to_unicode_class(),
        HirKind::Literal(literal) => {
            let mut chars = std::str::from_utf8(&literal.0).ok()?.chars();
            let only = chars.next()?;
            chars.next().is_none().then(|| ClassUnicode::new([ClassUnicodeRange::new(only, only)]))
        }
        _ => None,
    }
}

/// Which classes each character belongs to, as a bit set a character.
///
/// The classes' ranges are merged into one sorted list of boundaries, so that a character costs one
/// search however many classes there are, and a pattern then runs over bit sets and never looks at
/// Unicode again.
#[derive(Debug, Clone)]
pub(crate) struct ClassTable {
    ascii: Box<[u64; 128]>,
    // starts[0] is 0; from starts[i] up to the next start, characters belong to sets[i].
    starts: Vec<u32>,
    sets: Vec<u64>,
}

impl ClassTable {
    /// The table of up to [`MAX_CLASSES`] classes; class `i` is bit `i`.
    pub(crate) fn new(classes: &[ClassUnicode]) -> Self {
        debug_assert!(classes.len() <= MAX_CLASSES);
        let mut starts = vec![0];
        for class in classes {
            for range in class.iter() {
                starts.push(range.start() as u32);
                starts.push(range.end() as u32 + 1);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let mut sets = vec![0u64; starts.len()];
        for (bit, class) in classes.iter().enumerate() {
            let mut at = 0;
            for range in class.iter() {
                at += starts[at..].partition_point(|&s| s < range.start() as u32);
                while at < starts.len() && starts[at] <= range.end() as u32 {
                    sets[at] |= 1 << bit;
                    at += 1;
                }
            }
        }
        let mut table = Self { ascii: Box::new([0; 128]), starts, sets };
        for c in 0..128u8 {
            table.ascii[usize::from(c)] = table.search(u32::from(c));
        }
        table
    }

    fn search(&self, c: u32) -> u64 {
        let after = self.starts.partition_point(|&s| s <= c);
        self.sets.get(after.wrapping_sub(1)).copied().unwrap_or(0)
    }

    /// The classes of one character.
    pub(crate) fn get(&self, c: char) -> u64 {
        match self.ascii.get(c as usize) {
            Some(&set) => set,
            None => self.search(c as u32),
        }
    }

    /// The classes of every character of `text`, in place of what `out` held.
    pub(crate) fn sets_of(&self, text: &str, out: &mut Vec<u64>) {
        out.clear();
        out.reserve(text.len());
        out.extend(text.chars().map(|c| self.get(c)));
    }
}
