//! What a model is quantised to: a type for most matrices, and which get another.

use crate::{ExpertRole, LayerRole, ModelSpec, QuantType, Role};

/// How far a mix departs from its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Grade {
    /// Not at all.
    Pure,
    /// The head has more bits.
    Plain,
    /// Experts have the type, everything else is Q8_0.
    Experts,
    /// llama.cpp's `_S`: a few matrices have more bits.
    Small,
    /// llama.cpp's `_M`: about half of the matrices that matter most have more bits.
    Medium,
    /// llama.cpp's `_L`: all of those.
    Large,
}

/// What a model's matrices are turned into: llama.cpp's mixes by their names.
///
/// Values and the MLP's way down lose most by rounding, the first and last layers more than those
/// between, and the head more than all; a mix spends its bits there. Which matrix gets what is
/// `llama_tensor_get_type_impl` in `llama-quant.cpp` of llama.cpp, so that a file of one name holds the
/// same types whichever program made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantMix {
    base: QuantType,
    grade: Grade,
}

impl From<QuantType> for QuantMix {
    /// Every matrix in one type.
    fn from(base: QuantType) -> Self {
        Self { base, grade: Grade::Pure }
    }
}

/// The names, each with llama.cpp's number for a file's type. Of several for one mix the first is its
/// own.
const NAMES: &[(&str, u32, QuantMix)] = {
    use Grade::{Experts, Large, Medium, Plain, Pure, Small};
    use QuantType as T;
    const fn mix(base: QuantType, grade: Grade) -> QuantMix {
        QuantMix { base, grade }
    }
    &[
        ("f32", 0, mix(T::F32, Pure)),
        ("f16", 1, mix(T::F16, Pure)),
        ("bf16", 32, mix(T::BF16, Pure)),
        ("q4_0", 2, mix(T::Q4_0, Plain)),
        ("q4_1", 3, mix(T::Q4_1, Plain)),
        ("q5_0", 8, mix(T::Q5_0, Plain)),
        ("q5_1", 9, mix(T::Q5_1, Plain)),
        ("q8_0", 7, mix(T::Q8_0, Plain)),
        ("q2_k", 10, mix(T::Q2K, Medium)),
        ("q3_k_s", 11, mix(T::Q3K, Small)),
        ("q3_k_m", 12, mix(T::Q3K, Medium)),
        ("q3_k_l", 13, mix(T::Q3K, Large)),
        ("q4_k_s", 14, mix(T::Q4K, Small)),
        ("q4_k_m", 15, mix(T::Q4K, Medium)),
        ("q5_k_s", 16, mix(T::Q5K, Small)),
        ("q5_k_m", 17, mix(T::Q5K, Medium)),
        ("q6_k", 18, mix(T::Q6K, Plain)),
        ("tq1_0", 36, mix(T::TQ1_0, Plain)),
        ("tq2_0", 37, mix(T::TQ2_0, Plain)),
        ("mxfp4", 38, mix(T::MXFP4, Experts)),
        ("q3_k", 12, mix(T::Q3K, Medium)),
        ("q4_k", 15, mix(T::Q4K, Medium)),
        ("q5_k", 17, mix(T::Q5K, Medium)),
        ("int8", 7, mix(T::Q8_0, Plain)),
        ("int4", 15, mix(T::Q4K, Medium)),
    ]
};

/// A matrix as mixes tell matrices apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixKind {
    /// The token embeddings.
    Embedding,
    /// The head, and embeddings that are the head.
    Head,
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values, also together with queries and keys in one.
    V,
    /// The attention output.
    O,
    /// The MLP's way down, of an expert too.
    Down,
    /// Any other.
    Other,
}

/// Where in a model a matrix stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixPlace {
    /// What it is.
    pub kind: MatrixKind,
    /// Its layer; 0 outside of the layers.
    pub layer: usize,
    /// Layers of the model.
    pub num_layers: usize,
    /// Experts of each layer, 0 where there are none.
    pub num_experts: usize,
    /// Whether it belongs to an expert.
    pub is_expert: bool,
    /// Query heads to a key head.
    pub group: usize,
}

impl ModelSpec {
    /// Where the matrix for `role` stands.
    pub fn matrix_place(&self, role: Role) -> MatrixPlace {
        use ExpertRole as E;
        use LayerRole as L;
        let (layer, kind) = match role {
            Role::Embedding if self.has_tied_head => (0, MatrixKind::Head),
            Role::Embedding => (0, MatrixKind::Embedding),
            Role::Head => (0, MatrixKind::Head),
            Role::Layer(i, L::Q | L::CrossQ) => (i, MatrixKind::Q),
            Role::Layer(i, L::K | L::CrossK) => (i, MatrixKind::K),
            Role::Layer(i, L::V | L::CrossV) => (i, MatrixKind::V),
            Role::Layer(i, L::O | L::CrossO) => (i, MatrixKind::O),
            Role::Layer(i, L::Down | L::Expert(_, E::Down)) => (i, MatrixKind::Down),
            Role::Layer(i, _) => (i, MatrixKind::Other),
            Role::Positions | Role::FinalNorm | Role::FinalNormBias | Role::HeadBias => {
                (0, MatrixKind::Other)
            }
        };
        let experts = self.layers.iter().find_map(|layer| match &layer.mlp {
            crate::MlpSpec::Moe(moe) => Some(moe.num_experts),
            crate::MlpSpec::Dense { .. } | crate::MlpSpec::Plain { .. } => None,
        });
        let attention = self.layers.first().map(|layer| &layer.attention);
        MatrixPlace {
            kind,
            layer,
            num_layers: self.layers.len(),
            num_experts: experts.unwrap_or(0),
            is_expert: matches!(role, Role::Layer(_, L::Expert(..))),
            group: attention.map_or(1, |a| a.num_heads / a.num_kv_heads.max(1)),
        }
    }
}

