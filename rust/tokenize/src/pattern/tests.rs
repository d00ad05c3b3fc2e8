use proptest::prelude::*;

use super::Pattern;

fn pieces(pattern: &str, text: &str) -> Vec<String> {
    let pattern = Pattern::new(pattern).expect("a pattern");
    let mut ends = vec![text.chars().count()];
    pattern.refine(text, &mut ends, &mut Vec::new());
    let chars: Vec<char> = text.chars().collect();
    let mut begin = 0;
    let cut = |end: &usize| {
        let piece = chars[begin..*end].iter().collect();
        begin = *end;
        piece
    };
    ends.iter().map(cut).collect()
}

/// What a general engine, given the same pattern, finds.
fn reference(pattern: &str, text: &str) -> Vec<(usize, usize)> {
    let regex = fancy_regex::Regex::new(pattern).expect("a pattern");
    regex.find_iter(text).map(|found| found.expect("few steps")).map(|m| (m.start(), m.end())).collect()
}

const PATTERNS: [&str; 16] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
    r"\d{1,3}(?=(?:\d{3})*\b)",
    r"(?=(?:\d{3})+(?!\d))",
    r"\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
    r"(a|ab)(c|bcd)(d*)",
    r"(?:a*)*b|a+?b??",
    r"(?:a|b)*?(?!a)[ab]{2,4}",
    r"\Ba|\b\w+\b|.\z",
    r" ?[^(\s|.,!?…。，、।۔،)]+",
    r"(?=((?:ab)+(?=c)))a|b(?!(?:a|bc)*1)",
    r"[!-/:-~\p{P}--[a\]]]+",
    r"\s*?[\r\n]+|\s++",
];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(
            prop::sample::select(vec![
                'a', 'b', 'c', 'd', 'x', 'S', 's', '\'', ' ', '\n', '\r', '\t', '1', '2', '.', '(', 'é',
                '\u{301}', '中', '\u{3000}', '\u{17f}', '٣', '🦀', '_',
            ]),
            0..24
        )
        .prop_map(|chars| chars.into_iter().collect()),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn matches_are_those_of_a_general_engine(text in texts(), which in 0..PATTERNS.len()) {
        let pattern = PATTERNS[which];
        let found = Pattern::new(pattern).expect("a pattern").matches(&text);
        prop_assert_eq!(found, reference(pattern, &text), "pattern {} on {:?}", pattern, text);
    }

    #[test]
    fn any_pattern_is_read_or_refused(pattern in r"[ab\[\]\(\)|*+?{},0-9\\pswLd^$.:=!i-]{0,24}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches("ab a1\n");
        }
    }
}

#[test]
fn what_lies_between_matches_is_a_piece() {
    assert_eq!(pieces(r"\p{N}", "a12 b"), ["a", "1", "2", " b"]);
    assert_eq!(pieces(r"\p{N}", ""), [""; 0]);
    assert_eq!(pieces(r"(?=(?:[0-9]{3})+(?![0-9]))", "1234567"), ["1", "234", "567"]);
}

#[test]
fn lines_end_at_newlines() {
    assert_eq!(pieces(r"x+$", "xx\nxy"), ["xx", "\nxy"]);
    assert_eq!(pieces(r"^x", "xx\nxy"), ["x", "x\n", "x", "y"]);
}

#[test]
fn pieces_are_texts_of_their_own() {
    let pattern = Pattern::new(r"\s+(?!\S)|a$").expect("a pattern");
    let mut ends = vec![2, 3, 5];
    pattern.refine("  bab", &mut ends, &mut Vec::new());
    assert_eq!(ends, [2, 3, 5]);
    let mut ends = vec![4, 5];
    pattern.refine("  ba ", &mut ends, &mut Vec::new());
    assert_eq!(ends, [1, 3, 4, 5]);
}

#[test]
fn what_is_not_known_is_refused() {
    for pattern in
        [r"(a)\1", r"(?<=a)b", r"(?>a+)b", r"(?:ab)++", r"a{2", r"a{3,2}", "(", ")", "[", r"\", "*"]
    {
        assert!(Pattern::new(pattern).is_err(), "{pattern}");
    }
    assert!(Pattern::new(&"(".repeat(100_000)).is_err());
    assert!(Pattern::new("(?:ab){1,4000}").is_err());
}

/// A general engine would take the square of this, or give up.
#[test]
fn long_runs_take_linear_time() {
    for unit in [" ", "a", "1", "A", "\u{301}", " \n"] {
        let text = unit.repeat(200_000) + "x";
        for pattern in PATTERNS.iter().copied().chain([r"\s+$", r"(?:\s|a)*$|(?:\d|A)*(?!.)"]) {
            let found = Pattern::new(pattern).expect("a pattern").matches(&text);
            assert!(found.len() <= text.len() + 1);
        }
    }
}
