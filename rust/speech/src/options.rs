//! How audio is transcribed.

use crate::vad::VadOptions;

/// How audio is transcribed. The defaults are OpenAI's.
#[derive(Debug, Clone)]
pub struct Options {
    /// The language's code or English name; `None`: found from the first window.
    pub language: Option<String>,
    /// Whether the text is English whatever is spoken.
    pub translate: bool,
    /// Tried in this order until the text is neither repetitive nor improbable.
    pub temperatures: Vec<f32>,
    /// Hypotheses kept side by side at temperature 0.
    pub beam_size: usize,
    /// Texts drawn above temperature 0.
    pub best_of: usize,
    /// Times the beams: texts finished before the best is chosen.
    pub patience: f32,
    /// Text that came before the audio.
    pub initial_prompt: Option<String>,
    /// Whether each window is told the text before it.
    pub condition_on_previous_text: bool,
    /// A text that is compressed more is repetitive.
    pub compression_ratio_threshold: Option<f32>,
    /// A text whose mean log probability is lower is improbable.
    pub logprob_threshold: Option<f32>,
    /// A window in which silence is more probable, and the text improbable, is passed over.
    pub no_speech_threshold: Option<f32>,
    /// Tokens never written; `None`: the model's own list.
    pub suppress_tokens: Option<Vec<u32>>,
    /// Whether a text may not begin with a space or its end.
    pub suppress_blank: bool,
    /// The latest first timestamp, in seconds.
    pub max_initial_timestamp: Option<f64>,
    /// Whether each word gets its times.
    pub words: bool,
    /// Windows decoded together.
    pub batch_size: usize,
    /// Most tokens of a window's text; `None`: half the decoder's length.
    pub max_tokens: Option<usize>,
    /// How speech is cut out; `None`: everything is heard.
    pub vad: Option<VadOptions>,
    /// Where draws come from.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            language: None,
            translate: false,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            beam_size: 1,
            best_of: 5,
            patience: 1.0,
            initial_prompt: None,
            condition_on_previous_text: true,
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            suppress_tokens: None,
            suppress_blank: true,
            max_initial_timestamp: Some(1.0),
            words: false,
            batch_size: 1,
            max_tokens: None,
            vad: None,
            seed: 0,
        }
    }
}
