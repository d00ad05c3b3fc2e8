//! Whisper as CTranslate2 stores it: a folder with `model.bin` beside `config.json` and `tokenizer.json`.
//!
//! The file is one run of little-endian records:
//!
//! ```text
//! u32 version (5 or 6) ; str name of the specification ; u32 its revision
//! u32 count of variables, each: str name ; u8 rank ; u32 dimensions[rank] ; u8 type ; u32 bytes ; data
//! u32 count of aliases, each: str alias ; str variable        (str: u16 length with a NUL, then bytes)
//! ```
//!
//! Its converter only joins and renames tensors, q, k and v by rows, so every tensor of the published
//! checkpoint is a slice of the mapped file, and is given here under its published name. Of a file that was
//! quantised on the way, matrices of 8-bit rows become blocks of the same integers, and what else was
//! quantised becomes float32.

use std::ops::Range;
use std::path::{Path, PathBuf};

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{Error, QuantType, Result, TensorView};
use serde_json::{Map, Value, json};

use crate::json::{self, existing};
use crate::mapped::MappedFile;
use crate::names::NameIndex;

/// Most bytes of `config.json` and of the lists in it.
const MAX_CONFIG_LEN: u64 = 8 << 20;

/// Numbers in a block of [`QuantType::Q8_0`].
const BLOCK: usize = 32;

/// The specification that is known.
const WHISPER: &str = "WhisperSpec";

/// A variable of the file.
#[derive(Debug, Clone)]
struct Variable {
    name: String,
    shape: Vec<usize>,
    ty: Element,
    data: Range<usize>,
}

/// An element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Plain(QuantType),
    /// An integer, by its name and width.
    Integer(&'static str, usize),
}

impl Element {
    fn of(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::Plain(QuantType::F32),
            1 => Self::Integer("int8", 1),
            2 => Self::Integer("int16", 2),
            3 => Self::Integer("int32", 4),
            4 => Self::Plain(QuantType::F16),
            5 => Self::Plain(QuantType::BF16),
            _ => return None,
        })
    }

    fn len(self) -> usize {
        match self {
            Self::Plain(QuantType::F32) => 4,
            Self::Plain(_) => 2,
            Self::Integer(_, len) => len,
        }
    }
}

/// A tensor under its published name.
#[derive(Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    ty: QuantType,
    data: Data,
}

/// Where a tensor's bytes are.
#[derive(Debug)]
enum Data {
    /// In the file.
    Mapped(Range<usize>),
    /// Made when it was opened.
    Made(Vec<u8>),
}

/// A Whisper model of CTranslate2, opened.
#[derive(Debug)]
pub struct Ct2Store {
    file: MappedFile,
    tensors: Vec<Tensor>,
    by_name: NameIndex,
    layers: [usize; 2],
}

/// A folder with such a model.
#[derive(Debug)]
pub struct Ct2Folder {
    /// The weights.
    pub store: Ct2Store,
    /// What the published `config.json` would say.
    pub config: Value,
    /// What the published `generation_config.json` would say.
    pub generation_config: Value,
    /// Where `tokenizer.json` is.
    pub tokenizer_json: Option<PathBuf>,
}

/// Whether `path` is a folder with a `model.bin` and no safetensors, or such a file.
pub fn is_ct2(path: &Path) -> bool {
    let starts = |file: &Path| {
        let mut head = [0; 4];
        let read = std::fs::File::open(file).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut head));
        read.is_ok() && matches!(u32::from_le_bytes(head), 5 | 6)
    };
    if path.is_dir() {
        let file = path.join("model.bin");
        return file.is_file() && existing(path, "model.safetensors").is_none() && starts(&file);
    }
    path.file_name().is_some_and(|name| name == "model.bin") && starts(path)
}

