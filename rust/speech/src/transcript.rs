//! What a transcription comes to.

/// A word with its times, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// Its text, with the space before it.
    pub text: String,
    /// When it begins.
    pub start: f64,
    /// When it ends.
    pub end: f64,
    /// The mean probability of its tokens.
    pub probability: f32,
}

/// A piece of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its number.
    pub index: usize,
    /// When it begins, in seconds.
    pub start: f64,
    /// When it ends, in seconds.
    pub end: f64,
    /// Its text.
    pub text: String,
    /// Its tokens, timestamps among them.
    pub tokens: Vec<u32>,
    /// The temperature that its window was decoded at.
    pub temperature: f32,
    /// Its window's mean log probability of a token.
    pub mean_logprob: f32,
    /// How many times smaller its window's text becomes when it is compressed.
    pub compression_ratio: f32,
    /// How probable it is that nobody speaks in its window.
    pub no_speech: f32,
    /// Its words, where asked for.
    pub words: Vec<Word>,
}

/// What a transcription tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The language, given or found, with its probability.
    Language(String, f32),
    /// The next segment.
    Segment(Segment),
    /// The share of the audio that is done.
    Progress(f32),
}

/// A whole transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The segments' texts, one after another.
    pub text: String,
    /// The language's code.
    pub language: String,
    /// How probable that language is; 1 where it was given.
    pub language_probability: f32,
    /// The segments.
    pub segments: Vec<Segment>,
    /// Seconds of audio.
    pub duration: f64,
}
