//! Takes a role's piece out of its tensor.

use std::borrow::Cow;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{
    Error, ExpertRole, LayerRole, MlpSpec, ModelSpec, QuantType, Result, Role, TensorView, Weight,
};
use half::{bf16, f16};

use super::names::{Part, scales_of};

/// Numbers that one MXFP4 scale serves.
const MXFP4_LEN: usize = 32;

/// Where a role is in the tensor around it.
struct Place {
    /// The role's rows and columns.
    rows: usize,
    cols: usize,
    /// The tensor's shape.
    shape: Vec<usize>,
    /// The first of the role's rows; where gate and up stand by turns, 0 or 1.
    first: usize,
    /// The expert, for a piece of a stack.
    expert: usize,
}

fn misplaced(role: Role) -> Error {
    Error::internal(format!("{role:?} is no piece of such a tensor"))
}

/// The rows and columns of `role`; `label` names the file in errors.
///
/// # Errors
/// `Format` for a role that the spec does not have or whose width overflows.
pub(super) fn shape(label: &str, spec: &ModelSpec, role: Role) -> Result<(usize, usize)> {
    let fault = || Error::format(label, format!("{role:?}"), "is no weight of the model, or too wide");
    spec.weight_shape(role).ok_or_else(fault)
}

fn place(label: &str, part: Part, spec: &ModelSpec, role: Role) -> Result<Place> {
    let (rows, cols) = shape(label, spec, role)?;
    let times = |a: usize, b: usize| {
        let overflow = || Error::format(label, format!("{role:?}"), "its size overflows");
        a.checked_mul(b).ok_or_else(overflow)
    };
    let (expert, experts) = match role {
        Role::Layer(i, LayerRole::Expert(e, _)) => match spec.layers.get(i).map(|l| &l.mlp) {
            Some(MlpSpec::Moe(moe)) => (e, moe.num_experts),
            _ => return Err(misplaced(role)),
        },
        _ => (0, 0),
    };
    let second = usize::from(is_second(role));
    let (first, shape) = match part {
        Part::Whole => (0, vec![rows, cols]),
        Part::Qkv => {
            let (before, all) = qkv_rows(spec, role)?;
            (before, if role.is_vector() { vec![all] } else { vec![all, cols] })
        }
        Part::GateUp => (second * rows, vec![times(2, rows)?, cols]),
        Part::Expert if role.is_vector() => (expert, vec![experts, cols]),
        Part::Expert => (times(expert, rows)?, vec![experts, rows, cols]),
        Part::ExpertGateUp => (times(2 * expert + second, rows)?, vec![experts, times(2, rows)?, cols]),
        Part::ExpertTurned => (0, vec![experts, cols, rows]),
        Part::ExpertGateUpTurned => (second, vec![experts, cols, times(2, rows)?]),
        Part::ExpertGateUpBias => (second, vec![experts, times(2, cols)?]),
        Part::ExpertMxfp4 => (0, vec![experts, rows, cols / MXFP4_LEN, MXFP4_LEN / 2]),
        Part::ExpertGateUpMxfp4 => (second, vec![experts, times(2, rows)?, cols / MXFP4_LEN, MXFP4_LEN / 2]),
    };
    Ok(Place { rows, cols, shape, first, expert })
}

/// Whether a role stands second where gate and up share a tensor.
fn is_second(role: Role) -> bool {
    let part = match role {
        Role::Layer(_, part) => part,
        _ => return false,
    };
    matches!(part, LayerRole::Up | LayerRole::Expert(_, ExpertRole::Up | ExpertRole::UpBias))
}

/// The rows before those of `role` where q, k and v share a tensor, and all rows of it.
fn qkv_rows(spec: &ModelSpec, role: Role) -> Result<(usize, usize)> {
    let Role::Layer(i, part) = role else { return Err(misplaced(role)) };
    let a = &spec.layers.get(i).ok_or_else(|| misplaced(role))?.attention;
    let rows = |heads: usize| heads.checked_mul(a.head_dim).filter(|&n| n <= usize::MAX / 4);
    let (Some(q), Some(kv)) = (rows(a.num_heads), rows(a.num_kv_heads)) else { return Err(misplaced(role)) };
    let before = match part {
        LayerRole::Q | LayerRole::QBias => 0,
        LayerRole::K | LayerRole::KBias => q,
        LayerRole::V | LayerRole::VBias => q + kv,
        _ => return Err(misplaced(role)),
    };
    Ok((before, q + 2 * kv))
}

