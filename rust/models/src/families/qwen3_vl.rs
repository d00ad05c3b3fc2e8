//! The text half of Qwen3-VL: Qwen3, whose rotary embedding takes time, height and width by turns.

use alloyforge_types::{Result, RopeSections};

use super::{Draft, qwen3};
use crate::config::{Key, Reader};

/// Sections where `config.json` says nothing.
const SECTIONS: [usize; 3] = [24, 20, 20];

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    // layers that a projector adds rows behind, which the projector says itself
    c.ignore(&[Key::gguf("n_deepstack_layers")]);
    let mut draft = qwen3::build(c)?;
    let counts = c.rope_sections(SECTIONS)?;
    draft.spec.ropes.iter_mut().for_each(|rope| rope.sections = Some(RopeSections::Interleaved(counts)));
    Ok(draft)
}