impl Ct2Folder {
    /// Opens the model in the folder at `path`, or the `model.bin` at `path`.
    ///
    /// # Errors
    /// `Io` where a file is missing; `Format` where one is damaged; `Unsupported` for a model that is no
    /// Whisper.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
        let store = Ct2Store::open(&folder.join("model.bin"))?;
        let given = match existing(folder, "config.json") {
            Some(file) => json::read_value(&file, MAX_CONFIG_LEN)?,
            None => json!({}),
        };
        let config = store.config()?;
        let generation_config = store.generation_config(&config, &given);
        Ok(Self { store, config, generation_config, tokenizer_json: existing(folder, "tokenizer.json") })
    }
}

/// Reads records, each bound by what is left of the file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    label: &'a str,
}

impl<'a> Cursor<'a> {
    fn fault(&self, item: &str, fault: impl Into<String>) -> Error {
        Error::Format {
            file: self.label.to_owned(),
            item: item.to_owned(),
            fault: fault.into(),
            offset: Some(self.at as u64),
        }
    }

    fn take(&mut self, len: usize, item: &str) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            let left = self.bytes.len() - self.at;
            return Err(self.fault(item, format!("takes {len} bytes, the file has {left} left")));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self, item: &str) -> Result<u8> {
        Ok(self.take(1, item)?[0])
    }

    fn u32(&mut self, item: &str) -> Result<u32> {
        let bytes = self.take(4, item)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self, item: &str) -> Result<String> {
        let len = self.take(2, item)?;
        let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
        let bytes = self.take(len, item)?;
        let Some((&0, text)) = bytes.split_last() else {
            return Err(self.fault(item, "is a text without its end"));
        };
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.fault(item, "is not UTF-8")),
        }
    }

    /// A count of records that take at least `least` bytes each.
    fn count(&mut self, item: &str, least: usize) -> Result<usize> {
        let count = self.u32(item)? as usize;
        if count > (self.bytes.len() - self.at) / least {
            return Err(self.fault(item, format!("is {count}, more than the file can hold")));
        }
        Ok(count)
    }

    fn variable(&mut self) -> Result<Variable> {
        let name = self.text("a variable's name")?;
        let item = format!("variable `{name}`");
        let rank = self.u8(&item)?;
        if rank > 4 {
            return Err(self.fault(&item, format!("has {rank} dimensions, at most 4 are known")));
        }
        let shape = (0..rank).map(|_| Ok(self.u32(&item)? as usize)).collect::<Result<Vec<_>>>()?;
        let id = self.u8(&item)?;
        let ty = Element::of(id).ok_or_else(|| self.fault(&item, format!("has the unknown type {id}")))?;
        let len = self.u32(&item)? as usize;
        let wanted = shape.iter().try_fold(ty.len(), |n, &dim| n.checked_mul(dim));
        if wanted != Some(len) {
            return Err(self.fault(&item, format!("has {len} bytes, its shape {shape:?} takes {wanted:?}")));
        }
        let start = self.at;
        self.take(len, &item)?;
        Ok(Variable { name, shape, ty, data: start..start + len })
    }
}

