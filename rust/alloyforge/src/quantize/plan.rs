//! Which tensors a file gets, and of which types.

use std::collections::BTreeSet;

use alloyforge_formats::gguf::{GgufFile, GgufWriter, TensorInfo};
use alloyforge_interfaces::TensorStore;
use alloyforge_kernels::quantize::row_fn;
use alloyforge_types::{
    Error, MatrixKind, MatrixPlace, MetaArray, MetaValue, Metadata, QuantMix, QuantType, Result,
};

use crate::source::Source;

/// A tensor to be written.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) from: QuantType,
    pub(super) to: QuantType,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// Whether its rows are no whole blocks of the type that the mix has for it.
    pub(super) is_fallback: bool,
}

impl Planned {
    fn of_file(info: TensorInfo<'_>) -> Self {
        let (name, shape) = (info.name.to_owned(), info.shape.to_vec());
        Self { name, from: info.ty, to: info.ty, shape, is_fallback: false }
    }

    /// Numbers in it. The shape has been checked against bytes that are there, so they can be counted.
    pub(super) fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors to be written, in their order, and where their data and the metadata come from.
pub(super) struct Plan<'a> {
    pub(super) tensors: Vec<Planned>,
    file: &'a GgufFile,
}

impl<'a> Plan<'a> {
    /// The plan for `source`.
    ///
    /// # Errors
    /// `InvalidRequest` where a type cannot be made; `Unsupported` for a folder, and where there is
    /// nothing to write.
    pub(super) fn new(source: &'a Source, mix: QuantMix) -> Result<Self> {
        let Source::Gguf(file) = source else {
            return Err(Error::unsupported(source.store().label(), "writing a folder to a GGUF file"));
        };
        let mut tensors: Vec<Planned> = file.tensor_infos().map(Planned::of_file).collect();
        if tensors.is_empty() {
            return Err(Error::unsupported(file.label(), "quantising a file without tensors"));
        }
        let model = Model::of(file.metadata(), &tensors);
        for tensor in &mut tensors {
            let cols = tensor.shape.last().copied().unwrap_or(1);
            if let Some(place) = model.place(&tensor.name, &tensor.shape) {
                tensor.to = mix.type_of(&place, cols);
                tensor.is_fallback = mix.type_of(&place, WIDE) != tensor.to;
            }
            if tensor.to != tensor.from && row_fn(tensor.to).is_none() {
                let fault = format!("{} can be read but not written", tensor.to.name());
                return Err(Error::invalid("type", fault));
            }
        }
        Ok(Self { tensors, file })
    }

    /// What is said about the model.
    pub(super) fn metadata(&self, writer: &mut GgufWriter) {
        writer.copy_metadata(self.file);
    }

    /// A tensor's data.
    ///
    /// # Errors
    /// `Internal` where the store has lost it.
    pub(super) fn data(&self, tensor: &Planned) -> Result<&'a [u8]> {
        let view = self.file.tensor(&tensor.name);
        let view = view.ok_or_else(|| Error::internal(format!("tensor `{}` is gone", tensor.name)))?;
        Ok(view.data)
    }
}

/// A width that is whole blocks of every type.
const WIDE: usize = 256;

/// What mixes ask of the model.
struct Model {
    has_own_head: bool,
    num_layers: usize,
    num_experts: usize,
    group: usize,
    /// The layers that have values: in a model of several kinds of layers not all.
    with_values: Vec<usize>,
}

impl Model {
    fn of(metadata: &Metadata, tensors: &[Planned]) -> Self {
        let arch = metadata.str("general.architecture").unwrap_or_default();
        let key = |name: &str| format!("{arch}.{name}");
        let number = |name: &str| metadata.u64(&key(name)).and_then(|n| usize::try_from(n).ok());
        let heads = |name: &str| match metadata.get(&key(name)) {
            Some(MetaValue::Array(MetaArray::U64(list))) => list.first().map(|&n| n as usize),
            Some(MetaValue::Array(MetaArray::I64(list))) => list.first().map(|&n| n.max(0) as usize),
            _ => number(name),
        };
        let names = || tensors.iter().map(|tensor| tensor.name.as_str());
        let layers: BTreeSet<usize> = names().filter_map(layer_of).collect();
        let with_values: BTreeSet<usize> =
            names().filter(|name| kind_of(name) == MatrixKind::V).filter_map(layer_of).collect();
        let (q, kv) = (heads("attention.head_count"), heads("attention.head_count_kv"));
        Self {
            has_own_head: names().any(|name| name == HEAD),
            num_layers: number("block_count").unwrap_or_else(|| layers.last().map_or(0, |last| last + 1)),
            num_experts: number("expert_count").unwrap_or(0),
            group: q.zip(kv).map_or(1, |(q, kv)| q / kv.max(1)),
            with_values: with_values.into_iter().collect(),
        }
    }

