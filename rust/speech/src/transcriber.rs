//! The walk over long audio, window by window (OpenAI's `transcribe.py`).
//!
//! Audio is a list of clips: without voice activity and without batches there is one, all of it. A clip
//! is walked from its start, each window beginning where the one before was sure of its text. Several
//! clips are walked side by side, their windows one batch.

use std::io::Write;
use std::ops::Range;

use alloyforge_types::{Error, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::align::starts;
use crate::decode::{Decoded, How, Task, TextDecoder};
use crate::encoder::AudioEncoder;
use crate::logits::{argmax, log_sum_exp};
use crate::mel::LogMel;
use crate::rules::Rules;
use crate::segments::{Pieces, cut};
use crate::vad::{VadOptions, VoiceActivity};
use crate::words::{Timed, join_marks, split};
use crate::{FRAMES_PER_SECOND, HOP, SAMPLE_RATE, Vocabulary};

/// What a transcriber is made of.
pub struct SpeechParts {
    /// The encoder.
    pub encoder: AudioEncoder,
    /// The decoder.
    pub decoder: TextDecoder,
    /// Its tokens.
    pub vocabulary: Vocabulary,
}

/// A speech model, ready to write.
pub struct Transcriber {
    encoder: AudioEncoder,
    decoder: TextDecoder,
    vocabulary: Vocabulary,
    mel: LogMel,
}

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

/// A clip on its way.
struct Lane {
    clip: Range<usize>,
    seek: usize,
    segments: Vec<Segment>,
    prompt: Vec<u32>,
}

/// What all windows share.
struct Plan<'a> {
    options: &'a Options,
    /// What begins a transcript.
    begin: Vec<u32>,
    rules: Rules,
    language: Option<&'static str>,
    max_tokens: usize,
}

/// A window, decoded.
struct Window {
    decoded: Decoded,
    temperature: f32,
    ratio: f32,
}

impl Transcriber {
    /// A transcriber of `parts`.
    pub fn new(parts: SpeechParts) -> Self {
        let mel = LogMel::new(parts.encoder.num_mels());
        Self { encoder: parts.encoder, decoder: parts.decoder, vocabulary: parts.vocabulary, mel }
    }

    /// The tokens.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The encoder.
    pub fn encoder(&self) -> &AudioEncoder {
        &self.encoder
    }

    /// The decoder.
    pub fn decoder(&self) -> &TextDecoder {
        &self.decoder
    }

    /// Frames of a window.
    fn window(&self) -> usize {
        2 * self.encoder.source_len()
    }

    /// Whether the model knows more than English.
    pub fn is_multilingual(&self) -> bool {
        self.vocabulary.is_multilingual(self.decoder.model().spec().vocab_size)
    }

    /// Checks samples: at 16 kHz, mono.
    fn check(samples: &[f32]) -> Result<()> {
        let fault = |fault: &str| Error::Media { item: "audio".into(), fault: fault.into() };
        if samples.is_empty() {
            return Err(fault("has no samples"));
        }
        if samples.iter().any(|x| !x.is_finite()) {
            return Err(fault("has samples that are no finite numbers"));
        }
        Ok(())
    }

    /// Fills slot 0 with one window of `samples`, silence behind them, as transformers' feature extractor
    /// prepares it.
    fn listen(&mut self, samples: &[f32]) -> Result<()> {
        Self::check(samples)?;
        let frames = self.window();
        let len = frames * HOP;
        let samples = &samples[..samples.len().min(len)];
        let (pool, isa) = (self.encoder.pool(), self.encoder.isa());
        let mel = self.mel.compute(pool, isa, samples, len, frames)?;
        let states = self.encoder.states(&mel)?;
        self.decoder.put(0, &states)
    }

    /// The logits behind every one of `tokens`, `[len, vocab]`, over the first window of `samples`.
    ///
    /// # Errors
    /// `Media` for samples that cannot be used; `ContextLength`, `InvalidRequest` for the tokens.
    pub fn logits(&mut self, samples: &[f32], tokens: &[u32]) -> Result<Vec<f32>> {
        self.listen(samples)?;
        let mut out = Vec::with_capacity(tokens.len() * self.decoder.model().spec().vocab_size);
        self.decoder.force(0, tokens, &[], |_, row| out.extend_from_slice(row))?;
        Ok(out)
    }

