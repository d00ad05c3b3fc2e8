//! Encoders of pictures and texts, described as data: what stands between a processor's numbers and
//! rows for a decoder, or an embedding.
//!
//! As with [`ModelSpec`](crate::ModelSpec), a family is a translation of its configuration into these
//! axes, and no forward pass asks which family it runs.

/// What normalises a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderNorm {
    /// Mean and variance, weight and bias.
    Layer,
    /// Root mean square, weight alone.
    Rms,
}

/// What stands between the two products of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderActivation {
    /// GELU with the error function.
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`: CLIP.
    QuickGelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// The positive part.
    Relu,
}

/// How a patch's row and column turn queries and keys. Unless it says otherwise, coordinate `i` turns
/// with `i + dim / 2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GridRope {
    /// The first half of the angles takes the row, the second the column, both with the same `dim / 4`
    /// frequencies: Qwen-VL.
    Halves {
        /// The base of the frequencies.
        theta: f32,
    },
    /// Of `dim / 2` frequencies the even ones take the row and stand first, the odd ones the column:
    /// Pixtral.
    EvenOdd {
        /// The base of the frequencies.
        theta: f32,
    },
    /// The same angles, where coordinate `2 i` turns with `2 i + 1`: Pixtral in llama.cpp's files.
    Paired {
        /// The base of the frequencies.
        theta: f32,
    },
}

/// The blocks of a transformer that sees everything, or everything before.
#[derive(Debug, Clone, PartialEq)]
pub struct TowerSpec {
    /// Blocks.
    pub num_layers: usize,
    /// Width of a row.
    pub width: usize,
    /// Heads, for keys and values too.
    pub num_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub ff_dim: usize,
    /// Every norm.
    pub norm: EncoderNorm,
    /// Added to the mean square, or the variance, in every norm.
    pub norm_eps: f32,
    /// Whether norms stand behind the residual sums (BERT) rather than before the products.
    pub is_post_norm: bool,
    /// The MLP's activation.
    pub activation: EncoderActivation,
    /// Whether the MLP multiplies the activated product by a second one.
    pub is_gated: bool,
    /// Whether a row sees only those before it: CLIP's text tower.
    pub is_causal: bool,
    /// How positions turn queries and keys.
    pub rope: Option<GridRope>,
    /// Whether products have biases: q, k, v and output; then the MLP's.
    pub has_bias: [bool; 2],
    /// Whether a factor a coordinate scales what a block adds: DINOv2.
    pub has_layer_scale: bool,
    /// Whether a norm stands in front of the first block.
    pub has_pre_norm: bool,
    /// Whether a norm stands behind the last one.
    pub has_post_norm: bool,
}

/// Where patches get their positions from, beside the rope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GridPositions {
    /// Nowhere else.
    None,
    /// A row of a table for each patch of a picture of `side` times `side` patches, the class token's
    /// first.
    Table {
        /// Patches along an edge.
        side: usize,
    },
    /// As `Table`, resampled by cubic convolution where the picture has another size: DINOv2.
    Bicubic {
        /// Patches along an edge of the table.
        side: usize,
    },
    /// As `Table`, of which each patch takes the nearest row by its share of the picture's edge:
    /// Idefics3.
    Buckets {
        /// Patches along an edge of the table.
        side: usize,
    },
    /// As `Table`, resampled linearly with both corners kept: Qwen3-VL.
    Bilinear {
        /// Patches along an edge of the table.
        side: usize,
    },
}

