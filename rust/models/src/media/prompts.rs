//! What placeholders become, and how positions run, family by family.
//!
//! The facts that each family's processor gives with an item:
//!
//! | family | facts |
//! | --- | --- |
//! | LLaVA-NeXT | `tiles`: tiles down and across; `padding`: lines above and columns beside the picture |
//! | Idefics3, SmolVLM | `tiles`; of a video `times`, each frame's in seconds, and its `duration` |
//! | Qwen-VL | `grid`: frames, lines and columns of patches; of a video `seconds`, the time that one step of the grid takes, and for Qwen3-VL `times` |
//! | Gemma 3 | `crops`: pictures beside the whole one |
//! | Mistral 3 | `grid` |

use std::sync::Arc;

use alloyforge_interfaces::MediaPrompts;
use alloyforge_types::{Error, MediaItem, MediaKind, MediaPositions, MediaSpan, PromptPiece, Result};

use PromptPiece::{Rows, Text};

/// Most rows that one item may have, so that no count can overflow.
const MAX_ROWS: f64 = (1 << 24) as f64;

/// How a family's prompts hold media.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// As many rows as a tile has.
    Llava { rows: usize },
    /// The whole picture and its tiles, with ends of lines; `side` rows along an edge of a tile.
    LlavaNext { side: usize },
    /// Tiles with their places, then the whole picture.
    Idefics3 { rows: usize },
    /// A grid of merged patches.
    Qwen { merge: usize, tokens_per_second: Option<f32>, has_timestamps: bool },
    /// A picture of a fixed count of rows, between two tokens.
    Gemma3 { rows: usize },
    /// Lines of merged patches.
    Mistral3 { merge: usize },
}

/// A family's way, with the texts of its tokens.
#[derive(Debug)]
pub(super) struct Prompts {
    layout: Layout,
    image: Vec<String>,
    video: Vec<String>,
}

impl Prompts {
    pub(super) fn new(layout: Layout) -> Self {
        let texts = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        let (image, video): (&[&str], &[&str]) = match &layout {
            Layout::Llava { .. } | Layout::LlavaNext { .. } => (&["<image>"], &[]),
            Layout::Idefics3 { .. } => (&["<image>"], &["<video>"]),
            Layout::Qwen { has_timestamps: true, .. } => {
                (&["<|image_pad|>"], &["<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>"])
            }
            Layout::Qwen { .. } => (&["<|image_pad|>"], &["<|video_pad|>"]),
            Layout::Gemma3 { .. } => (&["<start_of_image>"], &[]),
            Layout::Mistral3 { .. } => (&["[IMG]"], &[]),
        };
        Self { layout, image: texts(image), video: texts(video) }
    }
}

fn missing(item: &MediaItem, name: &str) -> Error {
    let fault = format!("its processor gave no sound `{name}`");
    Error::Media { item: item.kind.noun().to_owned(), fault }
}

/// `N` counts called `name`.
fn counts<const N: usize>(item: &MediaItem, name: &str) -> Result<[usize; N]> {
    let values = item.fact(name).filter(|v| v.len() == N && v.iter().all(|x| (0.0..MAX_ROWS).contains(x)));
    let values = values.ok_or_else(|| missing(item, name))?;
    if values.iter().product::<f64>() >= MAX_ROWS {
        return Err(missing(item, name));
    }
    Ok(std::array::from_fn(|i| values[i] as usize))
}

impl MediaPrompts for Prompts {
    fn placeholders(&self, kind: MediaKind) -> &[String] {
        match kind {
            MediaKind::Image => &self.image,
            MediaKind::Video => &self.video,
            MediaKind::Audio => &[],
        }
    }

    fn row_token(&self, kind: MediaKind) -> &str {
        match (&self.layout, kind) {
            (Layout::Gemma3 { .. }, _) => "<image_soft_token>",
            (Layout::Qwen { .. }, MediaKind::Video) => "<|video_pad|>",
            // a video of these is a row of pictures
            _ => self.image.first().map_or("", String::as_str),
        }
    }

