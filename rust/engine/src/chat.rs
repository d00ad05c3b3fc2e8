//! Chats: messages to a prompt.

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{Error, Result};
use serde_json::{Map, Value};

use crate::ChatRequest;

/// A model's way of writing a chat.
pub(crate) struct Chat {
    tokenizer: Arc<dyn Tokenizer>,
    source: Option<String>,
    variables: Map<String, Value>,
}

impl Chat {
    pub(crate) fn new(
        tokenizer: Arc<dyn Tokenizer>,
        source: Option<String>,
        variables: Map<String, Value>,
    ) -> Self {
        Self { tokenizer, source, variables }
    }

    pub(crate) fn render(&self, chat: &ChatRequest) -> Result<String> {
        let source = chat.template.as_ref().or(self.source.as_ref());
        source.ok_or_else(|| Error::invalid("chat_template", "the model has none"))?;
        let _ = &self.variables;
        Err(Error::internal("chat templates are not connected"))
    }

    pub(crate) fn encode(&self, chat: &ChatRequest) -> Result<Vec<u32>> {
        self.tokenizer.encode(&self.render(chat)?, true)
    }
}