    /// Writes on behind `tokens`, over the first window of `samples`, with no rule but `how`.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn complete(&mut self, samples: &[f32], tokens: &[u32], how: &How) -> Result<Decoded> {
        let vocab = self.decoder.model().spec().vocab_size;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::invalid("prompt", format!("{id} is no token id, there are {vocab}")));
        }
        self.listen(samples)?;
        let task = Task { slot: 0, prompt: tokens.to_vec(), start: 0, rules: Rules::none() };
        let mut decoded = self.decoder.decode(&self.vocabulary, &[task], how)?;
        decoded.pop().ok_or_else(|| Error::internal("no text"))
    }

    /// The languages of one window's states in `slot`, with their probabilities, the most probable first.
    fn languages(&mut self, slot: usize) -> Result<Vec<(&'static str, u32, f32)>> {
        let languages = self.vocabulary.languages.clone();
        let mut found = Vec::new();
        let start = [self.vocabulary.start];
        self.decoder.force(slot, &start, &[], |_, row| {
            let of: Vec<f32> = languages.iter().map(|(_, id)| row[*id as usize]).collect();
            let total = log_sum_exp(&of);
            found =
                languages.iter().zip(&of).map(|((code, id), l)| (*code, *id, (l - total).exp())).collect();
            let best = argmax(&of);
            found.swap(0, best);
        })?;
        Ok(found)
    }

    /// Transcribes `samples`, mono at 16 kHz. `tell` hears what is known as soon as it is; where it gives
    /// `false`, the transcript ends there.
    ///
    /// # Errors
    /// `Media` for samples that cannot be used; `InvalidRequest` for an option that is out of range or
    /// that the model cannot do; `Device`.
    pub fn transcribe(
        &mut self,
        samples: &[f32],
        options: &Options,
        vad: Option<&VoiceActivity>,
        mut tell: impl FnMut(Event) -> bool,
    ) -> Result<Transcript> {
        Self::check(samples)?;
        self.check_options(options)?;
        let frames = samples.len() / HOP;
        let duration = samples.len() as f64 / SAMPLE_RATE as f64;
        let (pool, isa) = (self.encoder.pool(), self.encoder.isa());
        // silence as long as a window behind the end, as OpenAI has it
        let padded = samples.len() + self.window() * HOP;
        let mel = self.mel.compute(pool, isa, samples, padded, frames.max(1))?;
        let clips = match (vad, &options.vad) {
            (Some(vad), Some(how)) => spoken(vad.speech(samples, how)?, self.window(), frames),
            _ => std::iter::once(0..frames).collect(),
        };
        let batch = options.batch_size.min(self.decoder.limits().num_slots);
        let clips = if batch > 1 {
            clips.into_iter().flat_map(|c| cut_quietly(samples, c, self.window())).collect()
        } else {
            clips
        };
        let first = clips.first().map_or(0, |clip| clip.start);
        let (plan, probability) = self.plan(options, &mel, first)?;
        let language = plan.language.unwrap_or("en").to_owned();
        let mut out = Transcript {
            text: String::new(),
            language: language.clone(),
            language_probability: probability,
            segments: Vec::new(),
            duration,
        };
        if !tell(Event::Language(language, probability)) {
            return Ok(out);
        }
        let opening = match &options.initial_prompt {
            Some(text) => self.vocabulary.tokenizer.encode(&format!(" {}", text.trim()), false)?,
            None => Vec::new(),
        };
        let mut lanes: Vec<Lane> = clips
            .into_iter()
            .map(|clip| Lane { seek: clip.start, clip, segments: Vec::new(), prompt: opening.clone() })
            .collect();
        let total: usize = lanes.iter().map(|lane| lane.clip.len()).sum();
        let (mut told, mut round) = (0, 0u64);
        loop {
            let active: Vec<usize> = (told..lanes.len())
                .filter(|&i| lanes[i].seek < lanes[i].clip.end)
                .take(batch.max(1))
                .collect();
            if !active.is_empty() {
                self.round(&plan, &mel, &mut lanes, &active, round)?;
                round += 1;
            }
            // what is whole, in order
            while told < lanes.len() {
                for mut segment in std::mem::take(&mut lanes[told].segments) {
                    segment.index = out.segments.len();
                    out.text.push_str(&segment.text);
                    out.segments.push(segment.clone());
                    if !tell(Event::Segment(segment)) {
                        return Ok(out);
                    }
                }
                if lanes[told].seek < lanes[told].clip.end {
                    break;
                }
                if batch <= 1 && told + 1 < lanes.len() {
                    lanes[told + 1].prompt = std::mem::take(&mut lanes[told].prompt);
                }
                told += 1;
            }
            let done: usize = lanes.iter().map(|l| l.seek.min(l.clip.end) - l.clip.start).sum();
            if !tell(Event::Progress(if total == 0 { 1.0 } else { done as f32 / total as f32 })) {
                return Ok(out);
            }
            if told == lanes.len() {
                return Ok(out);
            }
        }
    }

    fn check_options(&self, options: &Options) -> Result<()> {
        let invalid = |name: &str, fault: String| Err(Error::invalid(name, fault));
        if options.temperatures.is_empty() {
            return invalid("temperature", "names none".into());
        }
        if let Some(t) = options.temperatures.iter().find(|t| !(0.0..=2.0).contains(*t)) {
            return invalid("temperature", format!("is {t}, expected 0 to 2"));
        }
        let most = self.decoder.limits().max_hypotheses;
        for (name, value) in [("beam_size", options.beam_size), ("best_of", options.best_of)] {
            if !(1..=most).contains(&value) {
                return invalid(name, format!("is {value}, expected 1 to {most}"));
            }
        }
        if !(options.patience > 0.0 && options.patience <= 100.0) {
            return invalid("patience", format!("is {}, expected above 0 and up to 100", options.patience));
        }
        if options.batch_size == 0 {
            return invalid("batch_size", "is 0, expected at least 1".into());
        }
        if options.max_tokens == Some(0) {
            return invalid("max_tokens", "is 0, expected at least 1".into());
        }
        if options.translate && !self.is_multilingual() {
            return invalid(
                "task",
                "`translate` takes a multilingual model, and this one knows English only".into(),
            );
        }
        if options.max_initial_timestamp.is_some_and(|t| !(0.0..=30.0).contains(&t)) {
            return invalid("max_initial_timestamp", "expected 0 to 30 seconds".into());
        }
        Ok(())
    }

    /// What begins every transcript; the language is found from the window at `first`.
    fn plan<'a>(&mut self, options: &'a Options, mel: &[f32], first: usize) -> Result<(Plan<'a>, f32)> {
        let mut begin = vec![self.vocabulary.start];
        let (mut language, mut probability) = (Some("en"), 1.0);
        if self.is_multilingual() {
            let (code, id) = match &options.language {
                Some(name) => self.vocabulary.language(name).ok_or_else(|| {
                    Error::invalid("language", format!("`{name}` is none that the model knows"))
                })?,
                None => {
                    let states = self.states(mel, first, usize::MAX)?;
                    self.decoder.put(0, &states)?;
                    let found = self.languages(0)?;
                    let best = found.first().ok_or_else(|| Error::internal("no language"))?;
                    probability = best.2;
                    (best.0, best.1)
                }
            };
            language = Some(code);
            let task = if options.translate { self.vocabulary.translate } else { self.vocabulary.transcribe };
            begin.push(id);
            begin.extend(task);
        } else if let Some(name) = &options.language
            && !matches!(name.to_lowercase().as_str(), "en" | "english")
        {
            return Err(Error::invalid("language", format!("is `{name}`, and the model knows English only")));
        }
        let v = &self.vocabulary;
        let timestamps = v.first_timestamp.is_some();
        if !timestamps {
            begin.extend(v.no_timestamps);
        }
        let mut suppressed = options.suppress_tokens.clone().unwrap_or_else(|| v.suppressed.clone());
        suppressed.extend(
            [Some(v.start), v.previous, v.no_speech, v.transcribe, v.translate].into_iter().flatten(),
        );
        let mut suppressed_first = v.suppressed_first.clone();
        if suppressed_first.is_empty() {
            suppressed_first = v.tokenizer.encode(" ", false)?;
            suppressed_first.push(v.end);
        }
        let rules = Rules {
            suppressed,
            suppressed_first: if options.suppress_blank { suppressed_first } else { Vec::new() },
            timestamps,
            max_initial_timestamp: options.max_initial_timestamp.map(|t| (t / 0.02).round() as usize),
        };
        let half = self.decoder.limits().target_len / 2;
        let max_tokens = options.max_tokens.unwrap_or(half).min(half);
        Ok((Plan { options, begin, rules, language, max_tokens }, probability))
    }

    /// The states of the window at `seek`, up to the frame `end`, nothing behind it.
    fn states(&mut self, mel: &[f32], seek: usize, end: usize) -> Result<Vec<f32>> {
        let (mels, frames) = (self.encoder.num_mels(), self.window());
        let end = end.min(mel.len() / mels).min(seek + frames);
        let mut window = vec![0.0; frames * mels];
        if end > seek {
            window[..(end - seek) * mels].copy_from_slice(&mel[seek * mels..end * mels]);
        }
        self.encoder.states(&window)
    }

    /// One window of each active lane.
    fn round(
        &mut self,
        plan: &Plan<'_>,
        mel: &[f32],
        lanes: &mut [Lane],
        active: &[usize],
        round: u64,
    ) -> Result<()> {
        let frames = self.window();
        let mut tasks = Vec::with_capacity(active.len());
        for (slot, &lane) in active.iter().enumerate() {
            let lane = &lanes[lane];
            let states = self.states(mel, lane.seek, lane.clip.end)?;
            self.decoder.put(slot, &states)?;
            let mut prompt = Vec::new();
            if let Some(previous) = self.vocabulary.previous
                && !lane.prompt.is_empty()
            {
                let most = (self.decoder.limits().target_len / 2).saturating_sub(1);
                prompt.push(previous);
                prompt.extend_from_slice(&lane.prompt[lane.prompt.len().saturating_sub(most)..]);
            }
            let start = prompt.len();
            prompt.extend_from_slice(&plan.begin);
            tasks.push(Task { slot, prompt, start, rules: plan.rules.clone() });
        }
        let windows = self.with_fallback(plan, &tasks, round)?;
        for ((slot, &lane), window) in active.iter().enumerate().zip(windows) {
            let size = frames.min(lanes[lane].clip.end - lanes[lane].seek);
            self.take(plan, &mut lanes[lane], window, slot, size)?;
        }
        Ok(())
    }

    /// Decodes at each temperature what the one before did not get right.
    fn with_fallback(&mut self, plan: &Plan<'_>, tasks: &[Task], round: u64) -> Result<Vec<Window>> {
        let options = plan.options;
        let mut out: Vec<Option<Window>> = tasks.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..tasks.len()).collect();
        for (i, &temperature) in options.temperatures.iter().enumerate() {
            let how = How {
                temperature,
                beam_size: options.beam_size,
                patience: options.patience,
                best_of: options.best_of,
                max_tokens: plan.max_tokens,
                ignore_end: false,
                seed: options.seed.wrapping_add((round << 36).wrapping_add((i as u64) << 32)),
            };
            let asked: Vec<Task> = left.iter().map(|&t| tasks[t].clone()).collect();
            let decoded = self.decoder.decode(&self.vocabulary, &asked, &how)?;
            let mut again = Vec::new();
            for (&task, decoded) in left.iter().zip(decoded) {
                let text = self.vocabulary.text(&decoded.tokens);
                let ratio = compression_ratio(text.trim());
                let is_repetitive = options.compression_ratio_threshold.is_some_and(|most| ratio > most);
                let is_improbable =
                    options.logprob_threshold.is_some_and(|least| decoded.mean_logprob < least);
                let is_silent =
                    options.no_speech_threshold.is_some_and(|most| decoded.no_speech > most) && is_improbable;
                if (is_repetitive || is_improbable) && !is_silent {
                    again.push(task);
                }
                out[task] = Some(Window { decoded, temperature, ratio });
            }
            left = again;
            if left.is_empty() {
                break;
            }
        }
        out.into_iter().map(|w| w.ok_or_else(|| Error::internal("a window without text"))).collect()
    }

    /// Adds a window's segments to its lane, and moves it on.
    fn take(
        &mut self,
        plan: &Plan<'_>,
        lane: &mut Lane,
        window: Window,
        slot: usize,
        size: usize,
    ) -> Result<()> {
        let options = plan.options;
        let Window { decoded, temperature, ratio } = &window;
        let is_silent = options.no_speech_threshold.is_some_and(|most| decoded.no_speech > most)
            && options.logprob_threshold.is_none_or(|least| decoded.mean_logprob <= least);
        if is_silent {
            lane.seek += size;
            return Ok(());
        }
        let offset = lane.seek as f64 / FRAMES_PER_SECOND as f64;
        let pieces = cut(&self.vocabulary, &decoded.tokens, size);
        let mut segments: Vec<Segment> = pieces
            .pieces
            .iter()
            .map(|piece| Segment {
                index: 0,
                start: offset + piece.start,
                end: offset + piece.end,
                text: self.vocabulary.text(&piece.tokens),
                tokens: piece.tokens.clone(),
                temperature: *temperature,
                mean_logprob: decoded.mean_logprob,
                compression_ratio: *ratio,
                no_speech: decoded.no_speech,
                words: Vec::new(),
            })
            .filter(|segment| segment.start < segment.end && !segment.text.trim().is_empty())
            .collect();
        let mut frames = pieces.frames;
        if options.words {
            self.words(plan, &mut segments, slot, offset, size)?;
            frames = after_words(&pieces, &segments, offset, frames);
        }
        for segment in &segments {
            lane.prompt.extend_from_slice(&segment.tokens);
        }
        if !options.condition_on_previous_text || *temperature > 0.5 {
            lane.prompt.clear();
        }
        lane.segments.extend(segments);
        lane.seek += frames.max(1);
        Ok(())
    }

    /// Finds when each word of the segments is said (OpenAI's `timing.py`).
    fn words(
        &mut self,
        plan: &Plan<'_>,
        segments: &mut [Segment],
        slot: usize,
        offset: f64,
        size: usize,
    ) -> Result<()> {
        let v = &self.vocabulary;
        let text: Vec<u32> = segments
            .iter()
            .flat_map(|s| s.tokens.iter().copied())
            .filter(|&id| !v.is_timestamp(id) && id != v.end)
            .collect();
        if text.is_empty() {
            return Ok(());
        }
        let mut tokens = plan.begin.clone();
        tokens.extend(v.no_timestamps);
        let before = tokens.len();
        tokens.extend_from_slice(&text);
        tokens.push(v.end);
        tokens.truncate(self.decoder.limits().target_len);
        let heads = v.alignment_heads.clone();
        let mut probabilities = vec![0.0; text.len()];
        let watched = self.decoder.force(slot, &tokens, &heads, |row, logits| {
            // the row before a token says how probable it is
            if let Some(i) = (row + 1).checked_sub(before).filter(|&i| i < text.len()) {
                probabilities[i] = (logits[text[i] as usize] - log_sum_exp(logits)).exp();
            }
        })?;
        let source = self.decoder.limits().source_len;
        let shape = (heads.len(), tokens.len(), source);
        let last = tokens.len() - 1;
        // from the token before the text on, each row foretells the next token
        let found = starts(&watched, shape, (before - 1, last), size.div_ceil(2));
        let time = |token: usize| found[token.min(found.len() - 1)] as f64 * 0.02;
        let mut words = Vec::new();
        let mut at = 0;
        for word in split(&self.vocabulary, &text, plan.language) {
            let len = word.tokens.len();
            let mean = probabilities[at..at + len].iter().sum::<f32>() / len as f32;
            let (start, end) = (time(at), time(at + len));
            words.push(Timed { text: word.text, tokens: word.tokens, start, end, probability: mean });
            at += len;
        }
        bound(&mut words);
        join_marks(&mut words);
        let mut words = words.into_iter();
        for segment in segments {
            let mut left = segment
                .tokens
                .iter()
                .filter(|&&id| !self.vocabulary.is_timestamp(id) && id != self.vocabulary.end)
                .count();
            while left > 0 {
                let Some(word) = words.next() else { break };
                left = left.saturating_sub(word.tokens.len());
                segment.words.push(Word {
                    text: word.text,
                    start: offset + word.start,
                    end: offset + word.end,
                    probability: word.probability,
                });
            }
            if let (Some(first), Some(last)) = (segment.words.first(), segment.words.last()) {
                let (first, last) = (first.start, last.end);
                // the decoder's own times where the words' are not sound
                if last > first {
                    (segment.start, segment.end) = (first, last);
                }
            }
        }
        Ok(())
    }
}

