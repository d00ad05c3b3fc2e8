//! Speech models: what transcribes, and a transcription on its way.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use alloyforge::{BackendChoice, OpenOptions, SpeechInfo, open_speech, open_vad};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::topology;
use alloyforge_speech::decode::How;
use alloyforge_speech::mel::LogMel;
use alloyforge_speech::vad::VadOptions;
use alloyforge_speech::{Event, HOP, Options, Segment, Transcriber, Transcript, flac};
use alloyforge_types::{DType, Error, KvType, QuantMix, Result};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Raise, caught, core};
use crate::results::class;
use crate::session::named;
use crate::wait::{until, watched};

/// What a transcription thread sends.
enum Message {
    Event(Event),
    Done(Result<Transcript>),
}

/// Whether the model at `path` is one that transcribes.
#[pyfunction]
pub(crate) fn is_speech(path: PathBuf) -> bool {
    alloyforge::is_speech(&path)
}

/// The log-mel spectrum of mono samples at 16 kHz, of shape `(num_mels, frames)`.
#[pyfunction]
#[pyo3(signature = (samples, *, num_mels=80, padded_len=None, threads=1))]
pub(crate) fn log_mel<'py>(
    py: Python<'py>,
    samples: PyReadonlyArray1<'py, f32>,
    num_mels: usize,
    padded_len: Option<usize>,
    threads: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let samples = samples.as_slice()?.to_vec();
    let padded = padded_len.unwrap_or(samples.len());
    if !(1..=512).contains(&num_mels) || padded > (1 << 31) {
        return Err(Error::invalid("num_mels", "expected 1 to 512, of at most 2^31 samples")).raise();
    }
    let frames = padded / HOP;
    let values = core(py, || {
        let pool = Pool::shared(threads)?;
        let values = LogMel::new(num_mels).compute(&pool, Isa::detect(), &samples, padded, frames)?;
        let mut turned = vec![0.0; values.len()];
        for (t, frame) in values.chunks_exact(num_mels).enumerate() {
            for (m, value) in frame.iter().enumerate() {
                turned[m * frames + t] = *value;
            }
        }
        Ok(turned)
    })?;
    PyArray1::from_vec(py, values).reshape([num_mels, frames])
}

/// Silero's network for voice activity.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct VoiceActivity {
    network: Arc<alloyforge_speech::vad::VoiceActivity>,
}

#[pymethods]
impl VoiceActivity {
    #[new]
    #[pyo3(signature = (path, *, threads=None))]
    fn new(py: Python<'_>, path: PathBuf, threads: Option<usize>) -> PyResult<Self> {
        let threads = threads.unwrap_or_else(topology::physical_cores);
        Ok(Self { network: Arc::new(core(py, || open_vad(&path, threads))?) })
    }

    /// How probable speech is in each 512 samples.
    fn probabilities<'py>(
        &self,
        py: Python<'py>,
        samples: PyReadonlyArray1<'py, f32>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let samples = samples.as_slice()?.to_vec();
        Ok(PyArray1::from_vec(py, core(py, || self.network.probabilities(&samples))?))
    }

    /// Stretches of speech, in samples.
    #[pyo3(signature = (samples, *, threshold=0.5, min_silence=2.0, min_speech=0.0, pad=0.4))]
    fn speech(
        &self,
        py: Python<'_>,
        samples: PyReadonlyArray1<'_, f32>,
        threshold: f32,
        min_silence: f64,
        min_speech: f64,
        pad: f64,
    ) -> PyResult<Vec<(usize, usize)>> {
        let samples = samples.as_slice()?.to_vec();
        let how = VadOptions { threshold, min_silence, min_speech, pad };
        let found = core(py, || self.network.speech(&samples, &how))?;
        Ok(found.into_iter().map(|range| (range.start, range.end)).collect())
    }
}

/// A loaded speech model.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Speech {
    transcriber: Arc<Mutex<Option<Transcriber>>>,
    info: SpeechInfo,
}

