//! Pictures in requests: where they stand, what they share, whom they hold up.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloyforge_engine::{
    Engine, EngineOptions, MediaModel, PromptSource, Request, Session, SessionParts, media_item,
};
use alloyforge_interfaces::{Encoder, MediaPrompts};
use alloyforge_types::{
    Error, MediaItem, MediaKind, MediaPositions, MediaRows, MediaSpan, MediaTensor, PromptPiece, Result,
    SamplingParams,
};
use common::{ByteTokenizer, HashLm, Rope, options};

/// Makes as many rows as an item's only number says, each with that number.
#[derive(Default)]
struct Eye {
    looks: AtomicUsize,
    pause: Mutex<Duration>,
}

impl Encoder for Eye {
    fn encode(&self, item: &MediaItem) -> Result<MediaRows> {
        std::thread::sleep(*self.pause.lock().unwrap());
        self.looks.fetch_add(1, Ordering::Relaxed);
        let value = item.tensors[0].values[0];
        if value < 0.0 {
            return Err(Error::Media { item: "image".into(), fault: "is dark".into() });
        }
        let n = item.facts[0].1[0] as usize;
        let rows: Arc<[f32]> = (0..2 * n).map(|i| value + i as f32 / 100.0).collect();
        Ok(MediaRows { width: 2, rows, deeper: Vec::new() })
    }

    fn bytes(&self) -> u64 {
        0
    }
}

/// `#` becomes `[`, the rows, `]`.
struct Frame {
    marks: [Vec<String>; 2],
    two_way: usize,
}

impl MediaPrompts for Frame {
    fn placeholders(&self, kind: MediaKind) -> &[String] {
        &self.marks[usize::from(kind != MediaKind::Image)]
    }

    fn row_token(&self, _: MediaKind) -> &str {
        "*"
    }

    fn expand(&self, item: &MediaItem) -> Result<Vec<PromptPiece>> {
        let n = item.facts[0].1[0] as usize;
        Ok(vec![PromptPiece::Text("[".into()), PromptPiece::Rows(n), PromptPiece::Text("]".into())])
    }

    fn positions(&self, _: usize, _: &[MediaSpan], _: &[Arc<MediaItem>]) -> Result<Option<MediaPositions>> {
        Ok(None)
    }

    fn two_way_rows(&self) -> usize {
        self.two_way
    }
}

fn picture(value: f32, rows: usize) -> MediaItem {
    let tensor = MediaTensor { name: "pixels".into(), shape: vec![1], values: [value].into() };
    media_item(MediaKind::Image, vec![tensor], vec![("rows".into(), vec![rows as f64])])
}

fn session(eye: &Arc<Eye>, two_way: usize, options: EngineOptions) -> Session {
    let prompts = Frame { marks: [vec!["#".into()], Vec::new()], two_way };
    Session::new(SessionParts {
        model: Box::new(HashLm::new(&[None, Some(70)], Rope::Plain)),
        tokenizer: Arc::new(ByteTokenizer { panics: false }),
        chat_template: Some("{% for m in messages %}{{ m.content }}{% endfor %}".into()),
        template_variables: Default::default(),
        generation_config: None,
        parameters: 1,
        file_type: "f32".into(),
        draft: Default::default(),
        media: Some(MediaModel {
            prompts: Arc::new(prompts),
            encoder: Arc::clone(eye) as Arc<dyn Encoder>,
            processor: serde_json::Value::Null,
        }),
        options: EngineOptions { two_way_rows: two_way, ..options },
    })
    .unwrap()
}

fn ask(session: &Session, text: &str, items: Vec<MediaItem>) -> Result<alloyforge_engine::Handle> {
    let (prompt, media) = session.media_prompt(PromptSource::Text(text), items)?;
    session.submit(Request {
        prompt,
        media: Some(media),
        max_tokens: Some(12),
        ignore_eos: true,
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ..Request::default()
    })
}

fn answer(session: &Session, text: &str, items: Vec<MediaItem>) -> Vec<u32> {
    ask(session, text, items).unwrap().wait().unwrap().choices.remove(0).tokens
}

#[test]
fn rows_stand_between_the_text_around_them() {
    let session = session(&Arc::new(Eye::default()), 0, options());
    let bytes = |text: &str| session.tokenize(text, true, Some(false)).unwrap();
    let text = "ab#c#";
    let items = || vec![picture(1.0, 3), picture(2.0, 1)];
    let (tokens, media) = session.media_prompt(PromptSource::Text(text), items()).unwrap();
    let star = bytes("*")[0];
    let want = [bytes("ab["), vec![star; 3], bytes("]c["), vec![star], bytes("]")].concat();
    let bos = tokens.len() - want.len();
    assert_eq!(tokens[bos..], want);
    assert_eq!(media.num_rows(), 4);
    let (same, _) = session.media_prompt(PromptSource::Tokens(&bytes(text)), items()).unwrap();
    assert_eq!(same, want);
}