impl Ct2Store {
    /// Maps and checks the `model.bin` at `path`.
    ///
    /// # Errors
    /// As [`Ct2Folder::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let mut cursor = Cursor { bytes: file.bytes(), at: 0, label: file.label() };
        let version = cursor.u32("the version")?;
        if !(5..=6).contains(&version) {
            return Err(Error::unsupported(cursor.label, format!("CTranslate2's binary version {version}")));
        }
        let name = cursor.text("the specification")?;
        if name != WHISPER {
            return Err(Error::unsupported(cursor.label, format!("CTranslate2's specification `{name}`")));
        }
        cursor.u32("the revision")?;
        // a name of nothing with its length, rank, type and count of bytes
        let count = cursor.count("the count of variables", 9)?;
        let variables = (0..count).map(|_| cursor.variable()).collect::<Result<Vec<_>>>()?;
        let count = cursor.count("the count of aliases", 6)?;
        let mut is_tied = false;
        for _ in 0..count {
            let (alias, of) = (cursor.text("an alias")?, cursor.text("an alias")?);
            is_tied |= alias == "decoder/projection/weight" && of == "decoder/embeddings/weight";
        }
        if cursor.at != cursor.bytes.len() {
            let left = cursor.bytes.len() - cursor.at;
            return Err(cursor.fault("the end", format!("has {left} bytes behind it")));
        }
        if !is_tied {
            return Err(Error::unsupported(cursor.label, "a head that is not the embedding matrix"));
        }
        let Named { tensors, layers } = Naming::new(&cursor, &variables)?.run()?;
        let duplicate =
            |t: &Tensor| Error::format(file.label(), format!("tensor `{}`", t.name), "occurs twice");
        let by_name = NameIndex::new(&tensors, |t| &t.name).map_err(duplicate)?;
        Ok(Self { file, tensors, by_name, layers })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        let missing = || Error::format(self.label(), format!("tensor `{name}`"), "is missing");
        self.by_name.find(&self.tensors, |t| &t.name, name).map(|t| &*t.shape).ok_or_else(missing)
    }

    fn dim(&self, name: &str, axis: usize) -> Result<usize> {
        let shape = self.shape(name)?;
        let fault =
            || Error::format(self.label(), format!("tensor `{name}`"), format!("has shape {shape:?}"));
        shape.get(axis).copied().ok_or_else(fault)
    }

    fn config(&self) -> Result<Value> {
        let (vocab, width) = (
            self.dim("model.decoder.embed_tokens.weight", 0)?,
            self.dim("model.decoder.embed_tokens.weight", 1)?,
        );
        // every published size has heads of 64
        if width == 0 || width % 64 != 0 {
            return Err(Error::unsupported(self.label(), format!("a width of {width}, no multiple of 64")));
        }
        let end = if vocab >= 51865 { 50257 } else { 50256 };
        Ok(json!({
            "model_type": "whisper",
            "architectures": ["WhisperForConditionalGeneration"],
            "activation_function": "gelu",
            "vocab_size": vocab,
            "d_model": width,
            "num_mel_bins": self.dim("model.encoder.conv1.weight", 1)?,
            "encoder_layers": self.layers[0],
            "decoder_layers": self.layers[1],
            "encoder_attention_heads": width / 64,
            "decoder_attention_heads": width / 64,
            "encoder_ffn_dim": self.dim("model.encoder.layers.0.fc1.weight", 0)?,
            "decoder_ffn_dim": self.dim("model.decoder.layers.0.fc1.weight", 0)?,
            "max_source_positions": self.dim("model.encoder.embed_positions.weight", 0)?,
            "max_target_positions": self.dim("model.decoder.embed_positions.weight", 0)?,
            "tie_word_embeddings": true,
            "eos_token_id": end,
            "decoder_start_token_id": end + 1,
        }))
    }

    fn generation_config(&self, config: &Value, given: &Value) -> Value {
        let mut out = Map::new();
        let is_multilingual = config["vocab_size"].as_u64().is_some_and(|n| n >= 51865);
        out.insert("is_multilingual".into(), is_multilingual.into());
        for (name, from) in [
            ("suppress_tokens", "suppress_ids"),
            ("begin_suppress_tokens", "suppress_ids_begin"),
            ("alignment_heads", "alignment_heads"),
        ] {
            if let Some(list) = given.get(from).filter(|list| list.is_array()) {
                out.insert(name.into(), list.clone());
            }
        }
        Value::Object(out)
    }
}

/// The tensors under their published names, and the layers of encoder and decoder.
struct Named {
    tensors: Vec<Tensor>,
    layers: [usize; 2],
}

/// Gives variables their published names.
struct Naming<'a> {
    cursor: &'a Cursor<'a>,
    variables: &'a [Variable],
    index: NameIndex,
    named: Vec<Tensor>,
}

impl<'a> Naming<'a> {
    fn new(cursor: &'a Cursor<'a>, variables: &'a [Variable]) -> Result<Self> {
        let twice =
            |v: &Variable| Error::format(cursor.label, format!("variable `{}`", v.name), "occurs twice");
        let index = NameIndex::new(variables, |v| &v.name).map_err(twice)?;
        Ok(Self { cursor, variables, index, named: Vec::new() })
    }