/// Works with the transcriber, one call at a time.
fn with<T>(
    transcriber: &Mutex<Option<Transcriber>>,
    work: impl FnOnce(&mut Transcriber) -> Result<T>,
) -> Result<T> {
    // each call begins anew, so what a panic left behind does no harm
    let mut held = transcriber.lock().unwrap_or_else(PoisonError::into_inner);
    work(held.as_mut().ok_or(Error::Closed)?)
}

#[pymethods]
impl Speech {
    #[new]
    #[pyo3(signature = (
        path, *, device="auto", backend="auto", dtype="auto", quantize=None, kv_dtype="auto",
        kv_memory=None, threads=None, max_batch=None, progress=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are the public interface's, by keyword only")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        device: &str,
        backend: &str,
        dtype: &str,
        quantize: Option<&str>,
        kv_dtype: &str,
        kv_memory: Option<u64>,
        threads: Option<usize>,
        max_batch: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mixes: Vec<_> = QuantMix::names().collect();
        let options = OpenOptions {
            device: device.to_owned(),
            backend: BackendChoice::from_name(backend).raise()?,
            dtype: named("dtype", Some(dtype), DType::from_name, &["f32", "f16", "bf16"])?,
            quantize: named("quantize", quantize, QuantMix::from_name, &mixes)?,
            kv_type: named("kv_dtype", Some(kv_dtype), KvType::from_name, &["f32", "f16", "bf16", "q8_0"])?,
            kv_memory,
            threads,
            max_batch,
            ..OpenOptions::default()
        };
        let speech = watched(py, progress, move |tell| {
            open_speech(&path, &OpenOptions { progress: Some(tell), ..options })
        })?;
        Ok(Self { transcriber: Arc::new(Mutex::new(Some(speech.transcriber))), info: speech.info })
    }

    /// Begins to transcribe mono samples at 16 kHz.
    #[pyo3(signature = (samples, options, *, vad=None))]
    fn transcribe(
        &self,
        samples: PyReadonlyArray1<'_, f32>,
        options: &Bound<'_, PyDict>,
        vad: Option<&Bound<'_, VoiceActivity>>,
    ) -> PyResult<Transcription> {
        let samples = samples.as_slice()?.to_vec();
        let options = read_options(options)?;
        let vad = vad.map(|vad| Arc::clone(&vad.get().network));
        let transcriber = Arc::clone(&self.transcriber);
        let (sender, receiver) = channel();
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_cancelled);
        thread::Builder::new().name("alloyforge-speech".into()).spawn(move || {
            let events = sender.clone();
            let done = caught(|| {
                with(&transcriber, |transcriber| {
                    transcriber.transcribe(&samples, &options, vad.as_deref(), |event| {
                        // a receiver that is gone wants no more
                        events.send(Message::Event(event)).is_ok() && !stop.load(Ordering::Relaxed)
                    })
                })
            });
            // nobody is there to take it after Ctrl-C
            let _ = sender.send(Message::Done(done));
        })?;
        Ok(Transcription { receiver: Mutex::new(Some(receiver)), is_cancelled })
    }

    /// Logits of shape `(n_tokens, vocab)` over the first window of the samples.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        samples: PyReadonlyArray1<'py, f32>,
        tokens: Vec<u32>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let samples = samples.as_slice()?.to_vec();
        let shape = [tokens.len(), self.info.vocab_size];
        let values = core(py, || with(&self.transcriber, |t| t.logits(&samples, &tokens)))?;
        PyArray1::from_vec(py, values).reshape(shape)
    }

    /// Writes on behind `tokens` over the first window of the samples: tokens, text, and whether the end
    /// was written.
    #[pyo3(signature = (samples, tokens, *, max_tokens=224, temperature=0.0, seed=0, ignore_eos=false))]
    #[allow(clippy::too_many_arguments, reason = "they are the public interface's, by keyword only")]
    fn complete(
        &self,
        py: Python<'_>,
        samples: PyReadonlyArray1<'_, f32>,
        tokens: Vec<u32>,
        max_tokens: usize,
        temperature: f32,
        seed: u64,
        ignore_eos: bool,
    ) -> PyResult<(Vec<u32>, String, bool)> {
        if !(0.0..=2.0).contains(&temperature) {
            return Err(Error::invalid("temperature", format!("is {temperature}, expected 0 to 2"))).raise();
        }
        let samples = samples.as_slice()?.to_vec();
        let how = How {
            temperature,
            beam_size: 1,
            patience: 1.0,
            best_of: 1,
            max_tokens,
            ignore_end: ignore_eos,
            seed,
        };
        core(py, || {
            with(&self.transcriber, |t| {
                let decoded = t.complete(&samples, &tokens, &how)?;
                let text = t.vocabulary().text(&decoded.tokens);
                Ok((decoded.tokens, text, decoded.is_finished))
            })
        })
    }

    /// The codes of the languages that the model knows.
    fn languages(&self, py: Python<'_>) -> PyResult<Vec<&'static str>> {
        core(py, || {
            with(&self.transcriber, |t| {
                let all = t.vocabulary().languages.iter().map(|(code, _)| *code);
                Ok(if t.is_multilingual() { all.collect() } else { vec!["en"] })
            })
        })
    }

    /// Text to token ids.
    #[pyo3(signature = (text, *, special=true))]
    fn tokenize(&self, py: Python<'_>, text: &str, special: bool) -> PyResult<Vec<u32>> {
        core(py, || with(&self.transcriber, |t| t.vocabulary().tokenizer.encode(text, special)))
    }

    /// Token ids to text.
    #[pyo3(signature = (tokens, *, skip_special=false))]
    fn detokenize(&self, py: Python<'_>, tokens: Vec<u32>, skip_special: bool) -> PyResult<String> {
        core(py, || {
            with(&self.transcriber, |t| {
                let tokenizer = &t.vocabulary().tokenizer;
                let mut bytes = Vec::new();
                for id in tokens {
                    let fault = || Error::invalid("tokens", format!("{id} is no token id"));
                    let piece = tokenizer.token_bytes(id).ok_or_else(fault)?;
                    if !(skip_special && tokenizer.is_special(id)) {
                        bytes.extend_from_slice(&piece);
                    }
                }
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            })
        })
    }

    /// What is loaded.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = &self.info;
        let [weights, kv, workspace] = info.memory;
        class(py, "SessionInfo")?.call1((
            &info.architecture,
            info.parameters,
            &info.file_type,
            info.vocab_size,
            info.context_len,
            &info.device,
            info.threads,
            py.None(),
            info.kv_type.name(),
            info.kv_bytes_per_token,
            class(py, "Memory")?.call1((weights, kv, workspace))?,
        ))
    }

    /// Frees the memory.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.transcriber.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A transcription on its way.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Transcription {
    receiver: Mutex<Option<Receiver<Message>>>,
    is_cancelled: Arc<AtomicBool>,
}

