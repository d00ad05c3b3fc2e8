//! Which form each weight takes, and whether all of them fit beside the KV cache and what passes between
//! phases.
//!
//! On the CPU matrices become f32 where all of them take no more than half of the free memory, and
//! stay as the file has them otherwise. On a GPU plain matrices keep their type, blocks stay blocks
//! where Candle has kernels for them, and the rest becomes f16.

use alloyforge_interfaces::{LoadOptions, WeightSource};
use alloyforge_types::{
    DType, Error, KvType, LayerRole, MatrixPlace, ModelSpec, QuantType, Result, Role, Weight,
};

use crate::formats;
use crate::quantize::Target;

/// One weight that the spec asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) role: Role,
    pub(crate) place: MatrixPlace,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Wanted {
    pub(crate) fn new(spec: &ModelSpec, role: Role) -> Result<Self> {
        let fault = || Error::internal(format!("{role:?} has no shape in the spec"));
        let (rows, cols) = spec.weight_shape(role).ok_or_else(fault)?;
        Ok(Self { role, place: spec.matrix_place(role), rows, cols })
    }

    pub(crate) fn values(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }
}

/// How many numbers all of `wanted` have.
pub(crate) fn values(wanted: &[Wanted]) -> u64 {
    wanted.iter().map(Wanted::values).fold(0, u64::saturating_add)
}

/// What a weight becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Plain numbers on the device.
    Dense(DType),
    /// Bytes of this type on the host.
    Packed(QuantType),
    /// Blocks of this type on a GPU.
    Blocks(QuantType),
}

impl Form {
    pub(crate) fn bytes(self, w: &Wanted) -> u64 {
        let row = match self {
            Self::Dense(DType::F32) => w.cols * 4,
            Self::Dense(DType::F16 | DType::BF16) => w.cols * 2,
            Self::Packed(ty) | Self::Blocks(ty) => ty.row_bytes(w.cols).unwrap_or(w.cols * 4),
        };
        w.rows as u64 * row as u64
    }
}

/// The rules that give each weight its form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms {
    pub(crate) is_cpu: bool,
    /// Whether the CPU's matrices become f32.
    pub(crate) is_wide: bool,
    pub(crate) dtype: Option<DType>,
    pub(crate) target: Option<Target>,
}

impl Forms {
    /// The type that the values of a weight stored as `stored` are turned into first.
    pub(crate) fn turned(&self, w: &Wanted, stored: QuantType) -> QuantType {
        let ty = match (w.role, self.target) {
            (role, _) if role.is_vector() => return stored,
            // a router is small, and its choices turn on close numbers
            (Role::Layer(_, LayerRole::Router), _) | (_, None) => stored,
            (_, Some(target)) => target.type_of(&w.place, w.cols),
        };
        match (formats::stored_plain(ty), self.dtype) {
            // widening to f32 changes no value: the CPU does it when it multiplies
            (Some(_), Some(DType::F32)) if self.is_cpu => ty,
            (Some(_), Some(dtype)) => formats::stored(dtype),
            (None, _) if !self.is_cpu && formats::blocks(ty).is_none() => {
                formats::stored(self.dtype.unwrap_or(DType::F16))
            }
            _ => ty,
        }
    }

    /// The form of a weight whose values are of type `ty` by now.
    pub(crate) fn form(&self, w: &Wanted, ty: QuantType) -> Form {
        if w.role.is_vector() || (self.is_cpu && self.is_wide) {
            Form::Dense(DType::F32)
        } else if self.is_cpu {
            Form::Packed(ty)
        } else {
            formats::stored_plain(ty).map_or(Form::Blocks(ty), Form::Dense)
        }
    }
}

/// What a model takes of its device, in bytes.
#[derive(Debug, Clone, Copy)]
struct Needs {
    weights: u64,
    kv: u64,
    workspace: u64,
}

