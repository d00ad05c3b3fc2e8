//! What jinja2 itself makes of templates: `generate_cases.py` wrote the expectations.

use alloyforge_template::ChatTemplate;
use serde_json::Value;

const NOW: &str = "2025-01-02T03:04:05";

#[test]
fn renders_as_jinja2_does() {
    let context: Value = serde_json::from_str(include_str!("data/context.json")).unwrap();
    let mut faults = Vec::new();
    for line in include_str!("data/cases.jsonl").lines() {
        let (template, expected): (String, Option<String>) = serde_json::from_str(line).unwrap();
        let got = ChatTemplate::compile(&template).and_then(|t| t.render(&context, Some(NOW)));
        match (&got, &expected) {
            (Ok(got), Some(expected)) if got == expected => {}
            (Err(_), None) => {}
            _ => faults.push(format!("{template:?}\n  got  {got:?}\n  want {expected:?}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn fault(template: &str) -> String {
    let rendered = ChatTemplate::compile(template).and_then(|t| t.render(&Value::Null, Some(NOW)));
    match rendered {
        Err(alloyforge_types::Error::InvalidRequest { name, fault }) => {
            assert_eq!(name, "chat_template");
            fault
        }
        other => panic!("{template}: {other:?}"),
    }
}

#[test]
fn faults_say_what_jinja2_says() {
    let cases = [
        ("{{ raise_exception('Only user and assistant roles!') }}", "Only user and assistant roles!"),
        ("{{ functions.x }}", "'functions' is undefined"),
        ("{{ {'a': 1}.b.c }}", "'dict object' has no attribute 'b'"),
        ("{{ none.b.c }}", "'None' has no attribute 'b'"),
        ("{{ [1][5].x }}", "list object has no element 5"),
        ("{{ 'a' + [1] }}", "can only concatenate str (not \"list\") to str"),
        ("{{ [].append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{{ ''.__class__.x }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ [1]|map('upper')|tojson }}", "Object of type generator is not JSON serializable"),
        ("{{ range(100001) }}", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."),
        ("{{ 1 }}\n{% foo %}", "line 2: encountered unknown tag 'foo'"),
        ("{% include 'x' %}", "no loader for this environment specified"),
    ];
    for (template, expected) in cases {
        assert_eq!(fault(template), expected, "{template}");
    }
}

#[test]
fn the_clock_is_the_callers() {
    let template = ChatTemplate::compile("{{ strftime_now('%Y-%m-%d %H:%M:%S.%f %z %j %V') }}").unwrap();
    let render = |now| template.render(&Value::Null, Some(now));
    assert_eq!(render("2024-12-30T23:59:58.25+02:00").unwrap(), "2024-12-30 23:59:58.250000 +0200 365 01");
    assert_eq!(render("2023-01-01").unwrap(), "2023-01-01 00:00:00.000000  001 52");
    for wrong in ["", "soon", "2024-13-01", "2023-02-29", "2024-01-01T25:00:00", "2024-01-01T00:00:00+x"] {
        let Err(alloyforge_types::Error::InvalidRequest { name, .. }) = render(wrong) else {
            panic!("{wrong:?} was taken for a time");
        };
        assert_eq!(name, "now");
    }
    // The system's clock, where none is given: at least it is in this century.
    assert!(template.render(&Value::Null, None).unwrap().starts_with("20"));
}

#[test]
fn one_template_serves_many_threads() {
    let template = ChatTemplate::compile(
        "{% set ns = namespace(n=0) %}{% for i in range(n) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    )
    .unwrap();
    std::thread::scope(|scope| {
        for n in 0..8_u64 {
            let template = &template;
            scope.spawn(move || {
                for _ in 0..50 {
                    let sum = template.render(&serde_json::json!({ "n": n }), None).unwrap();
                    assert_eq!(sum, (n * n.saturating_sub(1) / 2).to_string());
                }
            });
        }
    });
}
