//! A model's weights by role, whatever its file calls and how it lays them.
//!
//! A naming scheme is a table from roles to names with a [`Part`](names::Part) that says which piece
//! of the tensor the role is. Pieces that are whole rows stay borrowed from the mapped file; only what
//! the file stores turned, interleaved or short of Gemma's one is copied, when it is asked for.

mod cut;
pub(crate) mod names;

use std::collections::HashSet;
use std::sync::Arc;

use alloyforge_interfaces::{TensorStore, WeightSource};
use alloyforge_types::{Error, LayerRole, ModelSpec, Result, Role, TensorView, Weight};

use names::{Entry, Names};

/// The weights of one model in one store.
pub(crate) struct NamedWeights {
    store: Arc<dyn TensorStore>,
    spec: ModelSpec,
    names: Names,
    tables: [&'static [Entry]; 2],
    prefix: &'static str,
}

/// A role's tensor in the file.
struct Found<'a> {
    name: String,
    entry: &'static Entry,
    view: Option<TensorView<'a>>,
}

impl NamedWeights {
    /// The weights of `spec` in `store`, named as a GGUF file or as a Hugging Face checkpoint names
    /// them.
    pub(crate) fn new(store: Arc<dyn TensorStore>, spec: ModelSpec, names: Names, is_gguf: bool) -> Self {
        let (tables, prefix) = match is_gguf {
            true => ([names.gguf, names::GGUF], ""),
            false => ([names.hf, names::HF], names::hf_prefix(&*store)),
        };
        Self { store, spec, names, tables, prefix }
    }

    /// Checks that every role has its weight, of the right shape, and that no layer has a tensor
    /// without a role. Gives the numbers in all weights.
    ///
    /// # Errors
    /// `Format` where a tensor is missing or its shape is wrong; `Unsupported` for one without a role.
    pub(crate) fn check(&self) -> Result<u64> {
        let mut used = HashSet::new();
        let mut parameters: u64 = 0;
        for role in self.spec.roles() {
            let found = self.locate(role)?;
            let (rows, cols) = cut::shape(self.store.label(), &self.spec, role)?;
            cut::check(&*self.store, &found.name, found.view.as_ref(), found.entry.part, &self.spec, role)?;
            parameters = parameters.saturating_add((rows as u64).saturating_mul(cols as u64));
            used.extend(found.entry.part.companions(&found.name));
            used.insert(found.name);
        }
        match self.store.names().into_iter().find(|name| !used.contains(*name) && self.is_in_a_layer(name)) {
            None => Ok(parameters),
            Some(name) => Err(self.stray(name)),
        }
    }

    /// Whether `name` is that of a tensor of one of the decoder's layers, apart from buffers that old
    /// checkpoints carry.
    fn is_in_a_layer(&self, name: &str) -> bool {
        !names::is_buffer(name) && names::layer_of(name, self.prefix, self.is_gguf()).is_some()
    }

    fn is_gguf(&self) -> bool {
        std::ptr::eq(self.tables[1], names::GGUF)
    }

    /// The error for a tensor of a layer that no role takes.
    fn stray(&self, name: &str) -> Error {
        let layers = self.spec.layers.len();
        match names::layer_of(name, self.prefix, self.is_gguf()) {
            Some(layer) if layer >= layers as u64 => Error::format(
                self.store.label(),
                format!("tensor `{name}`"),
                format!("belongs to layer {layer}, the configuration has {layers} layers"),
            ),
            _ => {
                let family = &self.spec.architecture;
                Error::unsupported(
                    self.store.label(),
                    format!("tensor `{name}` in a model of family `{family}`"),
                )
            }
        }
    }

    /// The tensor that holds `role`: the first of the names for it that the file has.
    fn locate(&self, role: Role) -> Result<Found<'_>> {
        let role = if role == Role::Head && self.spec.has_tied_head { Role::Embedding } else { role };
        let kind = names::kind(role);
        let own = self.tables[0].iter().any(|e| e.role == kind);
        let table = if own { self.tables[0] } else { self.tables[1] };
        let mut missing = None;
        for entry in table.iter().filter(|e| e.role == kind) {
            let name = entry.name_for(self.prefix, role);
            if let Some(view) = self.store.tensor(&name) {
                return Ok(Found { name, entry, view: Some(view) });
            }
            if self.store.bytes(&name).is_some() && entry.part.takes_bytes() {
                return Ok(Found { name, entry, view: None });
            }
            if let Some(ty) = self.store.foreign_type(&name) {
                let what = format!("tensor `{name}` of type {ty}");
                return Err(Error::unsupported(self.store.label(), what));
            }
            missing.get_or_insert(name);
        }
        let Some(name) = missing else {
            return Err(Error::internal(format!("no name is known for {role:?}")));
        };
        Err(Error::format(self.store.label(), format!("tensor `{name}`"), "is missing"))
    }
}

impl WeightSource for NamedWeights {
    fn weight(&self, role: Role) -> Result<Weight<'_>> {
        let found = self.locate(role)?;
        let label = self.store.label();
        let part = found.entry.part;
        cut::check(&*self.store, &found.name, found.view.as_ref(), part, &self.spec, role)?;
        let weight = cut::cut(&*self.store, found.name, found.view, part, &self.spec, role)?;
        if self.names.norm_plus_one && !self.is_gguf() && is_norm(role) {
            return cut::plus_one(label, weight);
        }
        Ok(weight)
    }

    fn release(&self, role: Role) {
        if let Ok(found) = self.locate(role) {
            self.store.release(&found.name);
        }
    }
}

/// Whether `role` is the weight of an RMS norm.
fn is_norm(role: Role) -> bool {
    use LayerRole::{AttnNorm, AttnPostNorm, KNorm, MlpNorm, MlpPostNorm, QNorm};
    match role {
        Role::FinalNorm => true,
        Role::Layer(_, of) => matches!(of, AttnNorm | AttnPostNorm | MlpNorm | MlpPostNorm | QNorm | KNorm),
        _ => false,
    }
}