impl Needs {
    /// # Errors
    /// `OutOfMemory` with all figures where they are more than the `available` bytes of `device`.
    fn check(self, device: &str, available: u64) -> Result<()> {
        let needed = self.weights.saturating_add(self.kv).saturating_add(self.workspace);
        if needed <= available {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let (weights, kv, workspace) = (mib(self.weights), mib(self.kv), mib(self.workspace));
        let what = format!(
            "the model on `{device}` ({weights} MiB of weights, {kv} MiB of KV cache, \
             {workspace} MiB between phases)"
        );
        Err(Error::OutOfMemory { what, needed, available })
    }
}

/// A device as far as a plan goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) device: &'a str,
    /// Bytes that may be taken, where that is known.
    pub(crate) available: Option<u64>,
    /// Bytes of what passes between phases.
    pub(crate) workspace: u64,
}

/// What was settled before anything is taken.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) forms: Forms,
    pub(crate) kv_type: KvType,
    /// The form of each weight; none where all matrices become f32.
    pub(crate) each: Vec<Form>,
}

/// Settles whether the CPU's matrices become f32 and what the KV cache is kept in, and that weights, cache
/// and what passes between phases fit together. Nothing is taken yet.
///
/// # Errors
/// `OutOfMemory` with the figures; what the source says.
pub(crate) fn settle(
    room: Room<'_>,
    source: &dyn WeightSource,
    wanted: &[Wanted],
    forms: Forms,
    options: &LoadOptions,
) -> Result<Settled> {
    let wide = values(wanted).saturating_mul(4);
    let is_wide = room.available.is_none_or(|available| wide <= available / 2);
    let forms = Forms { is_wide, ..forms };
    let (mut weights, mut bf16) = (0u64, 0u64);
    let mut each = Vec::new();
    if forms.is_cpu && is_wide && options.kv_type.is_some() {
        weights = wide;
    } else {
        for w in wanted {
            let stored = source.weight(w.role)?.ty;
            let form = forms.form(w, forms.turned(w, stored));
            weights = weights.saturating_add(form.bytes(w));
            each.push(form);
            if stored == QuantType::BF16 {
                bf16 = bf16.saturating_add(w.values());
            }
        }
    }
    // the two-byte type that suits the model
    let is_bf16 = bf16.saturating_mul(2) > values(wanted);
    let kv_type = options.kv_type.unwrap_or(if is_bf16 { KvType::BF16 } else { KvType::F16 });
    let kv = options.kv_bytes.as_ref().map_or(Ok(0), |least| least(kv_type))?;
    if let Some(available) = room.available {
        Needs { weights, kv, workspace: room.workspace }.check(room.device, available)?;
    }
    Ok(Settled { forms, kv_type, each })
}

