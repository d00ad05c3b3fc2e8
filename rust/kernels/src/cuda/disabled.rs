//! The CUDA kernels in a build without the feature `flash-attn`: none.

/// As in a build with them: each module's name with its PTX.
pub const MODULES: &[(&str, &str)] = &[];