impl Drop for Transcription {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

#[pymethods]
impl Transcription {
    /// What is next: `(language, probability)`, a segment, the share that is done, and at last the whole
    /// transcript; `None` behind it. Waits for it.
    #[pyo3(name = "next")]
    fn next_result<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = until(py, |turn| {
            let held = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(receiver) = held.as_ref() else { return Some(None) };
            match receiver.recv_timeout(turn) {
                Ok(message) => Some(Some(message)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(None),
            }
        });
        let Some(message) = next.inspect_err(|_| self.cancel())? else { return Ok(None) };
        let made = match message {
            Message::Event(Event::Language(code, probability)) => {
                (code, probability).into_pyobject(py)?.into_any()
            }
            Message::Event(Event::Segment(segment)) => self::segment(py, &segment)?,
            Message::Event(Event::Progress(done)) => done.into_pyobject(py)?.into_any(),
            Message::Done(done) => {
                self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
                transcript(py, &done.raise()?)?
            }
        };
        Ok(Some(made))
    }

    /// Ends it behind the window at hand.
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

fn segment<'py>(py: Python<'py>, segment: &Segment) -> PyResult<Bound<'py, PyAny>> {
    let word = class(py, "TranscriptWord")?;
    let words = segment.words.iter().map(|w| word.call1((&w.text, w.start, w.end, w.probability)));
    class(py, "TranscriptSegment")?.call1((
        segment.index,
        segment.start,
        segment.end,
        &segment.text,
        segment.tokens.clone(),
        segment.temperature,
        segment.mean_logprob,
        segment.compression_ratio,
        segment.no_speech,
        words.collect::<PyResult<Vec<_>>>()?,
    ))
}

