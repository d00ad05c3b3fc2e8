//! The few traits of AlloyForge, each with two implementors or a test fake.
//!
//! A key decision: the [`Backend`] is not a tensor algebra. It has one call for each phase of a
//! decoder, over buffers that it took when the model was loaded. Two threads that spin join in well
//! under a microsecond and the activations of one phase serve several products, so a layer of five
//! phases costs a fraction of a graph of twenty-four nodes; and a phase that owns its buffers can
//! reuse them and can drop the weights that it repacked, which an operator on somebody else's tensor
//! cannot.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use alloyforge_types::{
    Batch, BlockId, ByteView, DType, DrawnToken, Error, KvType, MediaItem, MediaKind, MediaPositions,
    MediaRows, MediaSpan, ModelSpec, PromptPiece, QuantMix, Result, Role, TensorView, TokenDraw, Weight,
};

/// A model file, or several that make one: tensors by name, borrowed from mapped memory.
///
/// Everything it gives has been checked when it was opened: shapes, sizes, offsets.
pub trait TensorStore: Send + Sync {
    /// The file as the caller named it, for errors.
    fn label(&self) -> &str;

    /// The name of every tensor that [`tensor`](Self::tensor) gives, in the file's order.
    fn names(&self) -> Vec<&str>;

    /// The tensor called `name`.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;

    /// The element type, as the file spells it, of a tensor that is there but of a type that no
    /// [`QuantType`](alloyforge_types::QuantType) describes: integers, eight-bit floats. So that its absence can be explained.
    fn foreign_type(&self, _name: &str) -> Option<&str> {
        None
    }

    /// The tensor called `name` where its elements are unsigned bytes: GPT-OSS's packed experts.
    fn bytes(&self, _name: &str) -> Option<ByteView<'_>> {
        None
    }

    /// Lets go of the memory that the tensor called `name` was read into, as far as it can be read
    /// again: what was copied elsewhere need not be held twice.
    fn release(&self, _name: &str) {}
}

/// A model's weights by role: the family's names, splits and turns are behind it.
pub trait WeightSource: Send + Sync {
    /// The weight for `role`, its shape checked against the model's spec.
    ///
    /// # Errors
    /// `Format` where the file lacks it or its shape is wrong.
    fn weight(&self, role: Role) -> Result<Weight<'_>>;

    /// Lets go of the memory behind the weight for `role`, which was copied; it can be asked for again.
    fn release(&self, _role: Role) {}
}

/// Told how far a long task is, from 0 to 1.
pub type Progress = Arc<dyn Fn(f32) + Send + Sync>;

/// The least bytes that a KV cache takes when it is of a type.
///
/// # Errors
/// `OutOfMemory` where the caller's own bounds leave no room for what the caller asks for.
pub type KvBytes = Arc<dyn Fn(KvType) -> Result<u64> + Send + Sync>;

/// What a backend is told when it loads a model.
#[derive(Clone)]
pub struct LoadOptions {
    /// The type that unquantised weights are computed in; `None`: the backend's choice.
    pub dtype: Option<DType>,
    /// The types that weight matrices are turned into; `None`: as the file has them.
    pub quantize: Option<QuantMix>,
    /// The type of cached keys and values; `None`: the backend's choice.
    pub kv_type: Option<KvType>,
    /// Threads for computing; `None`: the physical cores that the process may use.
    pub threads: Option<usize>,
    /// Most rows in one step.
    pub max_rows: usize,
    /// Most rows whose logits are asked for in one step.
    pub max_logit_rows: usize,
    /// What the KV cache will take at the least, where that is known: Candle's backend refuses a model that
    /// leaves no room for it before anything is taken.
    pub kv_bytes: Option<KvBytes>,
    /// Told how far loading is.
    pub progress: Option<Progress>,
}

/// Bytes that a loaded model holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights, in bytes.
    pub weights: u64,
    /// The KV cache, in bytes.
    pub kv: u64,
    /// Buffers between phases, in bytes.
    pub workspace: u64,
}