#[test]
fn a_count_that_does_not_match_is_told() {
    let session = session(&Arc::new(Eye::default()), 0, options());
    for (text, items) in [("no place", vec![picture(1.0, 1)]), ("##", vec![picture(1.0, 1)]), ("#", vec![])] {
        match session.media_prompt(PromptSource::Text(text), items) {
            Err(Error::InvalidRequest { name, .. }) => assert_eq!(name, "images"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let video = MediaItem { kind: MediaKind::Video, ..picture(1.0, 1) };
    assert!(matches!(
        session.media_prompt(PromptSource::Text("#"), vec![video]),
        Err(Error::InvalidRequest { name, .. }) if name == "videos"
    ));
}

#[test]
fn the_answer_depends_on_the_picture_however_it_is_computed() {
    let eye = Arc::new(Eye::default());
    let plain = session(&eye, 0, EngineOptions { prefix_cache: false, ..options() });
    let text = "what is in this picture, of all pictures? # tell me more";
    let want: Vec<_> = [1.0, 2.0, 1.0].map(|v| answer(&plain, text, vec![picture(v, 100)])).into();
    assert_eq!(want[0], want[2]);
    assert_ne!(want[0], want[1]);
    // one picture was known the second time
    assert_eq!(eye.looks.load(Ordering::Relaxed), 2);
    for options in [
        options(),
        EngineOptions { max_rows: 17, max_batch: 2, ..options() },
        EngineOptions { max_batch: 1, max_rows: 64, ..options() },
    ] {
        let session = session(&eye, 0, options);
        for (v, want) in [1.0, 2.0, 1.0].into_iter().zip(&want) {
            assert_eq!(answer(&session, text, vec![picture(v, 100)]), *want);
        }
        // the third is the first again, whose blocks were kept
        assert!(session.stats().prefix_hit_tokens >= 100);
    }
}

#[test]
fn two_way_rows_are_computed_in_one_step() {
    // the model fails where a step's rows attend past its end
    let eye = Arc::new(Eye::default());
    let options = EngineOptions { max_rows: 64, max_batch: 8, ..options() };
    let session = session(&eye, 40, options);
    let text = "some text in front of it # and # behind";
    let first = answer(&session, text, vec![picture(1.0, 40), picture(2.0, 40)]);
    let company: Vec<_> =
        (0..6).map(|i| ask(&session, text, vec![picture(i as f32, 40), picture(2.0, 40)]).unwrap()).collect();
    let tokens: Vec<_> = company.iter().map(|h| h.wait().unwrap().choices.remove(0).tokens).collect();
    assert_eq!(tokens[1], first);
    assert_ne!(tokens[2], first);
}

#[test]
fn text_goes_on_while_a_picture_is_encoded() {
    let eye = Arc::new(Eye::default());
    *eye.pause.lock().unwrap() = Duration::from_secs(3600);
    let session = session(&eye, 0, options());
    let seeing = ask(&session, "#", vec![picture(1.0, 3)]).unwrap();
    let reading = session
        .submit(Request { prompt: vec![5, 6], max_tokens: Some(4), ignore_eos: true, ..Request::default() })
        .unwrap();
    assert_eq!(reading.wait().unwrap().choices[0].tokens.len(), 4);
    assert!(seeing.try_next().is_none());
    assert_eq!(session.stats().waiting, 1);
    // the desk's thread sleeps on by itself
    std::mem::forget(session);
}

#[test]
fn a_picture_that_fails_fails_its_request_alone() {
    let session = session(&Arc::new(Eye::default()), 0, options());
    let bad = ask(&session, "#", vec![picture(-1.0, 3)]).unwrap();
    assert!(matches!(bad.wait(), Err(Error::Media { .. })));
    assert_eq!(answer(&session, "#", vec![picture(1.0, 3)]).len(), 12);
    assert_eq!(session.stats().waiting, 0);
}

#[test]
fn a_request_cancelled_meanwhile_ends() {
    let eye = Arc::new(Eye::default());
    *eye.pause.lock().unwrap() = Duration::from_millis(50);
    let session = session(&eye, 0, options());
    let handle = ask(&session, "#", vec![picture(1.0, 3)]).unwrap();
    handle.cancel();
    let output = handle.wait().unwrap();
    assert_eq!(output.choices[0].finish_reason, alloyforge_engine::FinishReason::Cancelled);
    assert!(output.choices[0].tokens.is_empty());
}

#[test]
fn an_engine_without_an_encoder_takes_no_media() {
    let eye = Arc::new(Eye::default());
    let session = session(&eye, 0, options());
    let (prompt, media) = session.media_prompt(PromptSource::Text("#"), vec![picture(1.0, 3)]).unwrap();
    let engine = Engine::start(
        Box::new(HashLm::new(&[None], Rope::Plain)),
        Arc::new(ByteTokenizer { panics: false }),
        &options(),
    )
    .unwrap();
    let refused = engine.submit(Request { prompt, media: Some(media), ..Request::default() });
    assert!(matches!(refused.err(), Some(Error::InvalidRequest { .. })));
}

#[test]
fn placeholders_that_a_user_writes_stay_text() {
    let session = session(&Arc::new(Eye::default()), 0, options());
    let chat = |content: serde_json::Value| alloyforge_engine::ChatRequest {
        messages: serde_json::json!([{"role": "user", "content": content}]),
        ..Default::default()
    };
    let parts = serde_json::json!([{"type": "text", "text": "a # b"}, {"type": "image"}]);
    let (tokens, media) =
        session.media_prompt(PromptSource::Chat(&chat(parts)), vec![picture(1.0, 2)]).unwrap();
    let bytes = |text: &str| session.tokenize(text, true, Some(false)).unwrap();
    assert_eq!(tokens, [bytes("a # b\n["), vec![bytes("*")[0]; 2], bytes("]")].concat());
    assert_eq!(media.num_rows(), 2);
}