/// A shape without leading ones, which files write or leave out.
fn squeezed(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|&&n| n == 1).count();
    &shape[ones..]
}

/// Checks the shape of the tensor `name` that holds `role`; `view` is `None` where it is read from
/// plain bytes.
pub(super) fn check(
    store: &dyn TensorStore,
    name: &str,
    view: Option<&TensorView<'_>>,
    part: Part,
    spec: &ModelSpec,
    role: Role,
) -> Result<()> {
    let place = place(store.label(), part, spec, role)?;
    let same = |found: &[usize], expected: &[usize], name: &str| {
        if squeezed(found) == squeezed(expected) {
            return Ok(());
        }
        let fault = format!("has shape {found:?}, expected {expected:?}");
        Err(Error::format(store.label(), format!("tensor `{name}`"), fault))
    };
    if !part.takes_bytes() {
        let view = view.ok_or_else(|| misplaced(role))?;
        if part.is_rearranged() {
            element_bytes(store, name, view.ty)?;
        }
        return same(&view.shape, &place.shape, name);
    }
    if place.cols % MXFP4_LEN != 0 {
        let fault = format!("has rows of {}, no multiple of {MXFP4_LEN}", place.cols);
        return Err(Error::format(store.label(), format!("tensor `{name}`"), fault));
    }
    same(&byte_tensor(store, name)?.0, &place.shape, name)?;
    let scales = scales_of(name);
    same(&byte_tensor(store, &scales)?.0, &place.shape[..3], &scales)
}

fn byte_tensor<'a>(store: &'a dyn TensorStore, name: &str) -> Result<(Vec<usize>, &'a [u8])> {
    let missing = || Error::format(store.label(), format!("tensor `{name}`"), "is missing");
    let view = store.bytes(name).ok_or_else(missing)?;
    Ok((view.shape, view.data))
}

/// The weight for `role` out of the tensor `name`, whose shape [`check`] has found right.
pub(super) fn cut<'a>(
    store: &'a dyn TensorStore,
    name: String,
    view: Option<TensorView<'a>>,
    part: Part,
    spec: &ModelSpec,
    role: Role,
) -> Result<Weight<'a>> {
    let place = place(store.label(), part, spec, role)?;
    let (rows, cols) = (place.rows, place.cols);
    let (ty, data) = match (part, view) {
        (Part::ExpertMxfp4 | Part::ExpertGateUpMxfp4, _) => {
            let step = if part == Part::ExpertMxfp4 { 1 } else { 2 };
            (QuantType::MXFP4, Cow::Owned(mxfp4(store, &name, &place, step)?))
        }
        (_, None) => return Err(misplaced(role)),
        (Part::ExpertTurned, Some(view)) => (view.ty, Cow::Owned(turned(store, &name, &view, &place, 1)?)),
        (Part::ExpertGateUpTurned, Some(view)) => {
            (view.ty, Cow::Owned(turned(store, &name, &view, &place, 2)?))
        }
        (Part::ExpertGateUpBias, Some(view)) => {
            (view.ty, Cow::Owned(every_second(store, &name, &view, &place)?))
        }
        (_, Some(view)) => {
            // a piece of a vector is counted in elements
            let (take, unit) = if part == Part::Qkv && role.is_vector() { (cols, 1) } else { (rows, cols) };
            let data = view.ty.row_bytes(unit).and_then(|bytes| {
                let start = place.first.checked_mul(bytes)?;
                view.data.get(start..start.checked_add(take.checked_mul(bytes)?)?)
            });
            let unequal = || {
                let fault = format!("rows of {unit} do not divide into blocks of {}", view.ty.name());
                Error::format(store.label(), format!("tensor `{name}`"), fault)
            };
            (view.ty, Cow::Borrowed(data.ok_or_else(unequal)?))
        }
    };
    Ok(Weight { name, ty, rows, cols, data })
}

/// An empty buffer for `len` bytes.
fn buffer(name: &str, len: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let full = |_| Error::OutOfMemory { what: format!("tensor `{name}`"), needed: len as u64, available: 0 };
    out.try_reserve_exact(len).map_err(full)?;
    Ok(out)
}

