//! Number formats: of plain tensors, of ggml's weight blocks, of the KV cache.

/// Tokens in one block of the KV cache, everywhere.
///
/// 32 is a compromise that every later room builds on: one block is one unit of prefix sharing (a
/// smaller one finds longer prefixes), one chunk of decode attention (a larger one amortises the
/// softmax rescale) and one row of a block table on a GPU.
pub const BLOCK_LEN: usize = 32;

/// A plain floating-point format, for computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain floating point: the upper half of a single.
    BF16,
}

impl DType {
    /// The name as the public API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    /// The format called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::BF16].into_iter().find(|t| t.name() == name)
    }
}

/// The format of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain floating point.
    BF16,
    /// Blocks of 32 bytes with one f16 scale.
    Q8_0,
}

impl KvType {
    /// The name as the public API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The format called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::BF16, Self::Q8_0].into_iter().find(|t| t.name() == name)
    }

    /// Bytes that one head's vector of `head_dim` numbers takes. Q8_0 rounds up to whole blocks.
    pub fn vector_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F32 => head_dim * 4,
            Self::F16 | Self::BF16 => head_dim * 2,
            Self::Q8_0 => head_dim.div_ceil(32) * 34,
        }
    }
}

macro_rules! quant_types {
    ($($variant:ident $name:literal $id:literal $len:literal $bytes:literal;)*) => {
        /// The format that a weight is stored in: plain, or one of ggml's block formats.
        ///
        /// A block holds [`block_len`](Self::block_len) consecutive numbers of one row in
        /// [`block_bytes`](Self::block_bytes) bytes. Layouts: `ggml-common.h` of ggml.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the variants are ggml's own type names")]
        pub enum QuantType { $($variant,)* }

        impl QuantType {
            /// Every format.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in lower case, as the public API spells it.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            /// The number that a GGUF file uses for it.
            pub fn ggml_id(self) -> u32 { match self { $(Self::$variant => $id,)* } }

            /// Numbers in one block.
            pub fn block_len(self) -> usize { match self { $(Self::$variant => $len,)* } }

            /// Bytes in one block.
            pub fn block_bytes(self) -> usize { match self { $(Self::$variant => $bytes,)* } }
        }
    };
}

quant_types! {
    F32 "f32" 0 1 4;
    F16 "f16" 1 1 2;
    BF16 "bf16" 30 1 2;
    Q4_0 "q4_0" 2 32 18;
    Q4_1 "q4_1" 3 32 20;
    Q5_0 "q5_0" 6 32 22;
    Q5_1 "q5_1" 7 32 24;
    Q8_0 "q8_0" 8 32 34;
    Q2K "q2_k" 10 256 84;
    Q3K "q3_k" 11 256 110;
    Q4K "q4_k" 12 256 144;
    Q5K "q5_k" 13 256 176;
    Q6K "q6_k" 14 256 210;
    IQ2XXS "iq2_xxs" 16 256 66;
    IQ2XS "iq2_xs" 17 256 74;
    IQ3XXS "iq3_xxs" 18 256 98;
    IQ1S "iq1_s" 19 256 50;
    IQ4NL "iq4_nl" 20 32 18;
    IQ3S "iq3_s" 21 256 110;
    IQ2S "iq2_s" 22 256 82;
    IQ4XS "iq4_xs" 23 256 136;
    IQ1M "iq1_m" 29 256 56;
    TQ1_0 "tq1_0" 34 256 54;
    TQ2_0 "tq2_0" 35 256 66;
    MXFP4 "mxfp4" 39 32 17;
}

impl QuantType {
    /// The format called `name` in lower case, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }

    /// The format that a GGUF file numbers `id`, if there is one.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.ggml_id() == id)
    }

    /// Whether it is a plain floating-point format.
    pub fn is_plain(self) -> bool {
        self.block_len() == 1
    }

    /// Bytes of a row of `len` numbers, or `None` where `len` is no multiple of the block or the
    /// size overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}
