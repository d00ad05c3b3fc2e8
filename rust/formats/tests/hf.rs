//! Model folders.

mod common;

use std::path::Path;

use alloyforge_formats::hf::HfFolder;
use alloyforge_interfaces::TensorStore;
use alloyforge_types::Error;
use common::{format_error, put, safetensors};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "config.json", r#"{"model_type":"llama"}"#);
    for (name, text) in files {
        put(dir.path(), name, text);
    }
    dir
}

fn template(files: &[(&str, &str)]) -> Result<Option<String>, Error> {
    HfFolder::open(folder(files).path()).map(|f| f.chat_template)
}

#[test]
fn files_are_found() {
    let dir = folder(&[
        ("generation_config.json", r#"{"eos_token_id":[1,2]}"#),
        ("tokenizer_config.json", r#"{"bos_token":"<s>"}"#),
        ("tokenizer.json", "{}"),
    ]);
    put(dir.path(), "model.safetensors", safetensors("{}", &[]));
    let hf = HfFolder::open(dir.path()).unwrap();
    assert_eq!(hf.config["model_type"], "llama");
    assert_eq!(hf.generation_config.as_ref().unwrap()["eos_token_id"][1], 2);
    assert_eq!(hf.tokenizer_config.as_ref().unwrap()["bos_token"], "<s>");
    assert_eq!(hf.tokenizer_json.as_deref(), Some(&*dir.path().join("tokenizer.json")));
    assert_eq!(hf.config_path(), dir.path().join("config.json"));
    assert_eq!(hf.chat_template, None);
    assert_eq!(hf.weights().unwrap().names(), [""; 0]);
}

#[test]
fn only_config_is_needed() {
    let dir = folder(&[]);
    let hf = HfFolder::open(dir.path()).unwrap();
    assert_eq!((hf.generation_config, hf.tokenizer_config, hf.tokenizer_json), (None, None, None));
}

#[test]
fn chat_templates_are_taken_in_order() {
    let jinja = ("chat_template.jinja", "J\n");
    let single = ("tokenizer_config.json", r#"{"chat_template":"T"}"#);
    let named = (
        "tokenizer_config.json",
        r#"{"chat_template":[{"name":"rag","template":"R"},{"name":"default","template":"D"}]}"#,
    );
    let none = ("tokenizer_config.json", r#"{"chat_template":null}"#);
    let processor = ("chat_template.json", r#"{"chat_template":"P"}"#);
    assert_eq!(template(&[jinja, single, processor]).unwrap().as_deref(), Some("J\n"));
    assert_eq!(template(&[single, processor]).unwrap().as_deref(), Some("T"));
    assert_eq!(template(&[named]).unwrap().as_deref(), Some("D"));
    assert_eq!(template(&[none, processor]).unwrap().as_deref(), Some("P"));
    assert_eq!(template(&[none]).unwrap(), None);
}

/// A file of the folder, its text, and what the error must say.
#[test]
fn faults_name_the_file() {
    let deep = "[".repeat(1000);
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(8 << 20));
    // Four bytes of text that take some three hundred once parsed.
    let wide = format!("{{\"a\":[{}0]}}", "[0],".repeat(1 << 20));
    let cases = [
        ("config.json", "{\n\"a\": ,}", "expected value"),
        ("config.json", "[]", "is not an object"),
        ("config.json", &deep, "recursion limit"),
        ("config.json", &long, "over 8388608 bytes"),
        ("generation_config.json", &wide, "48 MiB of memory"),
        ("generation_config.json", "", "EOF"),
        ("tokenizer_config.json", "{\"a\":\"\u{0}\"}", "control character"),
        ("tokenizer_config.json", r#"{"chat_template":1}"#, "neither a string nor a list"),
        ("tokenizer_config.json", r#"{"chat_template":[{"name":"default"}]}"#, "lacks its name"),
        ("chat_template.json", "null", "is not an object"),
    ];
    for (name, text, want) in cases {
        let error = HfFolder::open(folder(&[(name, text)]).path()).unwrap_err();
        let (file, _, fault, _) = format_error(&error);
        assert!(file.ends_with(name) && fault.contains(want), "{error} lacks {want:?}");
    }
    let dir = folder(&[]);
    put(dir.path(), "chat_template.jinja", [b'a', 0xff]);
    let error = HfFolder::open(dir.path()).unwrap_err();
    assert_eq!(format_error(&error).3, Some(1));
}

#[test]
fn json_faults_give_their_place() {
    let error = HfFolder::open(folder(&[("config.json", "{\n\"a\": ,}")]).path()).unwrap_err();
    // The comma, the eighth byte from the start.
    assert_eq!(format_error(&error).3, Some(8));
}

#[test]
fn missing_files_are_io_errors() {
    let dir = tempfile::tempdir().unwrap();
    let missing = |r: Result<(), Error>, name: &str| match r.unwrap_err() {
        Error::Io { path, kind, .. } => {
            assert_eq!(kind, std::io::ErrorKind::NotFound);
            assert!(path.ends_with(name), "{}", path.display());
        }
        other => panic!("{other:?}"),
    };
    missing(HfFolder::open(dir.path()).map(drop), "config.json");
    missing(HfFolder::open(Path::new("/nowhere/at all")).map(drop), "config.json");
    missing(HfFolder::open(folder(&[]).path()).unwrap().weights().map(drop), "model.safetensors");
}
