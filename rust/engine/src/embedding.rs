//! Models that write nothing: texts and pictures to embeddings, pictures to labels.

use std::sync::{Arc, PoisonError, RwLock};

use alloyforge_interfaces::{Encoder, TextEncoder, Tokenizer};
use alloyforge_tokenize::TextTokenizer;
use alloyforge_types::{Error, MediaItem, MediaRows, Result};

/// How a text and a picture are compared: their cosine, times a scale, plus a bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The scale.
    pub scale: f32,
    /// The bias.
    pub bias: f32,
    /// Whether each pair stands for itself, or a picture's scores are shares.
    pub is_sigmoid: bool,
}

/// How a model scores one text for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranking {
    /// Ends between the two texts.
    pub num_ends: usize,
    /// Whether a score is brought between 0 and 1.
    pub is_sigmoid: bool,
}

/// What a session without a decoder is made of.
pub struct EmbeddingParts {
    /// What embeds texts.
    pub text: Option<Box<dyn TextEncoder>>,
    /// What makes tokens of them.
    pub tokenizer: Option<Arc<TextTokenizer>>,
    /// The tokens that a text begins and ends with, where the tokenizer does not put them there.
    pub frame: [Option<u32>; 2],
    /// Most tokens of a text; longer ones are cut.
    pub max_len: usize,
    /// What embeds pictures.
    pub vision: Option<Arc<dyn Encoder>>,
    /// What the rows of a picture are scores of; none: they are embeddings.
    pub labels: Vec<String>,
    /// How texts and pictures are compared.
    pub comparison: Option<Comparison>,
    /// How it scores one text for another; then its texts' embeddings are scores.
    pub ranking: Option<Ranking>,
    /// Whether the model's own embeddings have unit length.
    pub is_normalised: bool,
}

/// A model without a decoder. Any thread may call any method at any time.
pub struct EmbeddingSession {
    parts: RwLock<Option<EmbeddingParts>>,
}

/// Embeddings, one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Numbers in each.
    pub dim: usize,
    /// The numbers, of shape `[n, dim]`.
    pub values: Vec<f32>,
}

/// The scores of one picture, a label each, best first.
pub type Scores = Vec<(String, f32)>;

impl EmbeddingSession {
    /// A session of `parts`.
    pub fn new(parts: EmbeddingParts) -> Self {
        Self { parts: RwLock::new(Some(parts)) }
    }

    fn with<T>(&self, work: impl FnOnce(&EmbeddingParts) -> Result<T>) -> Result<T> {
        // nothing is changed under the lock but by `close`
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        work(parts.as_ref().ok_or(Error::Closed)?)
    }

    /// The embeddings of `texts`, of unit length where `normalise` or where the model says so.
    ///
    /// # Errors
    /// `InvalidRequest` for a model without a tower of texts; `Closed`; `Device`.
    pub fn embed(&self, texts: &[String], normalise: bool) -> Result<Embeddings> {
        self.with(|parts| parts.embed(texts, normalise))
    }

    /// The embeddings of pictures, likewise.
    ///
    /// # Errors
    /// `InvalidRequest` for a model without embeddings of pictures; `Media`; `Closed`; `Device`.
    pub fn embed_images(&self, items: &[MediaItem], normalise: bool) -> Result<Embeddings> {
        self.with(|parts| parts.embed_images(items, normalise))
    }

    /// For each picture its labels: the model's own, or `labels` where the model compares pictures with
    /// texts.
    ///
    /// # Errors
    /// `InvalidRequest` for a model that has no labels of its own, or cannot compare; `Media`; `Closed`.
    pub fn classify(&self, items: &[MediaItem], labels: Option<&[String]>) -> Result<Vec<Scores>> {
        self.with(|parts| match labels {
            None => parts.own_labels(items),
            Some(labels) => parts.compare(items, labels),
        })
    }

    /// How well each of `documents` answers `query`, in their order.
    ///
    /// # Errors
    /// `InvalidRequest` for a model that does not score pairs; `ContextLength` for a query that leaves no
    /// room; `Closed`; `Device`.
    pub fn rerank(&self, query: &str, documents: &[String]) -> Result<Vec<f32>> {
        self.with(|parts| parts.rerank(query, documents))
    }

