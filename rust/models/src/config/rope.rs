//! Rotary embeddings from either kind of configuration.
//!
//! transformers 5 writes one dictionary `rope_parameters`, or one a layer type; transformers 4 wrote
//! `rope_theta`, `rope_scaling` and `partial_rotary_factor` apart. Both come to the same here. A GGUF
//! file has keys of its own and three tensors of divisors.

use alloyforge_types::{Error, QuantType, Result, RopeLayout, RopeScaling, RopeSpec};
use half::{bf16, f16};
use serde_json::{Map, Value};

use super::Reader;
use super::item::Item;
use super::keys::{self, Key};

/// Which of a model's rotary embeddings is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RopeOf {
    /// The only one.
    Model,
    /// That of layers which see everything.
    FullLayers,
    /// That of layers with a window.
    WindowLayers,
}

/// What a family knows of its rotary embedding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeDefaults {
    /// Which embedding.
    pub(crate) of: RopeOf,
    /// The base where the file is silent.
    pub(crate) theta: f64,
    /// The layout that the family's GGUF files are converted for.
    pub(crate) gguf_layout: RopeLayout,
    /// Whether YaRN's ramp ends on whole coordinates where the file is silent.
    pub(crate) yarn_truncate: bool,
}

impl Reader<'_> {
    /// The rotary embedding for heads of `head_dim` coordinates in a model made for `context_len`
    /// tokens.
    pub(crate) fn rope(&self, head_dim: usize, context_len: usize, of: &RopeDefaults) -> Result<RopeSpec> {
        if self.is_gguf() {
            self.gguf_rope(head_dim, context_len, of)
        } else {
            self.hf_rope(head_dim, context_len, of)
        }
    }

    /// M-RoPE's counts of frequencies for time, height and width, which add up to all of them.
    pub(crate) fn rope_sections(&self, default: [usize; 3]) -> Result<[usize; 3]> {
        let list = if self.is_gguf() {
            self.integers(keys::ROPE_SECTIONS)?
        } else {
            let group = self.hf_rope_group(RopeOf::Model)?;
            let fields = Fields { reader: self, key: group.key, object: group.object };
            match fields.item("mrope_section") {
                None => None,
                Some(item) => {
                    let count = |i: usize| item.at(i).and_then(Item::integer).and_then(|n| n.try_into().ok());
                    let list = (0..item.len().unwrap_or(0)).map(count).collect::<Option<Vec<usize>>>();
                    Some(list.unwrap_or_default())
                }
            }
        };
        match list.as_deref() {
            None => Ok(default),
            // llama.cpp writes a fourth, which nothing has
            Some(&[time, height, width]) | Some(&[time, height, width, 0]) => Ok([time, height, width]),
            Some(_) => Err(self.fault(keys::ROPE_SECTIONS, "has no three counts of frequencies")),
        }
    }

    /// An even width from 2 to that of a head.
    fn checked_dim(&self, key: Key, dim: usize, head_dim: usize) -> Result<usize> {
        if dim == 0 || !dim.is_multiple_of(2) || dim > head_dim {
            let fault =
                format!("turns {dim} coordinates, expected an even number up to the head's {head_dim}");
            return Err(self.fault(key, fault));
        }
        Ok(dim)
    }

    fn hf_rope(&self, head_dim: usize, context_len: usize, defaults: &RopeDefaults) -> Result<RopeSpec> {
        // named at the top by Phi-3, where it matters to some scalings only
        self.ignore(&[keys::ROPE_ORIGINAL]);
        let group = self.hf_rope_group(defaults.of)?;
        let fields = Fields { reader: self, key: group.key, object: group.object };
        let outer_theta = match defaults.of {
            RopeOf::WindowLayers => self.positive_number(keys::ROPE_THETA_SWA)?,
            _ => self.positive_number(keys::ROPE_THETA)?,
        };
        let theta = fields.positive("rope_theta")?.or(outer_theta).or(group.theta);
        let theta = theta.unwrap_or(defaults.theta) as f32;
        let partial = fields.positive("partial_rotary_factor")?.or(self.positive_number(keys::ROPE_PARTIAL)?);
        let dim = match partial {
            None => self.checked_dim(keys::HEAD_DIM, head_dim, head_dim)?,
            Some(share) => {
                self.checked_dim(keys::ROPE_PARTIAL, (head_dim as f64 * share) as usize, head_dim)?
            }
        };
        let scaling = self.hf_scaling(&fields, dim, context_len, defaults)?;
        fields.finish()?;
        Ok(RopeSpec { theta, dim, layout: RopeLayout::Half, scaling, sections: None })
    }

    /// The dictionary for `of`, whichever version wrote it.
    fn hf_rope_group(&self, of: RopeOf) -> Result<Group<'_>> {
        let new = self.object(keys::ROPE_PARAMETERS)?;
        let old = self.object(keys::ROPE_SCALING)?.filter(|o| !o.is_empty());
        if let Some(object) = new.filter(|o| o.values().any(Value::is_object)) {
            let name = match of {
                RopeOf::FullLayers => "full_attention",
                RopeOf::WindowLayers => "sliding_attention",
                RopeOf::Model => {
                    return Err(self.unsupported(keys::ROPE_PARAMETERS, "one dictionary a layer type"));
                }
            };
            return match object.get(name) {
                None | Some(Value::Null) => Ok(Group::new(None)),
                Some(Value::Object(o)) => Ok(Group::new(Some(o))),
                Some(_) => Err(self.fault(keys::ROPE_PARAMETERS, format!("`{name}` is no object"))),
            };
        }
        // a scaling beside `rope_theta` is that of the layers which see everything
        match (old, new) {
            _ if of == RopeOf::WindowLayers => Ok(Group::new(None)),
            (Some(o), new) => {
                // where both are written the older one rules, but the base may stand in the newer
                let fields = Fields { reader: self, key: keys::ROPE_PARAMETERS, object: new };
                let theta = fields.positive("rope_theta")?;
                Ok(Group { key: keys::ROPE_SCALING, object: Some(o), theta })
            }
            (None, object) => Ok(Group::new(object)),
        }
    }

    fn hf_scaling(
        &self,
        fields: &Fields<'_, '_>,
        dim: usize,
        context_len: usize,
        defaults: &RopeDefaults,
    ) -> Result<RopeScaling> {
        let name = match (fields.text("rope_type")?, fields.text("type")?) {
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => "default",
        };
        let original_len = || -> Result<usize> {
            let inner = fields.size("original_max_position_embeddings")?;
            Ok(self.count(keys::ROPE_ORIGINAL)?.filter(|&n| n > 0).or(inner).unwrap_or(context_len))
        };
        match name {
            // M-RoPE's sections are the family's to read
            "default" | "mrope" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: fields.required("factor")? as f32 }),
            "dynamic" => {
                // transformers measures by the model's own context length, whatever the dictionary says
                fields.size("original_max_position_embeddings")?;
                Ok(RopeScaling::Dynamic {
                    factor: fields.required("factor")? as f32,
                    original_len: context_len,
                })
            }
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: fields.required("factor")? as f32,
                low_freq_factor: fields.required("low_freq_factor")? as f32,
                high_freq_factor: fields.required("high_freq_factor")? as f32,
                original_len: original_len()?,
            }),
            "yarn" if !fields.has("short_factor") => {
                let original_len = original_len()?;
                let factor = match fields.positive("factor")? {
                    Some(factor) => factor,
                    None => context_len as f64 / original_len as f64,
                };
                let magnitude = yarn_magnitude(
                    factor,
                    fields.positive("attention_factor")?,
                    fields.number("mscale")?,
                    fields.number("mscale_all_dim")?,
                );
                Ok(RopeScaling::Yarn {
                    factor: factor as f32,
                    original_len,
                    beta_fast: fields.number("beta_fast")?.filter(|&b| b != 0.0).unwrap_or(32.0) as f32,
                    beta_slow: fields.number("beta_slow")?.filter(|&b| b != 0.0).unwrap_or(1.0) as f32,
                    truncate: fields.flag("truncate", defaults.yarn_truncate)?,
                    magnitude: magnitude as f32,
                })
            }
            // Phi-3 called it "su" and, mistakenly, "yarn" at first
            "longrope" | "su" | "yarn" => {
                let original_len = original_len()?;
                let factor = match fields.positive("factor")? {
                    Some(factor) => factor,
                    None => context_len as f64 / original_len as f64,
                };
                let magnitude = match fields.positive("attention_factor")? {
                    Some(magnitude) => magnitude,
                    None => longrope_magnitude(factor, original_len),
                };
                Ok(RopeScaling::LongRope {
                    short: fields.divisors("short_factor", dim / 2)?,
                    long: fields.divisors("long_factor", dim / 2)?,
                    original_len,
                    magnitude: magnitude as f32,
                })
            }
            other => Err(self.unsupported(fields.key, format!("rope_type \"{other}\""))),
        }
    }

    fn gguf_rope(&self, head_dim: usize, context_len: usize, defaults: &RopeDefaults) -> Result<RopeSpec> {
        let dim = match self.count(keys::ROPE_DIM)? {
            Some(dim) => self.checked_dim(keys::ROPE_DIM, dim, head_dim)?,
            None => self.checked_dim(keys::HEAD_DIM, head_dim, head_dim)?,
        };
        let theta = self.positive_number(match defaults.of {
            RopeOf::WindowLayers => keys::ROPE_THETA_SWA,
            _ => keys::ROPE_THETA,
        })?;
        let scaling = match defaults.of {
            RopeOf::WindowLayers => RopeScaling::None,
            _ => self.gguf_scaling(dim, context_len, defaults)?,
        };
        Ok(RopeSpec {
            theta: theta.unwrap_or(defaults.theta) as f32,
            dim,
            layout: defaults.gguf_layout,
            scaling,
            sections: None,
        })
    }

    fn gguf_scaling(&self, dim: usize, context_len: usize, defaults: &RopeDefaults) -> Result<RopeScaling> {
        let original_len = self.count(keys::ROPE_ORIGINAL)?.filter(|&n| n > 0).unwrap_or(context_len);
        let factor = match self.number(keys::ROPE_FACTOR)? {
            Some(factor) => Some((keys::ROPE_FACTOR, factor)),
            None => self.number(keys::ROPE_OLD_FACTOR)?.map(|factor| (keys::ROPE_OLD_FACTOR, factor)),
        };
        let factor = match factor {
            None | Some((_, 0.0)) => 1.0,
            Some((_, factor)) if factor > 0.0 => factor,
            Some((key, factor)) => {
                return Err(self.fault(key, format!("is {factor}, expected a number above 0")));
            }
        };
        let magnitude = self.positive_number(keys::ROPE_MAGNITUDE)?.unwrap_or(1.0);
        let (log_mul, fast, slow) = (
            self.number(keys::YARN_LOG_MUL)?,
            self.positive_number(keys::YARN_BETA_FAST)?.unwrap_or(32.0),
            self.positive_number(keys::YARN_BETA_SLOW)?.unwrap_or(1.0),
        );
        let yarn_given = self.positive_number(keys::YARN_MAGNITUDE)?;
        if self.number(keys::YARN_EXTRAPOLATION)?.is_some_and(|x| x >= 0.0) {
            self.require(keys::YARN_EXTRAPOLATION, 1.0)?;
        }
        let kind = self.text(keys::ROPE_TYPE)?;
        let (short, long) = (
            self.divisors("rope_factors_short.weight", dim)?,
            self.divisors("rope_factors_long.weight", dim)?,
        );
        let freqs = self.divisors("rope_freqs.weight", dim)?;
        match (kind, short, long, freqs) {
            (None | Some("none" | "longrope" | "linear"), Some(short), Some(long), None) => {
                let magnitude = magnitude as f32;
                Ok(RopeScaling::LongRope { short, long, original_len, magnitude })
            }
            (None | Some("none" | "linear"), None, None, Some(mut divisors)) => {
                if kind != Some("none") {
                    divisors.iter_mut().for_each(|d| *d *= factor as f32);
                }
                Ok(RopeScaling::Divisors(divisors))
            }
            (Some("none"), None, None, None) => Ok(RopeScaling::None),
            (None | Some("linear"), None, None, None) if factor == 1.0 => Ok(RopeScaling::None),
            (None | Some("linear"), None, None, None) => Ok(RopeScaling::Linear { factor: factor as f32 }),
            (Some("yarn"), None, None, None) => Ok(RopeScaling::Yarn {
                factor: factor as f32,
                original_len,
                beta_fast: fast as f32,
                beta_slow: slow as f32,
                truncate: defaults.yarn_truncate,
                // llama.cpp takes the numerator's multiplier for 1
                magnitude: (magnitude * yarn_magnitude(factor, yarn_given, log_mul.map(|_| 1.0), log_mul))
                    as f32,
            }),
            (Some("longrope"), ..) => {
                let item = "tensors `rope_factors_short.weight` and `rope_factors_long.weight`";
                Err(Error::format(self.store().label(), item, "longrope needs both"))
            }
            (kind, ..) => {
                let kind = kind.unwrap_or("none");
                Err(self.unsupported(keys::ROPE_TYPE, format!("\"{kind}\" with this file's rope tensors")))
            }
        }
    }

    /// The divisors in the tensor called `name`, one for each of `dim / 2` frequencies.
    fn divisors(&self, name: &str, dim: usize) -> Result<Option<Vec<f32>>> {
        let Some(view) = self.store().tensor(name) else { return Ok(None) };
        let fault =
            |fault: String| Err(Error::format(self.store().label(), format!("tensor `{name}`"), fault));
        if view.shape.iter().product::<usize>() != dim / 2 {
            return fault(format!("has shape {:?}, expected [{}]", view.shape, dim / 2));
        }
        let halves = || view.data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let values: Vec<f32> = match view.ty {
            QuantType::F32 => {
                view.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            QuantType::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
            QuantType::BF16 => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
            ty => return fault(format!("has type {}, expected a plain one", ty.name())),
        };
        match values.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
            Some(bad) => fault(format!("holds {bad}, expected numbers above 0")),
            None => Ok(Some(values)),
        }
    }
}