/// A weight from its source, its size checked: the conversions below rely on it.
pub(crate) fn fetch<'a>(source: &'a dyn WeightSource, w: &Wanted) -> Result<Weight<'a>> {
    let weight = source.weight(w.role)?;
    let bytes = weight.ty.row_bytes(weight.cols).and_then(|row| row.checked_mul(weight.rows));
    if (weight.rows, weight.cols) != (w.rows, w.cols) || bytes != Some(weight.data.len()) {
        return Err(Error::internal(format!(
            "weight `{}` for {:?} is [{}, {}] of {} in {} bytes, the spec wants [{}, {}]",
            weight.name,
            w.role,
            weight.rows,
            weight.cols,
            weight.ty.name(),
            weight.data.len(),
            w.rows,
            w.cols
        )));
    }
    Ok(weight)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use alloyforge_interfaces::KvBytes;
    use alloyforge_types::MatrixKind;

    use super::*;

    /// A source that has every weight in one type, and no numbers.
    struct Of(QuantType);

    impl WeightSource for Of {
        fn weight(&self, role: Role) -> Result<Weight<'_>> {
            Ok(Weight {
                name: format!("{role:?}"),
                ty: self.0,
                rows: 256,
                cols: 256,
                data: Cow::Borrowed(&[]),
            })
        }
    }

    const VALUES: u64 = 2 * 256 * 256;
    const WORKSPACE: u64 = 1000;

    /// Two matrices on a GPU, or the CPU, with so many bytes free.
    fn plan(
        ty: QuantType,
        is_cpu: bool,
        available: Option<u64>,
        kv_bytes: Option<KvBytes>,
    ) -> Result<Settled> {
        let place = MatrixPlace {
            kind: MatrixKind::Head,
            layer: 0,
            num_layers: 1,
            num_experts: 0,
            is_expert: false,
            group: 1,
        };
        let wanted = [Role::Embedding, Role::Head].map(|role| Wanted { role, place, rows: 256, cols: 256 });
        let options = LoadOptions {
            dtype: None,
            quantize: None,
            kv_type: None,
            threads: None,
            max_rows: 1,
            max_logit_rows: 1,
            kv_bytes,
            progress: None,
        };
        let forms = Forms { is_cpu, is_wide: false, dtype: None, target: None };
        let room = Room { device: if is_cpu { "cpu" } else { "cuda:1" }, available, workspace: WORKSPACE };
        settle(room, &Of(ty), &wanted, forms, &options)
    }

    fn least(bytes: u64) -> Option<KvBytes> {
        Some(Arc::new(move |_| Ok(bytes)))
    }

    #[test]
    fn weights_cache_and_workspace_fit_together_or_not_at_all() {
        // plain weights stay as they are, blocks too; a type without kernels becomes f16
        let cases = [
            (QuantType::BF16, 2 * VALUES),
            (QuantType::F32, 4 * VALUES),
            (QuantType::Q4K, VALUES / 256 * 144),
            (QuantType::IQ2S, 2 * VALUES),
        ];
        for (ty, weights) in cases {
            for kv in [0, 1, 1 << 40] {
                let needed = weights + kv + WORKSPACE;
                assert!(plan(ty, false, Some(needed), least(kv)).is_ok(), "{ty:?}");
                match plan(ty, false, Some(needed - 1), least(kv)) {
                    Err(Error::OutOfMemory { what, needed: said, available }) => {
                        assert_eq!((said, available), (needed, needed - 1), "{ty:?}");
                        assert!(what.starts_with("the model on `cuda:1` (1 MiB of weights, "), "{what}");
                    }
                    other => panic!("{ty:?}: {other:?}"),
                }
            }
        }
        let Err(e) = plan(QuantType::BF16, false, Some(1 << 20), least(3 << 30)) else { panic!("it fits") };
        assert!(
            e.to_string().contains("(1 MiB of weights, 3072 MiB of KV cache, 1 MiB between phases)"),
            "{e}"
        );
    }

    #[test]
    fn the_cpu_widens_what_takes_half_of_its_memory() {
        let wide = |available| {
            plan(QuantType::F16, true, Some(available), None).map(|settled| settled.forms.is_wide)
        };
        assert_eq!(wide(8 * VALUES), Ok(true));
        assert_eq!(wide(8 * VALUES - 1), Ok(false));
        assert!(wide(2 * VALUES).is_err());
    }

    #[test]
    fn a_cache_is_of_the_type_that_suits_the_weights() {
        let ty = |ty| plan(ty, false, None, None).map(|settled| settled.kv_type);
        assert_eq!(ty(QuantType::BF16), Ok(KvType::BF16));
        assert_eq!(ty(QuantType::Q4K), Ok(KvType::F16));
    }

    #[test]
    fn a_cache_that_its_own_bounds_refuse_is_refused() {
        let refuse = |_| Err(Error::OutOfMemory { what: "a KV cache".into(), needed: 2, available: 1 });
        let refused = plan(QuantType::F16, false, None, Some(Arc::new(refuse)));
        assert!(matches!(refused, Err(Error::OutOfMemory { needed: 2, available: 1, .. })));
    }
}