    /// The tokens of `text` as the model takes them.
    ///
    /// # Errors
    /// `InvalidRequest` for a model without a tower of texts; `Closed`.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        self.with(|parts| parts.tokens(text))
    }

    /// Frees the memory. Calls after the first do nothing, those of other methods fail with `Closed`.
    pub fn close(&self) {
        self.parts.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl EmbeddingParts {
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Error::invalid("texts", "the model reads none"));
        };
        let mut ids = tokenizer.encode_framed(text, false)?;
        let (own_begin, own_end) = tokenizer.frame();
        let [begin, end] = self.frame;
        if let Some(begin) = begin
            && own_begin.is_empty()
            && ids.first() != Some(&begin)
        {
            ids.insert(0, begin);
        }
        // what ends a text stays where the text is cut
        let end = own_end.last().copied().or(end);
        if end.is_some() && ids.last() == end.as_ref() {
            ids.pop();
        }
        ids.truncate(self.max_len.saturating_sub(usize::from(end.is_some())));
        ids.extend(end);
        Ok(ids)
    }

    fn embed(&self, texts: &[String], normalise: bool) -> Result<Embeddings> {
        let Some(encoder) = &self.text else {
            return Err(Error::invalid("texts", "the model embeds none"));
        };
        if self.ranking.is_some() {
            let fault = "the model scores pairs of texts and embeds none: `rerank` takes them";
            return Err(Error::invalid("texts", fault));
        }
        let tokens = texts.iter().map(|text| self.tokens(text)).collect::<Result<Vec<_>>>()?;
        let mut values = encoder.embed(&tokens)?;
        let dim = encoder.dim();
        if normalise || self.is_normalised {
            normalise_rows(&mut values, dim);
        }
        Ok(Embeddings { dim, values })
    }

    fn rerank(&self, query: &str, documents: &[String]) -> Result<Vec<f32>> {
        let (Some(encoder), Some(tokenizer), Some(ranking)) = (&self.text, &self.tokenizer, self.ranking)
        else {
            return Err(Error::invalid("documents", "the model does not score pairs of texts"));
        };
        let (begin, end) = tokenizer.frame();
        let mut before = begin;
        before.extend(tokenizer.encode(query, false)?);
        (0..ranking.num_ends).for_each(|_| before.extend_from_slice(&end));
        let room = self.max_len.saturating_sub(before.len() + end.len());
        if room == 0 {
            return Err(Error::ContextLength { tokens: before.len() + end.len() + 1, limit: self.max_len });
        }
        let pairs = documents.iter().map(|document| {
            let mut ids = tokenizer.encode(document, false)?;
            ids.truncate(room);
            Ok([&before[..], &ids, &end].concat())
        });
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let mut scores = encoder.embed_pairs(&pairs, before.len())?;
        if ranking.is_sigmoid {
            scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp()));
        }
        Ok(scores)
    }

    fn rows(&self, items: &[MediaItem]) -> Result<Vec<MediaRows>> {
        let Some(encoder) = &self.vision else {
            return Err(Error::invalid("images", "the model sees none"));
        };
        items.iter().map(|item| encoder.encode(item)).collect()
    }

    fn embed_images(&self, items: &[MediaItem], normalise: bool) -> Result<Embeddings> {
        if !self.labels.is_empty() {
            return Err(Error::invalid("images", "the model classifies pictures and embeds none"));
        }
        let rows = self.rows(items)?;
        let dim = rows.first().map_or(0, |r| r.width);
        let mut values: Vec<f32> = rows.iter().flat_map(|r| r.rows.iter().copied()).collect();
        if normalise || self.is_normalised {
            normalise_rows(&mut values, dim);
        }
        Ok(Embeddings { dim, values })
    }

    fn own_labels(&self, items: &[MediaItem]) -> Result<Vec<Scores>> {
        if self.labels.is_empty() {
            return Err(Error::invalid("labels", "the model has none of its own"));
        }
        let rows = self.rows(items)?;
        Ok(rows.iter().map(|row| ranked(&self.labels, &softmax(&row.rows))).collect())
    }

    fn compare(&self, items: &[MediaItem], labels: &[String]) -> Result<Vec<Scores>> {
        let Some(comparison) = self.comparison else {
            return Err(Error::invalid("labels", "the model does not compare pictures with texts"));
        };
        let texts = self.embed(labels, true)?;
        let pictures = self.embed_images(items, true)?;
        let score = |picture: &[f32], text: &[f32]| {
            let cosine: f32 = picture.iter().zip(text).map(|(a, b)| a * b).sum();
            cosine * comparison.scale + comparison.bias
        };
        let scores = pictures.values.chunks_exact(pictures.dim.max(1)).map(|picture| {
            let all: Vec<f32> =
                texts.values.chunks_exact(texts.dim.max(1)).map(|text| score(picture, text)).collect();
            let shares = match comparison.is_sigmoid {
                true => all.iter().map(|s| 1.0 / (1.0 + (-s).exp())).collect(),
                false => softmax(&all),
            };
            ranked(labels, &shares)
        });
        Ok(scores.collect())
    }
}

fn normalise_rows(values: &mut [f32], dim: usize) {
    for row in values.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = scores.iter().map(|s| f64::from(s - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| (e / sum) as f32).collect()
}

fn ranked(labels: &[String], scores: &[f32]) -> Scores {
    let mut all: Scores = labels.iter().cloned().zip(scores.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}