/// YaRN's factor on cos and sin: as given, else from the stretch (Peng et al., section 3.4), where
/// DeepSeek's two multipliers change it if both are there.
fn yarn_magnitude(factor: f64, given: Option<f64>, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let of = |multiplier: f64| if factor <= 1.0 { 1.0 } else { 0.1 * multiplier * factor.ln() + 1.0 };
    let present = |m: Option<f64>| m.filter(|&m| m != 0.0);
    match (given, present(mscale), present(mscale_all_dim)) {
        (Some(given), ..) => given,
        (None, Some(over), Some(under)) => of(over) / of(under),
        _ => of(1.0),
    }
}

/// LongRoPE's factor on cos and sin.
fn longrope_magnitude(factor: f64, original_len: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original_len as f64).ln()).sqrt() }
}

/// The dictionary that describes one rotary embedding.
struct Group<'a> {
    key: Key,
    object: Option<&'a Map<String, Value>>,
    /// The base, where it stands beside the dictionary.
    theta: Option<f64>,
}

impl<'a> Group<'a> {
    fn new(object: Option<&'a Map<String, Value>>) -> Self {
        Self { key: keys::ROPE_PARAMETERS, object, theta: None }
    }
}

/// A dictionary's fields; each must be asked for.
struct Fields<'a, 'r> {
    reader: &'r Reader<'r>,
    key: Key,
    object: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a, '_> {
    /// The fields of any rotary embedding and of those that [`Reader::hf_scaling`] knows.
    const KNOWN: &'static [&'static str] = &[
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "factor",
        "finetuned",
        "high_freq_factor",
        "long_factor",
        "low_freq_factor",
        "mscale",
        "mrope_interleaved",
        "mrope_section",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "rope_theta",
        "rope_type",
        "short_factor",
        "truncate",
        "type",
    ];

    fn item(&self, name: &str) -> Option<Item<'a>> {
        self.object?.get(name).filter(|v| !v.is_null()).map(Item::Json)
    }

    fn fault(&self, name: &str, fault: String) -> Error {
        self.reader.fault(self.key, format!("`{name}` {fault}"))
    }

    fn has(&self, name: &str) -> bool {
        self.item(name).is_some()
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(item) = self.item(name) else { return Ok(None) };
        item.text()
            .map(Some)
            .ok_or_else(|| self.fault(name, format!("is {}, expected a string", item.shown())))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(item) = self.item(name) else { return Ok(None) };
        match item.number() {
            Some(x) if (x as f32).is_finite() => Ok(Some(x)),
            _ => Err(self.fault(name, format!("is {}, expected a finite number", item.shown()))),
        }
    }

    fn positive(&self, name: &str) -> Result<Option<f64>> {
        match self.number(name)? {
            Some(x) if x <= 0.0 || x as f32 == 0.0 => {
                Err(self.fault(name, format!("is {x}, expected a number above 0")))
            }
            number => Ok(number),
        }
    }

    fn required(&self, name: &str) -> Result<f64> {
        self.positive(name)?.ok_or_else(|| self.fault(name, "is missing".to_owned()))
    }

    fn size(&self, name: &str) -> Result<Option<usize>> {
        match self.positive(name)? {
            Some(x) if x.fract() == 0.0 && x <= u32::MAX as f64 => Ok(Some(x as usize)),
            Some(x) => Err(self.fault(name, format!("is {x}, expected an integer"))),
            None => Ok(None),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        let Some(item) = self.item(name) else { return Ok(default) };
        item.bool().ok_or_else(|| self.fault(name, format!("is {}, expected true or false", item.shown())))
    }

    fn divisors(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let item = self.item(name).ok_or_else(|| self.fault(name, "is missing".to_owned()))?;
        if item.len() != Some(len) {
            let found = item.len().map_or("no list".to_owned(), |n| format!("a list of {n}"));
            return Err(self.fault(name, format!("is {found}, expected {len} numbers")));
        }
        (0..len)
            .map(|i| match item.at(i).and_then(Item::number) {
                Some(x) if x > 0.0 && (x as f32).is_finite() && x as f32 > 0.0 => Ok(x as f32),
                _ => Err(self.fault(name, "expected numbers above 0".to_owned())),
            })
            .collect()
    }

    /// Refuses a field that is not known.
    fn finish(&self) -> Result<()> {
        for (name, value) in self.object.into_iter().flatten() {
            let item = Item::Json(value);
            if !value.is_null() && !item.is_off() && !Self::KNOWN.contains(&name.as_str()) {
                return Err(self.reader.unsupported(self.key, format!("`{name}`: {}", item.shown())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{longrope_magnitude, yarn_magnitude};

    // numbers: the formulas of transformers' `modeling_rope_utils.py` in Python
    #[test]
    fn magnitudes_are_those_of_transformers() {
        assert!((yarn_magnitude(32.0, None, None, None) - 1.3465735902799727).abs() < 1e-15);
        assert!((yarn_magnitude(40.0, None, Some(0.707), Some(1.0)) - 0.9210423553163399).abs() < 1e-12);
        assert_eq!(yarn_magnitude(40.0, None, Some(1.0), Some(1.0)), 1.0);
        assert_eq!(yarn_magnitude(40.0, Some(1.5), Some(0.707), Some(1.0)), 1.5);
        assert_eq!(yarn_magnitude(40.0, None, Some(0.707), None), yarn_magnitude(40.0, None, None, None));
        assert_eq!(yarn_magnitude(0.5, None, None, None), 1.0);
        assert!((longrope_magnitude(32.0, 4096) - 1.1902380714238083).abs() < 1e-15);
        assert_eq!(longrope_magnitude(1.0, 4096), 1.0);
    }
}