/// What becomes of the tower's rows.
#[derive(Debug, Clone, PartialEq)]
pub enum VisionHead {
    /// Two products with an activation between them: LLaVA. Patches only, the class token left out
    /// unless it is kept.
    Mlp {
        /// What stands between.
        activation: EncoderActivation,
        /// Whether the class token's row is projected too.
        keeps_class: bool,
        /// How tiles of a picture are joined.
        tiles: TileLayout,
    },
    /// Patches of a square joined to one row, then a product: Idefics3 and SmolVLM.
    PixelShuffle {
        /// Patches along an edge of the square.
        scale: usize,
    },
    /// Qwen-VL's merger: a norm, squares of patches joined to one row, two products around GELU.
    Merger {
        /// Patches along an edge of a square; patches come square by square.
        merge: usize,
        /// The norm.
        norm: EncoderNorm,
        /// Blocks behind which a merger of its own makes further rows (DeepStack), ascending.
        deepstack: Vec<usize>,
    },
    /// Squares averaged, an RMS norm of 1 + weight, a product: Gemma 3.
    Pool {
        /// Rows along an edge of the result.
        side: usize,
        /// Added to the mean square.
        norm_eps: f32,
    },
    /// An RMS norm, squares of patches joined by a product, two products around an activation:
    /// Mistral 3. Without a merge, LLaVA's projector of Pixtral.
    Merge {
        /// Patches along an edge of a square.
        merge: usize,
        /// What stands between the last two products.
        activation: EncoderActivation,
        /// Added to the mean square; `None`: there is neither norm nor merging product.
        norm_eps: Option<f32>,
    },
    /// The class token's row, through a product where there is one: CLIP, DINOv2, ViT.
    Class {
        /// Whether a product follows.
        has_projection: bool,
        /// Whether that product has a bias.
        has_bias: bool,
        /// Rows of the product; the tower's width where there is none.
        dim: usize,
    },
    /// A learned query attends to all patches: SigLIP.
    AttentionPool,
}

/// How the tiles of one picture become one list of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileLayout {
    /// One after another.
    Plain,
    /// LLaVA-NeXT: the small picture first, then the tiles as one grid, its padding cut away, with a
    /// learned row at the end of each line.
    Unpadded,
}

/// An encoder of pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionSpec {
    /// Pixels along an edge of a patch.
    pub patch_size: usize,
    /// Frames in a patch.
    pub frames: usize,
    /// Whether the product that makes patches has a bias.
    pub has_patch_bias: bool,
    /// Whether a learned row stands before the patches.
    pub has_class_token: bool,
    /// Where patches get their positions from.
    pub positions: GridPositions,
    /// The blocks.
    pub tower: TowerSpec,
    /// Blocks after which rows are taken for the head, joined one beside another; empty: after the last
    /// and its norm.
    pub taps: Vec<usize>,
    /// For each block the edge, in joined squares, of the windows in which patches see each other;
    /// `None`: the whole picture. Empty: none has any.
    pub windows: Vec<Option<usize>>,
    /// What follows.
    pub head: VisionHead,
    /// Numbers in a row of the result.
    pub out_dim: usize,
}

/// What a text's embedding is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all rows.
    Mean,
    /// The first row.
    First,
    /// The last row.
    Last,
    /// The largest value of each coordinate.
    Max,
    /// The row of the first token with the highest id: early CLIP's end of text.
    HighestId,
    /// The row of the first token with this id; the last row where there is none.
    Token(u32),
}

/// An encoder of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct TextSpec {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Rows of the table of positions: most tokens of a text.
    pub max_len: usize,
    /// The position of the first token: 0, or behind the padding's (RoBERTa).
    pub first_position: usize,
    /// Whether every row gets the embedding of segment 0.
    pub has_segments: bool,
    /// Whether a norm follows the sum of embeddings.
    pub has_embedding_norm: bool,
    /// The blocks.
    pub tower: TowerSpec,
    /// The padding's id, where texts are padded to `max_len` and padding is seen: SigLIP.
    pub padded_with: Option<u32>,
    /// What the embedding is made of.
    pub pooling: Pooling,
    /// Products behind it, each with its bias and what follows.
    pub head: Vec<TextHead>,
    /// Numbers in an embedding.
    pub out_dim: usize,
}

/// A product behind the pooled row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextHead {
    /// Rows of the product.
    pub dim: usize,
    /// Whether it has a bias.
    pub has_bias: bool,
    /// What follows it.
    pub then: HeadThen,
}

/// What follows a product behind the pooled row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadThen {
    /// Nothing.
    Nothing,
    /// The hyperbolic tangent.
    Tanh,
    /// The positive part.
    Relu,
    /// GELU with the error function.
    Gelu,
}