/// A decoder's phases on one device.
///
/// A step is `begin`, `embed`, then for each layer `qkv`, `attend`, `output`, `cross` where the layer
/// attends to an encoder's states, `mlp`, then `final_norm` and `logits`, or `hidden`. The backend keeps the residual stream and everything between phases.
/// What a row comes to depends on its own sequence alone: on the native backend bit for bit, whatever
/// the batch, the chunks and the count of threads.
pub trait Backend: Send {
    /// The device, by the name the public API uses.
    fn device(&self) -> &str;

    /// The type of cached keys and values.
    fn kv_type(&self) -> KvType;

    /// Threads that compute; 0 where the device has none of its own.
    fn threads(&self) -> usize;

    /// Bytes held.
    fn memory(&self) -> MemoryUse;

    /// Bytes that the device has left for a KV cache; `None` where it computes in the host's memory, or where
    /// that cannot be found out.
    fn free_memory(&self) -> Option<u64> {
        None
    }

    /// Takes the KV cache: `blocks[g]` blocks for KV group `g`, once, before the first step.
    ///
    /// # Errors
    /// `OutOfMemory`, and then nothing was taken.
    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()>;

    /// Takes a step's batch. The batch has been checked against the spec and the options by the
    /// caller; it stays unchanged until the next `begin`.
    ///
    /// # Errors
    /// `Device`, `OutOfMemory`.
    fn begin(&mut self, batch: &Batch) -> Result<()>;

    /// Takes other sequences of the same rows, between two layers: the residual stream stays. Encoders
    /// whose layers see now a whole picture, now a part of it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); `Internal` from a backend that cannot, and for another count of rows.
    fn regroup(&mut self, _batch: &Batch) -> Result<()> {
        Err(Error::internal("this backend cannot regroup rows"))
    }

    /// Makes room for steps of other sizes than the options said, between steps.
    ///
    /// # Errors
    /// `OutOfMemory`, and then the old room is still there; `Internal` from a backend that cannot.
    fn reserve_rows(&mut self, _max_rows: usize, _max_logit_rows: usize) -> Result<()> {
        Err(Error::internal("this backend cannot make room for other steps"))
    }

    /// Residual stream = scaled token embeddings, spliced rows as they are.
    ///
    /// # Errors
    /// `Device`.
    fn embed(&mut self) -> Result<()>;

    /// Norm, q, k and v with biases, q/k norm, rotary embedding; k and v into the cache.
    ///
    /// # Errors
    /// `Device`.
    fn qkv(&mut self, layer: usize) -> Result<()>;

    /// Softmax attention of the queries over the cache.
    ///
    /// # Errors
    /// `Device`.
    fn attend(&mut self, layer: usize) -> Result<()>;

    /// Output product, bias, norm after, residual.
    ///
    /// # Errors
    /// `Device`.
    fn output(&mut self, layer: usize) -> Result<()>;

    /// Norm, queries, attention over the states of each sequence's slot, output, residual.
    ///
    /// # Errors
    /// `Device`; `Internal` from a backend or a layer without cross attention.
    fn cross(&mut self, layer: usize) -> Result<()> {
        Err(Error::internal(format!("layer {layer} has no cross attention here")))
    }

    /// Takes room for the encoder states of `slots` inputs of `len` rows each, once.
    ///
    /// # Errors
    /// `OutOfMemory`; `Internal` from a backend or a model without cross attention.
    fn reserve_states(&mut self, _slots: usize, _len: usize) -> Result<()> {
        Err(Error::internal("there is no cross attention here"))
    }

    /// Computes every layer's keys and values of `states`, `[len, hidden]`, into `slot`, between steps.
    ///
    /// # Errors
    /// `Device`; `Internal` for a slot or a length that was not reserved.
    fn put_states(&mut self, _slot: usize, _states: &[f32]) -> Result<()> {
        Err(Error::internal("there is no cross attention here"))
    }

