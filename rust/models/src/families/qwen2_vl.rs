//! The text half of Qwen2-VL and Qwen2.5-VL: Qwen2, whose rotary embedding takes time, height and width
//! in three sections.

use alloyforge_types::{Result, RopeSections};

use super::{Draft, qwen2};
use crate::config::Reader;

/// Sections where `config.json` says nothing.
const SECTIONS: [usize; 3] = [16, 24, 24];

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let mut draft = qwen2::build(c)?;
    let counts = c.rope_sections(SECTIONS)?;
    draft.spec.ropes.iter_mut().for_each(|rope| rope.sections = Some(RopeSections::Contiguous(counts)));
    Ok(draft)
}
