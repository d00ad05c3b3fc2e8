//! The walk over long audio, window by window (OpenAI's `transcribe.py`).
//!
//! Audio is a list of clips: without voice activity and without batches there is one, all of it. A clip
//! is walked from its start, each window beginning where the one before was sure of its text. Several
//! clips are walked side by side, their windows one batch.

mod fallback;
mod word_times;

use std::ops::Range;

use alloyforge_types::{Error, Result};

use crate::clips::{cut_quietly, spoken};
use crate::decode::{Decoded, How, Task, TextDecoder};
use crate::encoder::AudioEncoder;
use crate::logits::{argmax, log_sum_exp};
use crate::mel::LogMel;
use crate::options::Options;
use crate::rules::Rules;
use crate::segments::cut;
use crate::transcript::{Event, Segment, Transcript};
use crate::vad::VoiceActivity;
use crate::{FRAMES_PER_SECOND, HOP, SAMPLE_RATE, Vocabulary};
use fallback::Window;
use word_times::after_words;

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
}
