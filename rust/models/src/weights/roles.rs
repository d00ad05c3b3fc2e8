//! The roles that a spec has, and their shapes, as a file must have them.

use alloyforge_types::{Error, ModelSpec, Result, Role};

/// Every role of `spec`, the head even where it is the embedding matrix.
pub(crate) fn all(spec: &ModelSpec) -> impl Iterator<Item = Role> {
    spec.roles().chain(spec.has_tied_head.then_some(Role::Head))
}

/// The rows and columns of `role`; `label` names the file in errors.
///
/// # Errors
/// `Format` for a role that the spec does not have or whose width overflows.
pub(crate) fn shape(label: &str, spec: &ModelSpec, role: Role) -> Result<(usize, usize)> {
    let fault = || Error::format(label, format!("{role:?}"), "is no weight of the model, or too wide");
    spec.weight_shape(role).ok_or_else(fault)
}
