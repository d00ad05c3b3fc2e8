//! Chats: messages to a prompt.

mod literal;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use alloyforge_interfaces::{MediaPrompts, Tokenizer};
use alloyforge_template::ChatTemplate;
use alloyforge_types::{Error, MediaKind, Result};
use serde_json::{Map, Value, json};

use literal::{Spellings, Substitutes};

/// A chat to be rendered.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    /// The messages, in OpenAI's form: a list of dictionaries.
    pub messages: Value,
    /// The tools, in OpenAI's form.
    pub tools: Option<Value>,
    /// A template's source in place of the model's own.
    pub template: Option<String>,
    /// Whether the template is asked to begin an answer; `None`: yes.
    pub add_generation_prompt: Option<bool>,
    /// Further variables for the template.
    pub variables: Map<String, Value>,
}

struct Template {
    compiled: ChatTemplate,
    /// Whether it knows that a message's content may be a list of parts.
    reads_parts: bool,
    source: String,
}

impl Template {
    fn compile(source: &str) -> Result<Self> {
        let signs = [
            "is string",
            "is not string",
            "is iterable",
            "is mapping",
            "type",
            "'text'",
            "\"text\"",
            ".text",
        ];
        let reads_parts = signs.iter().any(|sign| source.contains(sign));
        Ok(Self { compiled: ChatTemplate::compile(source)?, reads_parts, source: source.to_owned() })
    }

    /// Whether it takes `messages` as they are: it knows parts, and the place that each item in them
    /// stands in. One that was written for texts alone would leave items out, or fail.
    fn takes(&self, messages: &Value, media: Option<&dyn MediaPrompts>) -> bool {
        let knows = |kind: MediaKind| {
            let mut all = media.into_iter().flat_map(|m| m.placeholders(kind)).filter(|p| !p.is_empty());
            all.any(|placeholder| self.source.contains(placeholder.as_str()))
        };
        self.reads_parts && kinds(messages).all(knows)
    }
}

/// A model's way of writing a chat.
pub(crate) struct Chat {
    tokenizer: Arc<dyn Tokenizer>,
    /// The model's own template, or why it has none that works.
    template: Result<Template>,
    variables: Map<String, Value>,
    /// How special tokens are spelled; collected when first asked for.
    spellings: OnceLock<Spellings>,
    /// How prompts hold media, where the model takes any.
    media: Option<Arc<dyn MediaPrompts>>,
}

impl Chat {
    pub(crate) fn new(
        tokenizer: Arc<dyn Tokenizer>,
        source: Option<&str>,
        variables: Map<String, Value>,
        media: Option<Arc<dyn MediaPrompts>>,
    ) -> Self {
        let template = match source {
            Some(source) => Template::compile(source),
            None => Err(Error::invalid("chat_template", "the model has none")),
        };
        Self { tokenizer, template, variables, spellings: OnceLock::new(), media }
    }

    /// The text that the template gives.
    pub(crate) fn render(&self, chat: &ChatRequest) -> Result<String> {
        self.render_with(chat, |value| value)
    }

    /// The tokens of that text, of which only those are special that the template wrote.
    ///
    /// Before the template runs, every spelling of a special token in the messages and tools gives way
    /// to one character that nobody uses; afterwards it comes back, and where it stands is known. So
    /// the template sees all other text as it is, may trim, cut and repeat it, and the text is encoded
    /// as a whole. All a template cannot do is look for a special token in somebody's message.
    pub(crate) fn encode(&self, chat: &ChatRequest) -> Result<Vec<u32>> {
        let (text, literal) = self.text(chat)?;
        match literal.is_empty() {
            true => self.tokenizer.encode(&text, true),
            false => self.tokenizer.encode_around(&text, &literal),
        }
    }

    /// That text, and the ranges of it which spell special tokens or placeholders for media without
    /// meaning any.
    pub(crate) fn text(&self, chat: &ChatRequest) -> Result<(String, Vec<Range<usize>>)> {
        let spellings = self.spellings.get_or_init(|| Spellings::of(&*self.tokenizer, self.media.as_deref()));
        let given = [&chat.messages, chat.tools.as_ref().unwrap_or(&Value::Null)];
        let Some(substitutes) = Substitutes::for_spellings_in(spellings, &given)? else {
            return Ok((self.render(chat)?, Vec::new()));
        };
        let rendered = self.render_with(chat, |value| substitutes.put_into(value))?;
        Ok(substitutes.take_out_of(&rendered))
    }

    fn render_with(&self, chat: &ChatRequest, prepare: impl Fn(Value) -> Value) -> Result<String> {
        let own;
        let template = match &chat.template {
            Some(source) => {
                own = Template::compile(source)?;
                &own
            }
            None => self.template.as_ref().map_err(Clone::clone)?,
        };
        check_messages(&chat.messages)?;
        let mut context = self.variables.clone();
        let mut messages = prepare(chat.messages.clone());
        if !template.takes(&messages, self.media.as_deref()) {
            join_parts(&mut messages, self.media.as_deref());
        }
        context.insert("messages".into(), messages);
        context.insert("tools".into(), prepare(chat.tools.clone().unwrap_or(Value::Null)));
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), json!(chat.add_generation_prompt.unwrap_or(true)));
        context.extend(chat.variables.clone());
        template.compiled.render(&Value::Object(context), None)
    }
}

/// # Errors
/// `InvalidRequest` where `messages` is not what every template takes for granted.
fn check_messages(messages: &Value) -> Result<()> {
    let Some(list) = messages.as_array() else {
        return Err(Error::invalid("messages", "must be a list of messages"));
    };
    if list.is_empty() {
        return Err(Error::invalid("messages", "is empty"));
    }
    for (i, message) in list.iter().enumerate() {
        match message.get("role") {
            Some(Value::String(_)) => {}
            _ => return Err(Error::invalid(format!("messages[{i}]"), "must be a dictionary with a role")),
        }
    }
    Ok(())
}

/// The kinds of the media in `messages`.
fn kinds(messages: &Value) -> impl Iterator<Item = MediaKind> {
    let contents = messages.as_array().into_iter().flatten().filter_map(|m| m.get("content"));
    let parts = contents.filter_map(Value::as_array).flatten();
    parts.filter_map(|part| MediaKind::from_name(part.get("type")?.as_str()?))
}

/// Makes one text, a line a part, of contents that are lists of texts and media, for templates that
/// know no other; a placeholder stands for an item.
fn join_parts(messages: &mut Value, media: Option<&dyn MediaPrompts>) {
    let contents = messages.as_array_mut().into_iter().flatten().filter_map(|m| m.get_mut("content"));
    for content in contents {
        let text = |part: &Value| match part.get("type").and_then(Value::as_str)? {
            "text" => part.get("text").and_then(Value::as_str).map(str::to_owned),
            name => media?.placeholders(MediaKind::from_name(name)?).first().cloned(),
        };
        let Some(parts) = content.as_array() else { continue };
        if let Some(texts) = parts.iter().map(text).collect::<Option<Vec<String>>>() {
            *content = Value::String(texts.join("\n"));
        }
    }
}