    fn expand(&self, item: &MediaItem) -> Result<Vec<PromptPiece>> {
        match self.layout {
            Layout::Llava { rows } => Ok(vec![Rows(rows)]),
            Layout::LlavaNext { side } => {
                let [down, across] = counts(item, "tiles")?;
                let [above, beside] = counts(item, "padding")?;
                let (lines, columns) = (down * side, across * side);
                let (Some(lines), Some(columns)) =
                    (lines.checked_sub(2 * above), columns.checked_sub(2 * beside))
                else {
                    return Err(missing(item, "padding"));
                };
                let large = if down * across == 0 { 1 } else { lines * (columns + 1) };
                Ok(vec![Rows(side * side + large)])
            }
            Layout::Idefics3 { rows } if item.kind == MediaKind::Video => idefics3_video(item, rows),
            Layout::Idefics3 { rows } => {
                let [down, across] = counts(item, "tiles")?;
                Ok(idefics3_image(rows, down, across))
            }
            Layout::Qwen { merge, has_timestamps, .. } => {
                let [frames, height, width] = counts(item, "grid")?;
                let rows = (height / merge) * (width / merge);
                if item.kind != MediaKind::Video || !has_timestamps {
                    return Ok(vec![Rows(frames * rows)]);
                }
                let times = item.fact("times").filter(|t| t.len() == frames);
                let times = times.ok_or_else(|| missing(item, "times"))?;
                let frame = |time: &f64| {
                    let start = Text(format!("<{time:.1} seconds><|vision_start|>"));
                    [start, Rows(rows), Text("<|vision_end|>".into())]
                };
                Ok(times.iter().flat_map(frame).collect())
            }
            Layout::Gemma3 { rows } => {
                let picture =
                    || [Text("\n\n<start_of_image>".into()), Rows(rows), Text("<end_of_image>\n\n".into())];
                let [crops] = counts(item, "crops")?;
                if crops == 0 {
                    return Ok(picture().into());
                }
                let mut pieces = vec![Text("Here is the original image ".into())];
                pieces.extend(picture());
                pieces.push(Text(" and here are some crops to help you see better".into()));
                for _ in 0..crops {
                    pieces.push(Text(" ".into()));
                    pieces.extend(picture());
                }
                Ok(pieces)
            }
            Layout::Mistral3 { merge } => {
                let [_, height, width] = counts(item, "grid")?;
                let (lines, columns) = (height / merge, width / merge);
                let line = |i: usize| {
                    let end = if i + 1 == lines { "[IMG_END]" } else { "[IMG_BREAK]" };
                    [Rows(columns), Text(end.into())]
                };
                Ok((0..lines).flat_map(line).collect())
            }
        }
    }

    fn positions(
        &self,
        len: usize,
        spans: &[MediaSpan],
        items: &[Arc<MediaItem>],
    ) -> Result<Option<MediaPositions>> {
        let Layout::Qwen { merge, tokens_per_second, has_timestamps } = self.layout else { return Ok(None) };
        let mut prompt: Vec<[u32; 3]> = Vec::with_capacity(len);
        let mut next: u32 = 0;
        let text = |until: usize, next: &mut u32, prompt: &mut Vec<[u32; 3]>| {
            while prompt.len() < until {
                prompt.push([*next; 3]);
                *next += 1;
            }
        };
        for span in spans {
            text(span.first, &mut next, &mut prompt);
            let item = items.get(span.item).ok_or_else(|| Error::internal("a span of no item"))?;
            let [_, height, width] = counts(item, "grid")?;
            let (lines, columns) = ((height / merge).max(1), (width / merge).max(1));
            let interval = match (tokens_per_second, item.fact("seconds")) {
                (Some(rate), Some(&[seconds])) if item.kind == MediaKind::Video => rate * seconds as f32,
                _ => 1.0,
            };
            let base = next;
            for row in span.first_row..span.first_row + span.num_rows {
                let (frame, place) = (row / (lines * columns), row % (lines * columns));
                // frames with timestamps are pictures of their own
                let time = if has_timestamps { 0 } else { (frame as f32 * interval) as u32 };
                let at = [time, (place / columns) as u32, (place % columns) as u32];
                let at = at.map(|x| base.saturating_add(x));
                // behind everything before it, as Qwen's own code has it, in time too
                next = at.into_iter().fold(next, |next, x| next.max(x.saturating_add(1)));
                prompt.push(at);
            }
        }
        text(len, &mut next, &mut prompt);
        Ok(Some(MediaPositions { prompt, next }))
    }

    fn two_way_rows(&self) -> usize {
        match self.layout {
            Layout::Gemma3 { rows } => rows,
            _ => 0,
        }
    }
}

/// The text around the tiles of a picture.
fn idefics3_image(rows: usize, down: usize, across: usize) -> Vec<PromptPiece> {
    const FAKE: &str = "<fake_token_around_image>";
    let mut pieces = Vec::new();
    for line in 1..=down {
        for column in 1..=across {
            pieces.push(Text(format!("{FAKE}<row_{line}_col_{column}>")));
            pieces.push(Rows(rows));
        }
        pieces.push(Text("\n".into()));
    }
    let start = if pieces.is_empty() { "" } else { "\n" };
    pieces.push(Text(format!("{start}{FAKE}<global-img>")));
    pieces.push(Rows(rows));
    pieces.push(Text(FAKE.into()));
    pieces
}