/// Where the next window begins once words are known: behind the last one, where text was cut off.
fn after_words(pieces: &Pieces, segments: &[Segment], offset: f64, frames: usize) -> usize {
    let last = segments.iter().rev().find_map(|s| s.words.last()).map(|word| word.end);
    match last {
        Some(end) if !pieces.is_closed && end > offset => {
            (((end - offset) * FRAMES_PER_SECOND as f64).round() as usize).clamp(1, frames.max(1))
        }
        _ => frames,
    }
}

/// Shortens words beside the ends of sentences that are far longer than the median word.
fn bound(words: &mut [Timed]) {
    const MARKS: &str = ".。!！?？";
    let mut lengths: Vec<f64> = words.iter().map(|w| w.end - w.start).filter(|d| *d > 0.0).collect();
    if lengths.is_empty() {
        return;
    }
    lengths.sort_by(f64::total_cmp);
    let most = 2.0 * lengths[lengths.len() / 2].min(0.7);
    for i in 1..words.len() {
        if words[i].end - words[i].start > most {
            if MARKS.contains(words[i].text.as_str()) {
                words[i].end = words[i].start + most;
            } else if MARKS.contains(words[i - 1].text.as_str()) {
                words[i].start = words[i].end - most;
            }
        }
    }
}

/// How many times smaller `text` becomes when it is compressed.
fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    packed.map_or(1.0, |packed| text.len() as f32 / packed.len().max(1) as f32)
}

