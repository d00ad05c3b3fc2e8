//! The element types of the format.

use alloyforge_types::QuantType;

macro_rules! dtypes {
    ($($variant:ident $name:literal $bits:literal;)*) => {
        /// An element type of the format. Models compute with the three that are a [`QuantType`]; the
        /// others occur in buffers and in other projects' quantised files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the variants are the format's own type names")]
        pub enum Dtype { $($variant,)* }

        impl Dtype {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name as a header spells it.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            /// Bits of one element.
            pub fn bits(self) -> usize { match self { $(Self::$variant => $bits,)* } }
        }
    };
}

dtypes! {
    Bool "BOOL" 8;
    F4 "F4" 4;
    F6E2M3 "F6_E2M3" 6;
    F6E3M2 "F6_E3M2" 6;
    U8 "U8" 8;
    I8 "I8" 8;
    F8E5M2 "F8_E5M2" 8;
    F8E4M3 "F8_E4M3" 8;
    F8E8M0 "F8_E8M0" 8;
    F8E4M3Fnuz "F8_E4M3FNUZ" 8;
    F8E5M2Fnuz "F8_E5M2FNUZ" 8;
    I16 "I16" 16;
    U16 "U16" 16;
    F16 "F16" 16;
    BF16 "BF16" 16;
    I32 "I32" 32;
    U32 "U32" 32;
    F32 "F32" 32;
    C64 "C64" 64;
    F64 "F64" 64;
    I64 "I64" 64;
    U64 "U64" 64;
}

impl Dtype {
    /// The type called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }

    /// The type as models see it; `None` for one that they do not compute with.
    pub fn quant_type(self) -> Option<QuantType> {
        match self {
            Self::F32 => Some(QuantType::F32),
            Self::F16 => Some(QuantType::F16),
            Self::BF16 => Some(QuantType::BF16),
            _ => None,
        }
    }
}