    /// The probabilities of the batch's watched heads, `[heads, rows, len]`, after the last layer.
    ///
    /// # Errors
    /// `Device`; `Internal` from a backend without cross attention.
    fn watched(&mut self) -> Result<Vec<f32>> {
        Err(Error::internal("there is no cross attention here"))
    }

    /// The residual stream of the rows whose logits are asked for, before the last norm, into `out`, of
    /// shape `[logit_rows, hidden]`, after the last layer: what an encoder gives.
    ///
    /// # Errors
    /// `Device`; `Internal` from a backend that keeps it to itself.
    fn hidden(&mut self, _out: &mut [f32]) -> Result<()> {
        Err(Error::internal("this backend does not give its residual stream"))
    }

    /// Norm, gated MLP or experts, norm after, residual; then what spliced rows add behind the layer.
    ///
    /// # Errors
    /// `Device`.
    fn mlp(&mut self, layer: usize) -> Result<()>;

    /// The norm before the head, of the rows whose logits are asked for.
    ///
    /// # Errors
    /// `Device`.
    fn final_norm(&mut self) -> Result<()>;

    /// Logits of the asked rows, scaled and capped, into `out`, of shape `[logit_rows, vocab]`.
    ///
    /// # Errors
    /// `Device`.
    fn logits(&mut self, out: &mut [f32]) -> Result<()>;

    /// Whether tokens can be drawn where the logits are, with [`draw`](Self::draw).
    fn can_draw(&self) -> bool {
        false
    }

    /// Draws tokens in place of [`logits`](Self::logits), one for each of `draws`: what the engine's
    /// sampler would draw from the same logits.
    ///
    /// # Errors
    /// `Device`; `Internal` from a backend that [cannot](Self::can_draw).
    fn draw(&mut self, _draws: &[TokenDraw]) -> Result<Vec<DrawnToken>> {
        Err(Error::internal("this backend draws no tokens"))
    }

    /// Copies whole blocks of one KV group, each from the first of a pair to the second.
    ///
    /// # Errors
    /// `Device`.
    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()>;

    /// Adds the bytes of one block of one KV group to `out`, in a form of the backend's own that
    /// [`write_block`](Self::write_block) takes: always as many for the same model and options.
    ///
    /// # Errors
    /// `Device`, also, as provided, where the backend does not give blocks out.
    fn read_block(&self, _group: usize, _block: BlockId, _out: &mut Vec<u8>) -> Result<()> {
        Err(gives_no_blocks(self.device()))
    }

    /// Fills one block of one KV group with what [`read_block`](Self::read_block) gave.
    ///
    /// # Errors
    /// `InvalidRequest` for bytes of another length; else as [`read_block`](Self::read_block).
    fn write_block(&mut self, _group: usize, _block: BlockId, _bytes: &[u8]) -> Result<()> {
        Err(gives_no_blocks(self.device()))
    }
}

fn gives_no_blocks(device: &str) -> Error {
    Error::Device { device: device.to_owned(), fault: "does not give blocks of its KV cache out".into() }
}

/// A model that the engine can step, whatever is behind it.
pub trait Model: Send {
    /// What it is.
    fn spec(&self) -> &ModelSpec;

    /// The device, by the name the public API uses.
    fn device(&self) -> &str;

    /// The type of cached keys and values.
    fn kv_type(&self) -> KvType;

    /// Threads that compute.
    fn threads(&self) -> usize;

    /// Bytes held.
    fn memory(&self) -> MemoryUse;

    /// As [`Backend::free_memory`].
    fn free_memory(&self) -> Option<u64> {
        None
    }

    /// As [`Backend::reserve_kv`].
    ///
    /// # Errors
    /// `OutOfMemory`, and then nothing was taken.
    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()>;

