//! What a request says of how its tokens are drawn.

/// A text or token sequence across which DRY counts no repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryBreaker {
    /// A text, found wherever it falls among the tokens.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// Penalty on repeated sequences ("don't repeat yourself", p-e-w 2024).
#[derive(Debug, Clone, PartialEq)]
pub struct DryParams {
    /// The factor; 0 switches it off.
    pub multiplier: f32,
    /// The base of the exponential growth with the repeat's length.
    pub base: f32,
    /// Repeats up to this length, in tokens, go unpunished.
    pub allowed_length: usize,
    /// Sequences across which no repeat is counted.
    pub sequence_breakers: Vec<DryBreaker>,
}

/// Exclude top choices: removes the most probable tokens but the last above a threshold
/// (p-e-w 2024).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct XtcParams {
    /// The chance that it acts on a step; 0 switches it off.
    pub probability: f32,
    /// The probability from which a token counts as a top choice; above 0.5 it never acts.
    pub threshold: f32,
}

/// Mirostat (Basu et al., arXiv 2007.14966), version 2: truncation steered to a target surprise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// The target surprise, in bits.
    pub tau: f32,
    /// The learning rate.
    pub eta: f32,
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Critical,
}

/// How a request's tokens are drawn. Neutral values switch a stage off.
///
/// The stages act in this order: a constraint's mask, `logit_bias`, the penalties, DRY,
/// `temperature`, then the truncations `top_n_sigma`, `top_k`, `typical_p`, `top_p`, `min_p`, XTC, or
/// instead of the truncations mirostat, then the draw. `temperature = 0` takes the highest logit
/// after the penalties, the lowest id among equals. The repetition penalty sees prompt and answer,
/// as transformers has it; the frequency and presence penalties see the answer alone, as OpenAI has
/// them; DRY sees both.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// The divisor of the logits; 0 is greedy. Neutral: 1.
    pub temperature: f32,
    /// Keeps the `k` highest; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest tokens whose probabilities reach `p` (Holtzman et al., arXiv 1904.09751).
    /// Neutral: 1.
    pub top_p: f32,
    /// Keeps tokens of at least this share of the highest probability (arXiv 2407.01082).
    /// Neutral: 0.
    pub min_p: f32,
    /// Locally typical sampling (Meister et al., arXiv 2202.00666). Neutral: 1.
    pub typical_p: f32,
    /// Keeps logits within `n` standard deviations of the highest (arXiv 2411.07641). Neutral: 0.
    pub top_n_sigma: f32,
    /// Exclude top choices.
    pub xtc: XtcParams,
    /// Mirostat, in place of the truncations.
    pub mirostat: Option<Mirostat>,
    /// Divides positive and multiplies negative logits of tokens seen (arXiv 1909.05858).
    /// Neutral: 1.
    pub repetition_penalty: f32,
    /// Subtracted from a logit once for each time its token was seen. Neutral: 0.
    pub frequency_penalty: f32,
    /// Subtracted from a logit whose token was seen. Neutral: 0.
    pub presence_penalty: f32,
    /// Don't repeat yourself.
    pub dry: DryParams,
    /// Added to the logits of these tokens; negative infinity forbids one.
    pub logit_bias: Vec<(u32, f32)>,
    /// The seed of the request's random stream; drawn from the system where `None`.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    /// Everything neutral: a draw from the model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc: XtcParams { probability: 0.0, threshold: 0.1 },
            mirostat: None,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry: DryParams {
                multiplier: 0.0,
                base: 1.75,
                allowed_length: 2,
                sequence_breakers: ["\n", ":", "\"", "*"].map(|s| DryBreaker::Text(s.into())).to_vec(),
            },
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}
