//! `Conversation`: the blocks of a chat, kept between its turns.

use std::path::PathBuf;
use std::sync::Arc;

use alloyforge_engine::{Conversation as Kept, ConversationId, Session};
use pyo3::prelude::*;

use crate::error::core;
use crate::wait::elsewhere;

/// A mark that keeps the blocks of a chat. Dropping it lets them go.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Conversation {
    session: Arc<Session>,
    kept: Arc<Kept>,
}

impl Conversation {
    pub(crate) fn new(session: Arc<Session>, kept: Kept) -> Self {
        Self { session, kept: Arc::new(kept) }
    }

    pub(crate) fn id(&self) -> ConversationId {
        self.kept.id()
    }
}

#[pymethods]
impl Conversation {
    /// A second conversation that keeps the same blocks.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        let kept = core(py, || self.session.fork(&self.kept))?;
        Ok(Self::new(Arc::clone(&self.session), kept))
    }

    /// Writes the blocks to a file, with a text.
    fn save(&self, py: Python<'_>, path: PathBuf, text: String) -> PyResult<()> {
        let (session, kept) = (Arc::clone(&self.session), Arc::clone(&self.kept));
        elsewhere(py, move || session.save(&kept, &path, text), |_| Ok(()))
    }

    /// Takes the blocks from a file; gives the text.
    fn restore(&self, py: Python<'_>, path: PathBuf) -> PyResult<String> {
        let (session, kept) = (Arc::clone(&self.session), Arc::clone(&self.kept));
        elsewhere(py, move || session.restore(&kept, &path), |_| Ok(()))
    }
}