    /// Runs one step; `logits` is resized to `[logit_rows, vocab]`.
    ///
    /// # Errors
    /// `Device`, `OutOfMemory`; `Internal` for a batch that contradicts itself.
    fn forward(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<()>;

    /// As [`Backend::can_draw`].
    fn can_draw(&self) -> bool {
        false
    }

    /// Runs one step and draws a token for each of `draws`, in place of giving logits.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); `Internal` from a model that [cannot](Self::can_draw).
    fn draw(&mut self, _batch: &Batch, _draws: &[TokenDraw]) -> Result<Vec<DrawnToken>> {
        Err(Error::internal("this model draws no tokens"))
    }

    /// Runs one step up to the last norm; `out` is resized to `[logit_rows, hidden]`, the residual
    /// stream of the rows whose logits are asked for.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn hidden(&mut self, _batch: &Batch, _out: &mut Vec<f32>) -> Result<()> {
        Err(Error::internal("this model does not give its residual stream"))
    }

    /// As [`Backend::reserve_states`].
    ///
    /// # Errors
    /// `OutOfMemory`; `Internal` from a model without cross attention.
    fn reserve_states(&mut self, _slots: usize, _len: usize) -> Result<()> {
        Err(Error::internal("this model has no cross attention"))
    }

    /// As [`Backend::put_states`].
    ///
    /// # Errors
    /// `Device`; `Internal` for a slot or a length that was not reserved.
    fn put_states(&mut self, _slot: usize, _states: &[f32]) -> Result<()> {
        Err(Error::internal("this model has no cross attention"))
    }

    /// As [`Backend::watched`], of the step before.
    ///
    /// # Errors
    /// `Device`; `Internal` from a model without cross attention.
    fn watched(&mut self) -> Result<Vec<f32>> {
        Err(Error::internal("this model has no cross attention"))
    }

    /// As [`Backend::copy_blocks`].
    ///
    /// # Errors
    /// `Device`.
    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()>;

    /// As [`Backend::read_block`].
    ///
    /// # Errors
    /// As [`Backend::read_block`].
    fn read_block(&self, _group: usize, _block: BlockId, _out: &mut Vec<u8>) -> Result<()> {
        Err(gives_no_blocks(self.device()))
    }

    /// As [`Backend::write_block`].
    ///
    /// # Errors
    /// As [`Backend::write_block`].
    fn write_block(&mut self, _group: usize, _block: BlockId, _bytes: &[u8]) -> Result<()> {
        Err(gives_no_blocks(self.device()))
    }
}

/// Rows for the layers of an encoder.
#[derive(Debug, Clone)]
pub struct TowerRows<'a> {
    /// The numbers, `[rows, width]`.
    pub values: Arc<[f32]>,
    /// Where each row's patch lies, as time, line and column; empty where rows have no place.
    pub places: Vec<[u32; 3]>,
    /// The ways in which rows see each other, each as the lengths of runs of rows.
    pub groupings: Vec<&'a [usize]>,
    /// For each layer, the index of its grouping.
    pub grouping_of: Vec<usize>,
    /// The layers behind which rows are wanted, ascending.
    pub taps: &'a [usize],
}

/// The layers of an encoder, between the rows that it makes and the rows that it takes further.
pub trait TowerLayers: Send {
    /// The rows behind each tapped layer, `[rows, width]`. What a row comes to depends on those alone
    /// that it sees.
    ///
    /// # Errors
    /// `Device`, `OutOfMemory`; `Internal` for rows that contradict themselves.
    fn run(&mut self, rows: &TowerRows<'_>) -> Result<Vec<Vec<f32>>>;

    /// Bytes held.
    fn memory(&self) -> MemoryUse;
}

/// A tower that turns a picture, a video or a sound into rows for a decoder.
pub trait Encoder: Send + Sync {
    /// Rows of the decoder's hidden width for `item`, which a processor of the same family prepared.
    /// What they come to depends on the item alone.
    ///
    /// # Errors
    /// `Media` for tensors of the wrong number or shape; `Device`, `OutOfMemory`.
    fn encode(&self, item: &MediaItem) -> Result<MediaRows>;

    /// Bytes that its weights hold.
    fn bytes(&self) -> u64;
}

/// An encoder of texts: tokens to embeddings.
pub trait TextEncoder: Send + Sync {
    /// Most tokens of a text.
    fn max_len(&self) -> usize;

    /// Numbers in an embedding.
    fn dim(&self) -> usize;

