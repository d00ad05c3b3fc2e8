//! Counts that a caller can ask for at any time.

/// What an engine is doing and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Sequences that are being served.
    pub running: usize,
    /// Requests and choices that wait for a place or for blocks.
    pub waiting: usize,
    /// Blocks that live requests hold.
    pub kv_blocks_used: usize,
    /// All blocks.
    pub kv_blocks_total: usize,
    /// Tokens of prompts that were found in the prefix cache.
    pub prefix_hit_tokens: u64,
    /// How often a sequence lost its blocks to another and was computed again.
    pub preemptions: u64,
    /// Tokens of prompts that were served.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Tokens that were guessed and computed beside those before them.
    pub drafted_tokens: u64,
    /// Those of them that turned out right.
    pub accepted_tokens: u64,
    /// Steps computed.
    pub steps: u64,
    /// Seconds that the engine's thread was at work on steps.
    pub busy_seconds: f64,
    /// Those of them that the model took; the rest is scheduling, drawing and delivery.
    pub model_seconds: f64,
}