    /// Where the tensor called `name` stands, if it is a matrix that is turned.
    fn place(&self, name: &str, shape: &[usize]) -> Option<MatrixPlace> {
        let rows = shape.split_last().map_or(1, |(_, rest)| rest.iter().product());
        let is_kept = KEPT.iter().any(|part| name.contains(part));
        if rows < 2 || !name.ends_with("weight") || is_kept {
            return None;
        }
        let (mut layer, mut num_layers) = (layer_of(name).unwrap_or(0), self.num_layers);
        let kind = match kind_of(name) {
            MatrixKind::Embedding if !self.has_own_head => MatrixKind::Head,
            MatrixKind::V => {
                layer = self.with_values.binary_search(&layer).unwrap_or(layer);
                num_layers = self.with_values.len();
                MatrixKind::V
            }
            kind => kind,
        };
        let is_expert = name.contains("_exps.");
        Some(MatrixPlace {
            kind,
            layer,
            num_layers,
            num_experts: self.num_experts,
            is_expert,
            group: self.group,
        })
    }
}

const HEAD: &str = "output.weight";

/// Parts of the names of matrices that stay as they are: small ones, and those whose numbers choose or
/// are added rather than multiplied. llama.cpp's `tensor_allows_quantization`.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "position_embd",
    "token_types",
    "pos_embd",
    "rel_pos",
    "patch_embd",
    "patch_merger",
    "sam.neck.",
    "sam.net_",
    "ssm_conv1d",
    "shortconv.conv",
    "indexer.k_proj",
    "indexer.q_proj",
    "time_mix_first",
    "time_mix_w0",
    "time_mix_w1",
    "time_mix_w2",
    "time_mix_v0",
    "time_mix_v1",
    "time_mix_v2",
    "time_mix_a0",
    "time_mix_a1",
    "time_mix_a2",
    "time_mix_g1",
    "time_mix_g2",
    "time_mix_decay_w1",
    "time_mix_decay_w2",
    "time_mix_lerp_fused",
    "attn_rel_b",
    "rvq.codebook",
    "code_embd",
];

/// What the tensor called `name` is.
fn kind_of(name: &str) -> MatrixKind {
    const PARTS: [(&str, MatrixKind); 7] = [
        ("attn_qkv.weight", MatrixKind::V),
        ("attn_kv_b.weight", MatrixKind::V),
        ("attn_v.weight", MatrixKind::V),
        ("attn_k.weight", MatrixKind::K),
        ("attn_q.weight", MatrixKind::Q),
        ("attn_output.weight", MatrixKind::O),
        ("ffn_down", MatrixKind::Down),
    ];
    match name {
        HEAD => MatrixKind::Head,
        "token_embd.weight" | "per_layer_token_embd.weight" => MatrixKind::Embedding,
        _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(MatrixKind::Other, |&(_, kind)| kind),
    }
}

/// The layer that the tensor called `name` belongs to.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_turned() {
        let model =
            Model { has_own_head: false, num_layers: 4, num_experts: 0, group: 2, with_values: vec![1, 3] };
        let kind = |name: &str, shape: &[usize]| model.place(name, shape).map(|place| place.kind);
        assert_eq!(kind("token_embd.weight", &[10, 64]), Some(MatrixKind::Head));
        assert_eq!(kind("output_norm.weight", &[64]), None);
        assert_eq!(kind("blk.0.attn_q_norm.weight", &[2, 64]), None);
        assert_eq!(kind("blk.0.ffn_gate_inp.weight", &[8, 64]), None);
        assert_eq!(kind("blk.0.attn_q.bias", &[64]), None);
        assert_eq!(kind("blk.0.attn_q.weight", &[1, 64]), None);
        assert_eq!(kind("blk.0.ffn_down_exps.weight", &[8, 64, 64]), Some(MatrixKind::Down));
        let values = model.place("blk.3.attn_v.weight", &[64, 64]).unwrap();
        assert_eq!((values.layer, values.num_layers), (1, 2));
    }
}