    fn find(&self, name: &str) -> Option<&'a Variable> {
        self.index.find(self.variables, |v| &v.name, name)
    }

    /// The variable `name` as the tensors `to`, equal shares of its rows.
    fn cut(&mut self, name: &str, to: &[String]) -> Result<()> {
        let label = self.cursor.label;
        let item = format!("variable `{name}`");
        let found = self.find(name).ok_or_else(|| Error::format(label, &*item, "is missing"))?;
        let rows = found.shape.first().copied().unwrap_or(0);
        if rows == 0 || rows % to.len() != 0 {
            let fault = format!("has {rows} rows, for {} tensors", to.len());
            return Err(Error::format(label, item, fault));
        }
        let ty = match found.ty {
            Element::Plain(ty) => ty,
            Element::Integer(..) => return self.cut_integers(found, to),
        };
        let len = found.data.len() / to.len();
        for (i, name) in to.iter().enumerate() {
            let mut shape = found.shape.clone();
            shape[0] = rows / to.len();
            let start = found.data.start + i * len;
            let data = start..start + len;
            // Whisper's keys have no bias, so the converter filled it up with zeros
            if name.ends_with("k_proj.bias") {
                let is_zero = |two: &[u8]| two[0] == 0 && two[1] & 0x7f == 0;
                if !self.cursor.bytes[data].chunks_exact(2).all(is_zero) {
                    return Err(Error::unsupported(label, format!("{item} with a bias on the keys")));
                }
                continue;
            }
            self.named.push(Tensor { name: name.clone(), shape, ty, data: Data::Mapped(data) });
        }
        Ok(())
    }

    /// As [`cut`](Self::cut), of a variable of integers, which a variable beside it scales: a number is
    /// the integer over the scale of its row, or of all.
    fn cut_integers(&mut self, found: &Variable, to: &[String]) -> Result<()> {
        let (label, item) = (self.cursor.label, format!("variable `{}`", found.name));
        let width = match found.ty {
            Element::Integer(_, width @ (1 | 2)) => width,
            other => return Err(Error::unsupported(label, format!("{item} of type {other:?}"))),
        };
        let scales = self.scales(&format!("{}_scale", found.name), found.shape[0])?;
        let cols: usize = found.shape[1..].iter().product();
        let bytes = &self.cursor.bytes[found.data.clone()];
        let rows = found.shape[0] / to.len();
        let is_blocks = width == 1 && found.shape.len() == 2 && cols.is_multiple_of(BLOCK);
        let ty = if is_blocks { QuantType::Q8_0 } else { QuantType::F32 };
        for (i, name) in to.iter().enumerate() {
            let mut made = Vec::new();
            for row in i * rows..(i + 1) * rows {
                let row_bytes = &bytes[row * cols * width..(row + 1) * cols * width];
                let factor = 1.0 / scales[if scales.len() == 1 { 0 } else { row }];
                if is_blocks {
                    let scale = half::f16::from_f32(factor).to_le_bytes();
                    for block in row_bytes.chunks_exact(BLOCK) {
                        made.extend_from_slice(&scale);
                        made.extend_from_slice(block);
                    }
                    continue;
                }
                for number in row_bytes.chunks_exact(width) {
                    let integer = match *number {
                        [low, high] => f32::from(i16::from_le_bytes([low, high])),
                        [one] => f32::from(i8::from_le_bytes([one])),
                        _ => 0.0,
                    };
                    made.extend_from_slice(&(integer * factor).to_le_bytes());
                }
            }
            let mut shape = found.shape.clone();
            shape[0] = rows;
            self.named.push(Tensor { name: name.clone(), shape, ty, data: Data::Made(made) });
        }
        Ok(())
    }

    /// The scales called `name`: one, or one for each of `rows`.
    fn scales(&self, name: &str, rows: usize) -> Result<Vec<f32>> {
        let (label, item) = (self.cursor.label, format!("variable `{name}`"));
        let found = self.find(name).ok_or_else(|| Error::format(label, &*item, "is missing"))?;
        let count = found.shape.iter().product::<usize>();
        if found.ty != Element::Plain(QuantType::F32) || !(count == 1 || count == rows) {
            return Err(Error::format(label, item, format!("is no list of {rows} scales")));
        }
        let (numbers, _) = self.cursor.bytes[found.data.clone()].as_chunks::<4>();
        let scales: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        // what is one over it must fit sixteen bits
        if scales.iter().any(|scale| !(scale.is_finite() && *scale > 2e-5)) {
            return Err(Error::format(label, item, "has a scale that is no number above 0.00002"));
        }
        Ok(scales)
    }

    fn both(&mut self, from: &str, ends: [&str; 2], to: &[String]) -> Result<()> {
        for (end, published) in ends.into_iter().zip(["weight", "bias"]) {
            let to: Vec<String> = to.iter().map(|name| format!("{name}.{published}")).collect();
            self.cut(&format!("{from}/{end}"), &to)?;
        }
        Ok(())
    }

    fn linear(&mut self, from: &str, to: &[String]) -> Result<()> {
        self.both(from, ["weight", "bias"], to)
    }

    fn norm(&mut self, from: &str, to: String) -> Result<()> {
        self.both(from, ["gamma", "beta"], &[to])
    }

    fn run(mut self) -> Result<Named> {
        for conv in ["conv1", "conv2"] {
            self.linear(&format!("encoder/{conv}"), &[format!("model.encoder.{conv}")])?;
        }
        self.cut("decoder/embeddings/weight", &["model.decoder.embed_tokens.weight".to_owned()])?;
        let mut layers = [0; 2];
        for (count, side) in layers.iter_mut().zip(["encoder", "decoder"]) {
            let to = format!("model.{side}.embed_positions.weight");
            self.cut(&format!("{side}/position_encodings/encodings"), &[to])?;
            self.norm(&format!("{side}/layer_norm"), format!("model.{side}.layer_norm"))?;
            while self.find(&format!("{side}/layer_{count}/ffn/linear_0/weight")).is_some() {
                self.layer(side, *count)?;
                *count += 1;
            }
        }
        Ok(Named { tensors: self.named, layers })
    }

    fn layer(&mut self, side: &str, i: usize) -> Result<()> {
        let (from, to) = (format!("{side}/layer_{i}"), format!("model.{side}.layers.{i}"));
        let names = |block: &str, parts: &[&str]| {
            parts.iter().map(|p| format!("{to}.{block}.{p}")).collect::<Vec<_>>()
        };
        self.linear(
            &format!("{from}/self_attention/linear_0"),
            &names("self_attn", &["q_proj", "k_proj", "v_proj"]),
        )?;
        self.linear(&format!("{from}/self_attention/linear_1"), &names("self_attn", &["out_proj"]))?;
        self.norm(&format!("{from}/self_attention/layer_norm"), format!("{to}.self_attn_layer_norm"))?;
        if side == "decoder" {
            self.linear(&format!("{from}/attention/linear_0"), &names("encoder_attn", &["q_proj"]))?;
            self.linear(
                &format!("{from}/attention/linear_1"),
                &names("encoder_attn", &["k_proj", "v_proj"]),
            )?;
            self.linear(&format!("{from}/attention/linear_2"), &names("encoder_attn", &["out_proj"]))?;
            self.norm(&format!("{from}/attention/layer_norm"), format!("{to}.encoder_attn_layer_norm"))?;
        }
        self.linear(&format!("{from}/ffn/linear_0"), &[format!("{to}.fc1")])?;
        self.linear(&format!("{from}/ffn/linear_1"), &[format!("{to}.fc2")])?;
        self.norm(&format!("{from}/ffn/layer_norm"), format!("{to}.final_layer_norm"))
    }
}

impl TensorStore for Ct2Store {
    fn label(&self) -> &str {
        self.file.label()
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.iter().map(|t| &*t.name).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let found = self.by_name.find(&self.tensors, |t| &t.name, name)?;
        Some(TensorView {
            ty: found.ty,
            shape: found.shape.clone(),
            data: match &found.data {
                Data::Mapped(range) => &self.file.bytes()[range.clone()],
                Data::Made(bytes) => bytes,
            },
        })
    }
}
