//! Conversations: what a turn says never depends on what is kept, and what is kept is found.

mod common;

use std::fs;

use alloyforge_engine::{Conversation, Engine, EngineOptions, Output, Request};
use alloyforge_types::Error;
use common::{HashLm, Rope, drawn, engine, essence, greedy, options};

fn model() -> HashLm {
    HashLm::new(&[None, Some(40)], Rope::Plain)
}

/// Without a prefix cache: only what conversations keep is found.
fn uncached() -> EngineOptions {
    EngineOptions { prefix_cache: false, ..options() }
}

fn turn(engine: &Engine, conversation: &Conversation, request: Request) -> Output {
    let request = Request { conversation: Some(conversation.id()), ..request };
    engine.submit(request).unwrap().wait().unwrap()
}

/// The request that goes on behind `before` and its answer.
fn going_on(before: &Request, answer: &Output, text: &str) -> Request {
    let mut next = before.clone();
    next.prompt.extend(&answer.choices[0].tokens);
    next.prompt.extend(text.bytes().map(u32::from));
    next
}

#[test]
fn a_turn_goes_on_from_the_one_before() {
    for options in [options(), uncached()] {
        let fresh = || engine(model(), &uncached());
        let engine = engine(model(), &options);
        let conversation = engine.conversation().unwrap();
        let mut request = drawn(&"how it began ".repeat(10), 30, 3);
        for round in 0..4 {
            let answer = turn(&engine, &conversation, request.clone());
            let want = fresh().submit(request.clone()).unwrap().wait().unwrap();
            assert_eq!(essence(&answer), essence(&want), "turn {round}");
            let known = if round == 0 { 0 } else { (request.prompt.len() - 20) / 32 * 32 };
            assert!(answer.usage.cached_tokens >= known, "turn {round}: {:?}", answer.usage);
            assert_eq!(engine.stats().kv_blocks_used, 0, "a conversation holds nothing live");
            request = going_on(&request, &answer, " and then?");
        }
        // without the prefix cache, others find nothing
        let other = engine.submit(request.clone()).unwrap().wait().unwrap();
        assert_eq!(other.usage.cached_tokens > 0, options.prefix_cache);
    }
}

#[test]
fn what_is_kept_outlives_what_others_leave_and_gives_way_to_what_they_need() {
    let few = EngineOptions { kv_memory: Some(16 * model().block_bytes()), ..options() };
    let engine = engine(model(), &few);
    let conversation = engine.conversation().unwrap();
    let request = greedy(&"k".repeat(130), 5);
    turn(&engine, &conversation, request.clone());
    // others come and go, more than there is room for, one after the other
    for i in 0..10u8 {
        engine.submit(greedy(&String::from_utf8(vec![b'a' + i; 130]).unwrap(), 5)).unwrap().wait().unwrap();
    }
    let again = turn(&engine, &conversation, request.clone());
    assert_eq!(again.usage.cached_tokens, 128);
    // one that needs everything gets it
    engine.submit(greedy(&"z".repeat(450), 5)).unwrap().wait().unwrap();
    let late = turn(&engine, &conversation, request);
    assert!(late.usage.cached_tokens < 128);
    assert_eq!(essence(&late), essence(&again));
}

#[test]
fn a_fork_shares_what_there_is_and_goes_its_own_way() {
    let engine = engine(model(), &uncached());
    let conversation = engine.conversation().unwrap();
    let request = drawn(&"the way ".repeat(20), 20, 1);
    let answer = turn(&engine, &conversation, request.clone());
    let fork = engine.fork(&conversation).unwrap();
    drop(conversation);
    let (left, right) = (going_on(&request, &answer, " left"), going_on(&request, &answer, " right"));
    let one = turn(&engine, &fork, left.clone());
    assert!(one.usage.cached_tokens >= 160, "{:?}", one.usage);
    let again = engine.fork(&fork).unwrap();
    let other = turn(&engine, &again, right.clone());
    assert!(other.usage.cached_tokens >= 160);
    for (request, got) in [(left, one), (right, other)] {
        let want = common::engine(model(), &uncached()).submit(request).unwrap().wait().unwrap();
        assert_eq!(essence(&want), essence(&got));
    }
}

#[test]
fn a_cancelled_turn_keeps_what_was_computed() {
    let mut slow = model();
    slow.row_time = std::time::Duration::from_millis(1);
    let engine = engine(slow, &uncached());
    let conversation = engine.conversation().unwrap();
    let request = Request { conversation: Some(conversation.id()), ..greedy(&"x".repeat(100), 300) };
    let handle = engine.submit(request.clone()).unwrap();
    handle.next(None).unwrap();
    handle.cancel();
    handle.wait().unwrap();
    let again = turn(&engine, &conversation, Request { max_tokens: Some(2), ..request });
    assert_eq!(again.usage.cached_tokens, 96);
}

#[test]
fn saved_and_restored_it_goes_on_with_its_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat");
    let request = drawn(&"once upon a time ".repeat(8), 30, 9);
    let (next, want) = {
        let engine = engine(model(), &uncached());
        let conversation = engine.conversation().unwrap();
        let answer = turn(&engine, &conversation, request.clone());
        engine.save(&conversation, &path, "[1]".into()).unwrap();
        let next = going_on(&request, &answer, " go on");
        let want = turn(&engine, &conversation, next.clone());
        (next, want)
    };
    for options in [uncached(), options()] {
        let engine = engine(model(), &options);
        let conversation = engine.conversation().unwrap();
        assert_eq!(engine.restore(&conversation, &path).unwrap(), "[1]");
        let got = turn(&engine, &conversation, next.clone());
        assert_eq!(essence(&got), essence(&want));
        assert_eq!(got.usage.cached_tokens, want.usage.cached_tokens);
        assert!(got.usage.cached_tokens >= 128);
        assert_eq!(engine.stats().kv_blocks_used, 0);
    }
    // where there is no room for all of it the rest is computed again
    let few = EngineOptions { kv_memory: Some(8 * model().block_bytes()), ..options() };
    let engine = engine(model(), &few);
    let conversation = engine.conversation().unwrap();
    engine.restore(&conversation, &path).unwrap();
    assert_eq!(essence(&turn(&engine, &conversation, next)), essence(&want));
}

#[test]
fn another_models_conversation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat");
    let saver = engine(model(), &options());
    let conversation = saver.conversation().unwrap();
    turn(&saver, &conversation, greedy(&"x".repeat(70), 5));
    saver.save(&conversation, &path, String::new()).unwrap();
    let other = engine(HashLm::new(&[None, Some(64)], Rope::Plain), &options());
    let mut doubtful = model();
    doubtful.wrong_in = 1;
    for other in [other, engine(doubtful, &options())] {
        let conversation = other.conversation().unwrap();
        match other.restore(&conversation, &path) {
            Err(Error::InvalidRequest { name, fault }) => {
                assert!(name == "path" && fault.contains("another model"), "{fault}");
            }
            result => panic!("{result:?}"),
        }
    }
    let missing = saver.restore(&conversation, &folder.path().join("nothing"));
    assert!(matches!(missing, Err(Error::Io { kind: std::io::ErrorKind::NotFound, .. })), "{missing:?}");
    fs::write(&path, b"not a conversation, but long enough to be read as one").unwrap();
    assert!(matches!(saver.restore(&conversation, &path), Err(Error::Format { .. })));
    saver.close();
    assert_eq!(saver.restore(&conversation, &path), Err(Error::Closed));
    assert!(matches!(saver.conversation(), Err(Error::Closed)));
}