fn transcript<'py>(py: Python<'py>, done: &Transcript) -> PyResult<Bound<'py, PyAny>> {
    let segments = done.segments.iter().map(|s| segment(py, s)).collect::<PyResult<Vec<_>>>()?;
    class(py, "Transcription")?.call1((
        done.text.trim(),
        &done.language,
        segments,
        done.duration,
        done.language_probability,
    ))
}

/// The options by their names; those that are not there keep their defaults.
fn read_options(given: &Bound<'_, PyDict>) -> PyResult<Options> {
    let mut options = Options::default();
    for (name, value) in given {
        let name: String = name.extract()?;
        let mut vad = options.vad.unwrap_or_default();
        match name.as_str() {
            "language" => options.language = value.extract()?,
            "translate" => options.translate = value.extract()?,
            "temperature" => options.temperatures = value.extract()?,
            "beam_size" => options.beam_size = value.extract()?,
            "best_of" => options.best_of = value.extract()?,
            "patience" => options.patience = value.extract()?,
            "initial_prompt" => options.initial_prompt = value.extract()?,
            "condition_on_previous_text" => options.condition_on_previous_text = value.extract()?,
            "compression_ratio_threshold" => options.compression_ratio_threshold = value.extract()?,
            "logprob_threshold" => options.logprob_threshold = value.extract()?,
            "no_speech_threshold" => options.no_speech_threshold = value.extract()?,
            "suppress_tokens" => options.suppress_tokens = value.extract()?,
            "suppress_blank" => options.suppress_blank = value.extract()?,
            "max_initial_timestamp" => options.max_initial_timestamp = value.extract()?,
            "words" => options.words = value.extract()?,
            "batch_size" => options.batch_size = value.extract()?,
            "max_tokens" => options.max_tokens = value.extract()?,
            "seed" => options.seed = value.extract()?,
            "vad_threshold" => vad.threshold = value.extract()?,
            "vad_min_silence" => vad.min_silence = value.extract()?,
            "vad_pad" => vad.pad = value.extract()?,
            other => {
                return Err(Error::invalid(other, "is no option of a transcription")).raise();
            }
        }
        if name.starts_with("vad_") {
            options.vad = Some(vad);
        }
    }
    Ok(options)
}

/// FLAC as one channel, the mean of all: samples, and how many a second.
#[pyfunction]
pub(crate) fn decode_flac<'py>(
    py: Python<'py>,
    data: &[u8],
    max_samples: usize,
) -> PyResult<(Bound<'py, PyArray1<f32>>, u32)> {
    let sound = core(py, || flac::decode(data, max_samples))?;
    Ok((PyArray1::from_vec(py, sound.samples), sound.rate))
}

/// Samples at another rate, as long as they last.
#[pyfunction]
pub(crate) fn resample<'py>(
    py: Python<'py>,
    samples: PyReadonlyArray1<'py, f32>,
    from_rate: u32,
    to_rate: u32,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let samples = samples.as_slice()?.to_vec();
    Ok(PyArray1::from_vec(
        py,
        core(py, || alloyforge_speech::resample::resample(&samples, from_rate, to_rate))?,
    ))
}
