//! Pictures, videos and sounds between the processor that prepares them and the model that sees them.

use std::fmt;
use std::sync::Arc;

/// What a media item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A video.
    Video,
    /// A sound.
    Audio,
}

impl MediaKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Image, Self::Video, Self::Audio];

    /// The parameter of the public API that items of this kind come in.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Video => "videos",
            Self::Audio => "audio",
        }
    }

    /// One of this kind, in words.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "sound",
        }
    }

    /// The kind whose [`noun`](Self::noun), or public name, is `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "image" => Some(Self::Image),
            "video" => Some(Self::Video),
            "audio" | "sound" => Some(Self::Audio),
            _ => None,
        }
    }
}

/// Numbers that a processor made, in row-major order.
#[derive(Clone, PartialEq)]
pub struct MediaTensor {
    /// The name that the processor gives it: `pixel_values`, say.
    pub name: String,
    /// The shape, outermost dimension first; its product is the count of values.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Arc<[f32]>,
}

impl fmt::Debug for MediaTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaTensor")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// One picture, video or sound, prepared for a model's encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaItem {
    /// What it is.
    pub kind: MediaKind,
    /// A digest of everything below: two items with one hash are the same.
    pub hash: u128,
    /// What the encoder takes.
    pub tensors: Vec<MediaTensor>,
    /// What the prompt follows from, by name, such as `grid` or `times`; each family says which it
    /// wants and in what units.
    pub facts: Vec<(String, Vec<f64>)>,
}

impl MediaItem {
    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&MediaTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The numbers called `name`.
    pub fn fact(&self, name: &str) -> Option<&[f64]> {
        self.facts.iter().find(|(n, _)| n == name).map(|(_, v)| &**v)
    }
}

/// What an encoder makes of an item: rows that stand in place of token embeddings.
#[derive(Clone, PartialEq)]
pub struct MediaRows {
    /// Numbers in a row: the decoder's hidden width.
    pub width: usize,
    /// The rows, one after another.
    pub rows: Arc<[f32]>,
    /// As many rows again for each of the first layers, added to what the layer puts out (DeepStack,
    /// arXiv 2406.04334).
    pub deeper: Vec<Arc<[f32]>>,
}

impl MediaRows {
    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.rows.len() / self.width.max(1)
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        (1 + self.deeper.len()) * self.rows.len() * size_of::<f32>()
    }
}

impl fmt::Debug for MediaRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaRows")
            .field("width", &self.width)
            .field("num_rows", &self.num_rows())
            .field("deeper", &self.deeper.len())
            .finish_non_exhaustive()
    }
}

/// A part of what a placeholder in a prompt becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptPiece {
    /// Text, in which special tokens are read as such.
    Text(String),
    /// As many rows of the item, the next ones.
    Rows(usize),
}

/// Where rows of an item stand in a prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaSpan {
    /// The item's place among all items of the prompt, in the order of their placeholders.
    pub item: usize,
    /// The index of the first token that a row replaces.
    pub first: usize,
    /// The item's row that it is replaced with; the next ones follow.
    pub first_row: usize,
    /// How many.
    pub num_rows: usize,
}

/// The rotary positions of a prompt whose media spread over more than one dimension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MediaPositions {
    /// For each token of the prompt, its position in time, height and width.
    pub prompt: Vec<[u32; 3]>,
    /// The position, in all three, of the first token behind the prompt; each later one is one more.
    pub next: u32,
}