impl MatrixPlace {
    /// Whether its layer is one of the half that mixes give more bits: the first and the last eighth,
    /// and every third between.
    fn is_favoured(&self) -> bool {
        let (i, n) = (self.layer, self.num_layers);
        i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
    }
}

impl QuantMix {
    /// The mix called `name`, in any case: llama.cpp's names, a K type's name alone for its medium mix,
    /// `int8` for `q8_0` and `int4` for `q4_k`.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|&(_, _, mix)| mix)
    }

    /// Every name that [`from_name`](Self::from_name) knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|&(name, ..)| name)
    }

    /// Its own name: of a file in which every matrix has one type, that type's.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, _, mix)| *mix == self).map_or(self.base.name(), |&(name, ..)| name)
    }

    /// The number of `general.file_type`, where llama.cpp has one: `llama_ftype`.
    pub fn file_type(self) -> Option<u32> {
        let same = |mix: &QuantMix| *mix == self || (self.grade == Grade::Pure && mix.base == self.base);
        NAMES.iter().find(|(_, _, mix)| same(mix)).map(|&(_, number, _)| number)
    }

    /// The type of most matrices.
    pub fn base(self) -> QuantType {
        self.base
    }

    /// The type of the matrix at `place` whose rows have `cols` numbers: the mix's choice, or what
    /// stands in for it where they are no whole blocks.
    pub fn type_of(self, place: &MatrixPlace, cols: usize) -> QuantType {
        self.wanted(place, cols).for_rows(cols)
    }

    fn wanted(self, place: &MatrixPlace, cols: usize) -> QuantType {
        use Grade::{Experts, Large, Medium, Plain, Pure, Small};
        use MatrixKind as K;
        use QuantType::{MXFP4, Q2K, Q3K, Q4K, Q5K, Q6K, Q8_0, TQ1_0, TQ2_0};
        let (base, n, i) = (self.base, place.num_layers, place.layer);
        match (place.kind, self.grade) {
            (_, Pure) => base,
            (_, Experts) => {
                if place.is_expert {
                    MXFP4
                } else {
                    Q8_0
                }
            }
            (K::Head, _) if base == Q8_0 || base.row_bytes(cols).is_none() => Q8_0,
            (K::Head, _) => Q6K,
            (K::Embedding, _) if matches!(base, TQ1_0 | TQ2_0) => Q4K,
            (K::V | K::K, _) if place.num_experts == 8 => Q8_0,
            (K::V, _) => {
                let ty = match (base, self.grade) {
                    (Q2K, _) if place.group >= 4 => Q4K,
                    (Q2K, _) => Q3K,
                    (Q3K, Medium) => {
                        if i < 2 {
                            Q5K
                        } else {
                            Q4K
                        }
                    }
                    (Q3K, Large) => Q5K,
                    (Q4K | Q5K, Medium) if place.is_favoured() => Q6K,
                    (Q4K, Small) if i < 4 => Q5K,
                    _ => base,
                };
                // in the shape of Llama 70B values are an eighth of the queries: more bits cost nothing
                let is_small = n == 80 && place.group > 1;
                if is_small && matches!(ty, Q3K | Q4K) { Q5K } else { ty }
            }
            (K::Down, grade) => match (base, grade) {
                (Q2K, _) => Q3K,
                (Q3K, Medium) => {
                    if i < n / 16 {
                        Q5K
                    } else {
                        Q4K
                    }
                }
                (Q3K, Large) => Q5K,
                (Q4K | Q5K, Medium) if place.is_favoured() => Q6K,
                (Q4K, Small) if i < n / 8 => Q5K,
                _ => base,
            },
            (K::O, grade) if place.num_experts == 8 => match (base, grade) {
                (Q2K | Q3K | Q4K, Small | Medium) => Q5K,
                _ => base,
            },
            (K::O, grade) => match (base, grade) {
                (Q2K, _) => Q3K,
                (Q3K, Medium) => Q4K,
                (Q3K, Large) => Q5K,
                _ => base,
            },
            (_, Plain | Small | Medium | Large) => base,
        }
    }
}