/// Stretches of speech as clips of frames: neighbours joined up to a window.
fn spoken(stretches: Vec<Range<usize>>, window: usize, frames: usize) -> Vec<Range<usize>> {
    let mut clips: Vec<Range<usize>> = Vec::new();
    for stretch in stretches {
        let clip = stretch.start / HOP..(stretch.end.div_ceil(HOP)).min(frames);
        match clips.last_mut() {
            Some(last) if clip.end - last.start <= window => last.end = clip.end,
            _ if clip.is_empty() => {}
            _ => clips.push(clip),
        }
    }
    clips
}

/// Cuts a clip that is longer than a window where it is quietest, in the last third of each window.
fn cut_quietly(samples: &[f32], clip: Range<usize>, window: usize) -> Vec<Range<usize>> {
    /// Frames over which loudness is averaged: 0.2 s.
    const SPAN: usize = 20;
    let loudness = |frame: usize| {
        let part = &samples[(frame * HOP).min(samples.len())..((frame + SPAN) * HOP).min(samples.len())];
        part.iter().map(|x| x * x).sum::<f32>()
    };
    let mut out = Vec::new();
    let mut start = clip.start;
    while clip.end - start > window {
        let candidates = (start + window / 3 * 2..(start + window).saturating_sub(SPAN)).step_by(SPAN / 4);
        let quietest = candidates.map(|frame| (loudness(frame), frame)).min_by(|a, b| a.0.total_cmp(&b.0));
        let end = quietest.map_or(start + window, |(_, frame)| frame + SPAN / 2);
        out.push(start..end);
        start = end;
    }
    out.push(start..clip.end);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_compressed() {
        let varied = "the quick brown fox jumps over the lazy dog";
        assert!(compression_ratio(varied) < 1.2);
        assert!(compression_ratio(&"no no no ".repeat(30)) > 2.4);
        assert!(compression_ratio("") < 1.0);
    }

    #[test]
    fn long_clips_are_cut_where_it_is_quiet() {
        let mut samples = vec![0.5f32; 70 * SAMPLE_RATE];
        samples[25 * SAMPLE_RATE..26 * SAMPLE_RATE].fill(0.0);
        let clips = cut_quietly(&samples, 0..7000, 3000);
        assert_eq!(clips[0].start, 0);
        assert!((2490..2610).contains(&clips[0].end), "{clips:?}");
        assert_eq!(clips.last().map(|c| c.end), Some(7000));
        assert!(clips.windows(2).all(|c| c[0].end == c[1].start));
        assert!(clips.iter().all(|c| c.len() <= 3000));
    }

    #[test]
    fn stretches_are_joined_up_to_a_window() {
        let second = SAMPLE_RATE;
        let stretches = vec![second..5 * second, 8 * second..20 * second, 40 * second..50 * second];
        assert_eq!(spoken(stretches, 3000, 5000), [100..2000, 4000..5000]);
    }
}