/// The bytes of one element; a block format cannot be turned.
fn element_bytes(store: &dyn TensorStore, name: &str, ty: QuantType) -> Result<usize> {
    if ty.is_plain() {
        return Ok(ty.block_bytes());
    }
    let what = format!("tensor `{name}` of type {}, whose numbers stand in another order,", ty.name());
    Err(Error::unsupported(store.label(), what))
}

fn truncated(store: &dyn TensorStore, name: &str) -> Error {
    Error::format(store.label(), format!("tensor `{name}`"), "has less data than its shape says")
}

/// Rows `first`, `first + step`, … out of an expert stored as `[cols, step * rows]`.
fn turned(
    store: &dyn TensorStore,
    name: &str,
    view: &TensorView<'_>,
    place: &Place,
    step: usize,
) -> Result<Vec<u8>> {
    let size = element_bytes(store, name, view.ty)?;
    let (rows, cols, stored_cols) = (place.rows, place.cols, step * place.rows);
    let stride = stored_cols * size;
    let len = cols * stride;
    let expert = view.data.get(place.expert * len..(place.expert + 1) * len);
    let expert = expert.ok_or_else(|| truncated(store, name))?;
    let mut out = buffer(name, rows * cols * size)?;
    for row in 0..rows {
        let at = (place.first + row * step) * size;
        expert.chunks_exact(stride).for_each(|stored| out.extend_from_slice(&stored[at..at + size]));
    }
    Ok(out)
}

/// Every second element of an expert's vector.
fn every_second(
    store: &dyn TensorStore,
    name: &str,
    view: &TensorView<'_>,
    place: &Place,
) -> Result<Vec<u8>> {
    let size = element_bytes(store, name, view.ty)?;
    let len = 2 * place.cols * size;
    let vector = view.data.get(place.expert * len..(place.expert + 1) * len);
    let vector = vector.ok_or_else(|| truncated(store, name))?;
    let mut out = buffer(name, place.cols * size)?;
    let elements = vector.chunks_exact(size).skip(place.first).step_by(2);
    elements.for_each(|element| out.extend_from_slice(element));
    Ok(out)
}

/// An expert's blocks as ggml lays them: the scale, then sixteen bytes whose low halves are the first
/// sixteen numbers; the checkpoint has the scales apart and neighbours in one byte.
fn mxfp4(store: &dyn TensorStore, name: &str, place: &Place, step: usize) -> Result<Vec<u8>> {
    const HALF: usize = MXFP4_LEN / 2;
    let (blocks, scales) = (byte_tensor(store, name)?.1, byte_tensor(store, &scales_of(name))?.1);
    let row_blocks = place.cols / MXFP4_LEN;
    let stored_rows = step * place.rows;
    let mut out = buffer(name, place.rows * row_blocks * QuantType::MXFP4.block_bytes())?;
    for row in 0..place.rows {
        let first = (place.expert * stored_rows + place.first + row * step) * row_blocks;
        let packed = blocks.get(first * HALF..(first + row_blocks) * HALF);
        let scales = scales.get(first..first + row_blocks);
        let (Some(packed), Some(scales)) = (packed, scales) else { return Err(truncated(store, name)) };
        for (block, scale) in packed.chunks_exact(HALF).zip(scales) {
            let number = |i: usize| (block[i / 2] >> (4 * (i % 2))) & 15;
            out.push(*scale);
            out.extend((0..HALF).map(|i| number(i) | (number(i + HALF) << 4)));
        }
    }
    Ok(out)
}

/// A norm's weight with one added, in single precision.
pub(super) fn plus_one<'a>(label: &str, weight: Weight<'_>) -> Result<Weight<'a>> {
    let pairs = || weight.data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let plus = |x: f32| (x + 1.0).to_le_bytes();
    let data: Vec<u8> = match weight.ty {
        QuantType::F32 => {
            let singles = weight.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            singles.flat_map(plus).collect()
        }
        QuantType::F16 => pairs().flat_map(|bits| plus(f16::from_bits(bits).to_f32())).collect(),
        QuantType::BF16 => pairs().flat_map(|bits| plus(bf16::from_bits(bits).to_f32())).collect(),
        ty => {
            return Err(Error::unsupported(label, format!("norm `{}` of type {}", weight.name, ty.name())));
        }
    };
    Ok(Weight {
        name: weight.name,
        ty: QuantType::F32,
        rows: weight.rows,
        cols: weight.cols,
        data: Cow::Owned(data),
    })
}