/// SmolVLM's words around the frames of a video.
fn idefics3_video(item: &MediaItem, rows: usize) -> Result<Vec<PromptPiece>> {
    let times = item.fact("times").filter(|t| !t.is_empty()).ok_or_else(|| missing(item, "times"))?;
    let duration = match item.fact("duration") {
        Some(&[seconds]) if (0.0..1e9).contains(&seconds) => seconds as u64,
        _ => return Err(missing(item, "duration")),
    };
    let clock = format!("{}:{:02}:{:02}", duration / 3600, duration / 60 % 60, duration % 60);
    let count = words(times.len());
    let mut pieces = vec![Text(format!(
        "You are provided the following series of {count} frames from a {clock} [H:MM:SS] video.\n"
    ))];
    for time in times {
        let time = *time as u64;
        pieces.push(Text(format!("\nFrame from {:02}:{:02}:", time / 60, time % 60)));
        pieces.extend(idefics3_image(rows, 0, 0));
    }
    pieces.push(Text("\n\n".into()));
    Ok(pieces)
}

/// A count in English words, as `num2words` spells it.
fn words(n: usize) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match n {
        0..20 => SMALL[n].to_owned(),
        20..100 if n.is_multiple_of(10) => TENS[n / 10 - 2].to_owned(),
        20..100 => format!("{}-{}", TENS[n / 10 - 2], SMALL[n % 10]),
        100..1000 if n.is_multiple_of(100) => format!("{} hundred", SMALL[n / 100]),
        100..1000 => format!("{} hundred and {}", SMALL[n / 100], words(n % 100)),
        _ => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: MediaKind, facts: &[(&str, &[f64])]) -> MediaItem {
        let facts = facts.iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect();
        MediaItem { kind, hash: 0, tensors: Vec::new(), facts }
    }

    #[test]
    fn lines_end_with_their_tokens() {
        let prompts = Prompts::new(Layout::Mistral3 { merge: 2 });
        let pieces = prompts.expand(&item(MediaKind::Image, &[("grid", &[1.0, 4.0, 6.0])])).unwrap();
        let want = [Rows(3), Text("[IMG_BREAK]".into()), Rows(3), Text("[IMG_END]".into())];
        assert_eq!(pieces, want);
    }

    // positions: the example in the documentation of transformers' `get_rope_index`
    #[test]
    fn positions_of_a_video_scale_with_time() {
        let layout = Layout::Qwen { merge: 2, tokens_per_second: Some(25.0), has_timestamps: false };
        let prompts = Prompts::new(layout);
        let video = item(MediaKind::Video, &[("grid", &[3.0, 4.0, 4.0]), ("seconds", &[2.0])]);
        let span = MediaSpan { item: 0, first: 0, first_row: 0, num_rows: 12 };
        let found = prompts.positions(17, &[span], &[Arc::new(video)]).unwrap().unwrap();
        let column = |axis: usize| found.prompt[..12].iter().map(|p| p[axis]).collect::<Vec<_>>();
        assert_eq!(column(0), [0, 0, 0, 0, 50, 50, 50, 50, 100, 100, 100, 100]);
        assert_eq!(column(1), [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(column(2), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(found.prompt[12..], [[101; 3], [102; 3], [103; 3], [104; 3], [105; 3]]);
        assert_eq!(found.next, 106);
    }

    #[test]
    fn facts_that_are_missing_or_mad_are_told() {
        let mad: &[&[f64]] = &[&[], &[1.0], &[-1.0, 2.0, 2.0], &[f64::NAN, 2.0, 2.0], &[1e8, 1e8, 1e8]];
        for layout in [
            Layout::Qwen { merge: 2, tokens_per_second: None, has_timestamps: true },
            Layout::Mistral3 { merge: 2 },
        ] {
            let prompts = Prompts::new(layout);
            for values in mad {
                let found = prompts.expand(&item(MediaKind::Image, &[("grid", values)]));
                assert!(matches!(found, Err(Error::Media { .. })), "{values:?}");
            }
        }
    }

    #[test]
    fn counts_in_words() {
        let want = [
            (7, "seven"),
            (13, "thirteen"),
            (20, "twenty"),
            (64, "sixty-four"),
            (104, "one hundred and four"),
        ];
        assert!(want.iter().all(|(n, text)| words(*n) == *text));
    }
}
