//! Keys that make no difference to what a model computes at inference.
//!
//! A key outside these lists that no family asked for is refused when its value switches something
//! on. The lists name what transformers' base configuration and the converters write, what belongs to
//! training, to generation, to the tokenizer, or to bookkeeping.

/// Whether `key` of `config.json` is harmless.
pub(super) fn in_config_json(key: &str) -> bool {
    EXACT.contains(&key)
        || PREFIXES.iter().any(|p| key.starts_with(p))
        || SUFFIXES.iter().any(|s| key.ends_with(s))
}

/// Whether `{architecture}.{name}` of GGUF metadata is harmless.
pub(super) fn in_gguf(name: &str) -> bool {
    GGUF.contains(&name)
}

const PREFIXES: &[&str] =
    &["_", "unsloth", "transformers", "torch", "initializer", "summary_", "router_aux_"];

const SUFFIXES: &[&str] = &["_token_id", "_token_ids", "dropout", "_pdrop", "_loss_coef", "_noise"];

const EXACT: &[&str] = &[
    // what the file is
    "architectures",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "finetuning_task",
    "is_llama_config",
    "license",
    "max_sequence_length",
    "model_max_length",
    "model_name",
    "model_type",
    "name_or_path",
    "problem_type",
    "tokenizer_class",
    // how transformers runs it
    "attn_implementation",
    "cache_implementation",
    "chunk_size_feed_forward",
    "gradient_checkpointing",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pretraining_tp",
    "return_dict",
    "return_dict_in_generate",
    "use_cache",
    "use_return_dict",
    // heads that are not loaded
    "classifier_activation",
    "classifier_bias",
    "id2label",
    "label2id",
    "num_labels",
    "task_specific_params",
    // generation
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

const GGUF: &[&str] = &["pooling_type", "rope.scaling.finetuned", "tensor_data_layout"];