impl QuantType {
    /// This type where rows of `cols` numbers are whole blocks of it; otherwise the type of smaller
    /// blocks that llama.cpp takes in its place, and f16 where that does not fit either.
    pub fn for_rows(self, cols: usize) -> Self {
        let smaller = match self {
            Self::Q2K | Self::Q3K | Self::TQ1_0 | Self::TQ2_0 => Self::Q4_0,
            Self::Q4K => Self::Q5_0,
            Self::Q5K => Self::Q5_1,
            Self::Q6K => Self::Q8_0,
            other => other,
        };
        [self, smaller].into_iter().find(|ty| ty.row_bytes(cols).is_some()).unwrap_or(Self::F16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kind: MatrixKind, layer: usize) -> MatrixPlace {
        MatrixPlace { kind, layer, num_layers: 30, num_experts: 0, is_expert: false, group: 3 }
    }

    fn ty(name: &str, place: &MatrixPlace, cols: usize) -> &'static str {
        QuantMix::from_name(name).unwrap().type_of(place, cols).name()
    }

    #[test]
    fn names_lead_to_mixes_and_back() {
        for name in QuantMix::names() {
            let mix = QuantMix::from_name(name).unwrap();
            assert_eq!(QuantMix::from_name(mix.name()), Some(mix), "{name}");
            assert_eq!(QuantMix::from_name(&name.to_uppercase()), Some(mix), "{name}");
            assert!(mix.file_type().is_some(), "{name}");
        }
        let own = |name| QuantMix::from_name(name).map(QuantMix::name);
        assert_eq!([own("int8"), own("int4"), own("Q5_K")], [Some("q8_0"), Some("q4_k_m"), Some("q5_k_m")]);
        assert_eq!([own("iq2_xs"), own("q4"), own("")], [None; 3]);
        assert_eq!(QuantMix::from(QuantType::Q4K).name(), "q4_k");
        assert_eq!(QuantMix::from(QuantType::IQ2S).file_type(), None);
    }

    /// What llama.cpp's `llama-quantize` printed for SmolLM2-135M: 30 layers 576 wide, head tied.
    #[test]
    fn narrow_rows_get_smaller_blocks() {
        let head = place(MatrixKind::Head, 0);
        assert_eq!(ty("q4_k_m", &head, 576), "q8_0");
        assert_eq!(ty("q4_0", &head, 576), "q8_0");
        assert_eq!(ty("q4_0", &head, 512), "q6_k");
        assert_eq!(ty("q4_k_m", &place(MatrixKind::Q, 0), 576), "q5_0");
        assert_eq!(ty("q5_k_m", &place(MatrixKind::Q, 0), 576), "q5_1");
        assert_eq!(ty("q4_k_m", &place(MatrixKind::V, 0), 576), "q8_0");
        assert_eq!(ty("q4_k_m", &place(MatrixKind::V, 3), 576), "q5_0");
        assert_eq!(ty("q4_k_m", &place(MatrixKind::Down, 5), 1536), "q6_k");
        assert_eq!(ty("q4_k_m", &place(MatrixKind::Down, 6), 1536), "q4_k");
        assert_eq!(ty("q4_k_m", &place(MatrixKind::Other, 6), 100), "f16");
    }

    #[test]
    fn the_favoured_layers() {
        let favoured: Vec<usize> = (0..30).filter(|&i| place(MatrixKind::V, i).is_favoured()).collect();
        assert_eq!(favoured, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]);
    }

    #[test]
    fn mixes_differ_where_llama_cpp_s_do() {
        let (v, down, o) = (MatrixKind::V, MatrixKind::Down, MatrixKind::O);
        for (name, kind, layer, expected) in [
            ("q4_k_s", v, 3, "q5_k"),
            ("q4_k_s", v, 4, "q4_k"),
            ("q4_k_s", down, 2, "q5_k"),
            ("q4_k_s", down, 3, "q4_k"),
            ("q5_k_s", v, 0, "q5_k"),
            ("q5_k_m", v, 0, "q6_k"),
            ("q3_k_m", v, 1, "q5_k"),
            ("q3_k_m", down, 0, "q5_k"),
            ("q3_k_m", down, 1, "q4_k"),
            ("q3_k_l", o, 1, "q5_k"),
            ("q3_k_s", v, 0, "q3_k"),
            ("q2_k", o, 0, "q3_k"),
            ("q2_k", v, 0, "q3_k"),
            ("q6_k", v, 0, "q6_k"),
            ("f16", down, 0, "f16"),
            ("mxfp4", down, 0, "q8_0"),
        ] {
            assert_eq!(ty(name, &place(kind, layer), 1024), expected, "{name} {kind:?} {layer}");
        }
        let mixtral = MatrixPlace { num_experts: 8, is_expert: false, ..place(v, 4) };
        assert_eq!(ty("q4_k_m", &mixtral, 1024), "q8_0");
        assert_eq!(ty("mxfp4", &MatrixPlace { is_expert: true, ..place(down, 0) }, 1024), "mxfp4");
        let of_70b = MatrixPlace { num_layers: 80, layer: 13, group: 8, ..place(v, 0) };
        assert_eq!(ty("q4_k_m", &of_70b, 1024), "q5_k");
    }
}
