//! Families: each a translation from its configuration into a spec, in a file of its own, and one row
//! of a table.
//!
//! A family states what it does differently from [`Dense`](dense::Dense), the decoder that most share.
//! Nothing downstream knows which family a spec came from. A new one is such a file, its `mod` line and
//! its row; SmolLM3's shows how little that takes.

mod dense;
mod moe;

mod gemma2;
mod gemma3;
mod gpt_oss;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen2_vl;
mod qwen3;
mod qwen3_moe;
mod qwen3_vl;
mod smollm3;

use alloyforge_types::{ModelSpec, Result};

use crate::config::Reader;
use crate::weights::names::Names;

/// What a family makes of a configuration.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The decoder.
    pub(crate) spec: ModelSpec,
    /// What the weights are called.
    pub(crate) names: Names,
}

/// One family.
#[derive(Debug)]
pub(crate) struct Family {
    /// transformers' `model_type`, and other names that mean the same.
    pub(crate) model_types: &'static [&'static str],
    /// transformers' class, for configurations that lack a `model_type`.
    pub(crate) class: &'static str,
    /// llama.cpp's architecture names.
    pub(crate) gguf: &'static [&'static str],
    /// The translation.
    pub(crate) build: fn(&Reader<'_>) -> Result<Draft>,
}

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family { model_types: &["gemma2"], class: "Gemma2ForCausalLM", gguf: &["gemma2"], build: gemma2::build },
    Family { model_types: &["gemma3_text", "gemma3"], class: "Gemma3ForCausalLM", gguf: &["gemma3"], build: gemma3::build },
    Family { model_types: &["gpt_oss"], class: "GptOssForCausalLM", gguf: &["gpt-oss"], build: gpt_oss::build },
    Family { model_types: &["llama"], class: "LlamaForCausalLM", gguf: &["llama"], build: llama::build },
    Family { model_types: &["mistral"], class: "MistralForCausalLM", gguf: &[], build: mistral::build },
    Family { model_types: &["mixtral"], class: "MixtralForCausalLM", gguf: &[], build: mixtral::build },
    Family { model_types: &["olmo2"], class: "Olmo2ForCausalLM", gguf: &["olmo2"], build: olmo2::build },
    Family { model_types: &["phi3"], class: "Phi3ForCausalLM", gguf: &["phi3"], build: phi3::build },
    Family { model_types: &["qwen2"], class: "Qwen2ForCausalLM", gguf: &["qwen2"], build: qwen2::build },
    Family { model_types: &["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"], class: "Qwen2VLForConditionalGeneration", gguf: &["qwen2vl"], build: qwen2_vl::build },
    Family { model_types: &["qwen3"], class: "Qwen3ForCausalLM", gguf: &["qwen3"], build: qwen3::build },
    Family { model_types: &["qwen3_vl", "qwen3_vl_text"], class: "Qwen3VLForConditionalGeneration", gguf: &["qwen3vl"], build: qwen3_vl::build },
    Family { model_types: &["qwen3_moe"], class: "Qwen3MoeForCausalLM", gguf: &["qwen3moe"], build: qwen3_moe::build },
    Family { model_types: &["smollm3"], class: "SmolLM3ForCausalLM", gguf: &["smollm3"], build: smollm3::build },
];

/// The family whose `model_type` is `name`.
pub(crate) fn by_model_type(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.model_types.contains(&name))
}

/// The family of transformers' class `name`.
pub(crate) fn by_class(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.class == name)
}

/// The family of llama.cpp's architecture `name`.
pub(crate) fn by_gguf(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.gguf.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::FAMILIES;

    #[test]
    fn every_name_means_one_family() {
        for names in [
            FAMILIES.iter().flat_map(|f| f.model_types).collect::<Vec<_>>(),
            FAMILIES.iter().map(|f| &f.class).collect(),
            FAMILIES.iter().flat_map(|f| f.gguf).collect(),
        ] {
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        }
    }
}