    /// The embeddings of `texts`, of shape `[texts, dim]`, as the model pools them and not normalised.
    /// What a text's comes to depends on that text alone, but for the last bits.
    ///
    /// # Errors
    /// `ContextLength` for a text that is too long, `InvalidRequest` for one without tokens or with one
    /// outside the vocabulary; `Device`, `OutOfMemory`.
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>>;

    /// As [`embed`](Self::embed), of pairs: in each text the second one begins at token `split`.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), and `InvalidRequest` where the model takes no pairs.
    fn embed_pairs(&self, _texts: &[Vec<u32>], _split: usize) -> Result<Vec<f32>> {
        Err(Error::invalid("documents", "the model does not take pairs of texts"))
    }

    /// Bytes that its weights hold.
    fn bytes(&self) -> u64;
}

/// How a family's prompts hold media.
pub trait MediaPrompts: Send + Sync {
    /// The texts that stand for one item of `kind` until they are expanded, of which the longest at a
    /// place counts; none where the family takes no such media. The first one is what a chat without a
    /// template that knows media writes.
    fn placeholders(&self, kind: MediaKind) -> &[String];

    /// The token that each row of an item of `kind` replaces, by its text.
    fn row_token(&self, kind: MediaKind) -> &str;

    /// What the placeholder of `item` becomes. Its rows are all rows that the encoder makes of it.
    ///
    /// # Errors
    /// `Media` for an item without the facts that this follows from.
    fn expand(&self, item: &MediaItem) -> Result<Vec<PromptPiece>>;

    /// The rotary positions of a prompt of `len` tokens with the rows of `items` at `spans`, ascending;
    /// `None` where a token's position is its index.
    ///
    /// # Errors
    /// `Media` for an item without the facts that this follows from.
    fn positions(
        &self,
        len: usize,
        spans: &[MediaSpan],
        items: &[Arc<MediaItem>],
    ) -> Result<Option<MediaPositions>>;

    /// Most rows of an item that see each other in both directions, and so are computed in one step; 0
    /// where attention is causal throughout.
    fn two_way_rows(&self) -> usize;
}

/// Text to token ids and back.
pub trait Tokenizer: Send + Sync {
    /// One more than the highest id.
    fn vocab_size(&self) -> usize;

    /// The ids of `text`, without BOS and EOS. Special tokens written in the text become their ids
    /// where `special`, and stay ordinary text otherwise.
    ///
    /// # Errors
    /// `InvalidRequest` where the vocabulary cannot express the text.
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>>;

    /// As [`encode`](Self::encode) with special tokens, except that none is read from what touches one
    /// of `literal`: ascending, disjoint ranges of bytes on character boundaries, where the text is
    /// somebody else's and spells a special token without meaning one.
    ///
    /// As provided it encodes the stretches one by one, which a tokenizer replaces whose tokens could
    /// cross from one into the next.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_around(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut end = 0;
        for range in literal {
            ids.extend(self.encode(text.get(end..range.start).unwrap_or_default(), true)?);
            ids.extend(self.encode(text.get(range.clone()).unwrap_or_default(), false)?);
            end = range.end;
        }
        ids.extend(self.encode(text.get(end..).unwrap_or_default(), true)?);
        Ok(ids)
    }

    /// The bytes that `id` adds to a text that has begun; special tokens give their text. `None` for
    /// an id outside the vocabulary.
    fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>>;

    /// Whether the text of an answer leaves `id` out: a special or control token.
    fn is_special(&self, id: u32) -> bool;

    /// The id of the token spelled `piece`, special ones included.
    fn token_id(&self, piece: &str) -> Option<u32>;

    /// Whether the decoded text of a whole sequence drops one leading space (SentencePiece's dummy
    /// prefix).
    fn strips_leading_space(&self) -> bool;

    /// The token that begins a sequence, and whether it is put before a prompt by default.
    fn bos(&self) -> (Option<u32>, bool);

    /// The tokens that end an answer.
    fn eos(&self) -> &[u32];
}
