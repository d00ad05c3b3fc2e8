//! Templates that want to exhaust memory, time or the stack. The allocator counts, so that the bound
//! on memory is measured and not taken on trust.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use alloyforge_template::ChatTemplate;
use proptest::prelude::*;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most that a rendering may take, in bytes.
const MOST: usize = 64 << 20;

/// Renders within the bounds; the tests of this file run one after the other for that.
fn render(template: &str) -> Result<String, String> {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let context = serde_json::json!({"l": [3, 1, 2]});
    let rendered = ChatTemplate::compile(template).and_then(|t| t.render(&context, None));
    let peak = PEAK.load(Relaxed).saturating_sub(before);
    let head: String = template.chars().take(80).collect();
    assert!(peak < MOST, "{head}: {peak} bytes");
    rendered.map_err(|e| e.to_string())
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + inner + &close.repeat(depth)
}

/// `count` steps of `step` on a namespace that starts with `start`.
fn grown(start: &str, step: &str, count: usize, end: &str) -> String {
    format!(
        "{{% set ns = namespace(s={start}) %}}{{% for i in range({count}) %}}{{% set ns.s = {step} %}}{{% endfor %}}{end}"
    )
}

#[test]
fn hostile_templates_fail() {
    let mut templates: Vec<String> = [
        "{% macro x() %}{{ x() }}{% endmacro %}{{ x() }}",
        "{% macro f(a=f()) %}{% endmacro %}{{ f() }}",
        "{% macro a() %}{% call a() %}{% endcall %}{% endmacro %}{{ a() }}",
        "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% macro m(x) %}{% set y = x ~ x %}{{ m(y) }}{% endmacro %}{{ m('ab') }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(10) %}{% macro m() %}{% endmacro %}{% endfor %}{% endfor %}",
        "{{ '-' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ (1, 2) * 10**18 }}",
        "{{ 'a\n'|indent(1000000000, true) }}",
        "{{ ('a\n' * 10000)|indent(1000000) }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a'.center(10**18) }}",
        "{{ 'a'.ljust(10**18) }}",
        "{{ 'a'.zfill(10**18) }}",
        "{{ 'a\t'.expandtabs(10**18) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%.999999999f' % 1 }}",
        "{{ ('%1000000d' * 100) % ((1,) * 100) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 999999999) }}",
        "{{ ('{0:1000000}' * 100).format(1) }}",
        "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
        "{{ ('x' * 100000)|replace('', 'y' * 100000) }}",
        "{{ ('y' * 1000000).join('a' * 1000) }}",
        "{{ ('a' * 1000)|join('y' * 1000000) }}",
        "{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
        "{{ [[1]]|tojson(indent=1000000000) }}",
        "{{ ([1] * 100000)|tojson(separators=('x' * 1000000, 'y')) }}",
        "{{ [1]|batch(10**9, 'x')|list }}",
        "{{ [1]|slice(10**9, 'x')|list }}",
        "{{ strftime_now('%999999999Y') }}",
        "{{ strftime_now('%1000Y' * 100000) }}",
        "{{ 2 ** 1000000000 }}",
        "{{ 9**9**9**9 }}",
        "{{ [{}]|sort(attribute='a,' * 500000) }}",
        "{{ ('%s' * 100000) % (('x' * 1000,) * 100000) }}",
        "{% set s = 'ab' * 400000 %}{% for i in range(10000) %}{{ s.count('a') }}{% endfor %}",
        "{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{% set a = s[500000] %}{% endfor %}",
        "{% set s = 'x ' * 500000 %}{% for i in range(1000) %}{% set a = s.split() %}{% endfor %}",
        "{% set a = [1] * 100000 %}{% for i in range(100000) %}{% set b = a + a %}{% endfor %}",
        "{% set l = range(3000)|list %}{% for i in range(100000) %}{{ -1 in l }}{% endfor %}",
        "{{ "," {# "," {{ 'a"," {% raw %} x",
        // A name that is looked up in vain is kept for the message.
        "{% set s = 'x' * 1000000 %}{% set ns = namespace(l=[]) %}{% for i in range(10000) %}{% set ns.l = ns.l + [{}[s]] %}{% endfor %}",
    ]
    .map(String::from)
    .to_vec();
    templates.extend([
        nested("{% if true %}", "", "{% endif %}", 50_000),
        nested("{% for i in l %}\n", "", "{% endfor %}", 5_000),
        nested("{{ f(\n", "", ") }}", 5_000),
        format!("{{{{ {} }}}}", nested("(\n", "1", ")", 50_000)),
        format!("{{{{ {} }}}}", nested("[\n", "1", "]", 50_000)),
        format!("{{{{ {} }}}}", nested("{1:\n", "1", "}", 50_000)),
        format!("{{{{ {}1 }}}}", "-\n".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "not\n".repeat(50_000)),
        format!("{{{{ 1{} }}}}", "\n+1".repeat(50_000)),
        format!("{{{{ 1{} }}}}", "\nand 1".repeat(50_000)),
        format!("{{{{ 1{} }}}}", "\nif 1".repeat(50_000)),
        format!("{{{{ 1{} }}}}", "\nif 1 else 1".repeat(30_000)),
        format!("{{{{ x{} }}}}", "\n.a".repeat(50_000)),
        format!("{{{{ x{} }}}}", "\n|d".repeat(50_000)),
        format!("{{{{ x{} }}}}", "\n[0]".repeat(50_000)),
        format!("{{{{ x{} }}}}", "\n()".repeat(50_000)),
        format!("{{% set {} = 1 %}}", nested("(\n", "a", ")", 50_000)),
        "x\n".repeat(1 << 20),
        "x".repeat(1 << 18),
        "{#".repeat(100_000),
        "{{ '".repeat(100_000),
        "{% raw %}".repeat(50_000),
        grown("'x'", "ns.s + ns.s", 64, "{{ ns.s|length }}"),
        grown("'x'", "ns.s ~ ns.s", 64, "{{ ns.s|length }}"),
        grown("[1]", "ns.s + ns.s", 64, "{{ ns.s|length }}"),
        // Small to hold, endless to walk.
        grown("[1]", "[ns.s, ns.s]", 64, "{{ ns.s }}"),
        grown("[1]", "[ns.s, ns.s]", 64, "{{ ns.s|tojson }}"),
        grown("[1]", "[ns.s, ns.s]", 64, "{{ ns.s == [ns.s[0], [1]] }}"),
        grown("(1,)", "(ns.s, ns.s)", 64, "{{ {ns.s: 1} }}"),
        grown("(1,)", "(ns.s, ns.s)", 64, "{{ [ns.s]|unique|list }}"),
        grown("(1,)", "(ns.s, ns.s)", 64, "{{ ns.s < (ns.s[0], ()) }}"),
        // Deep to drop.
        grown("[1]", "[ns.s]", 100_000, "x"),
        grown("{}", "{'a': ns.s}", 100_000, "x"),
        grown("[1]", "ns.s|map('string')", 100_000, "x"),
        grown("[1]", "[ns.s, ns.s.copy]", 100_000, "x"),
        grown("[1]", "namespace(p=ns.s)", 100_000, "{{ ns.s }}"),
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}".to_owned(),
        "{% set ns = namespace() %}{% for i in range(100000) %}{% set p = ns.f %}{% macro m() %}{{ p() }}{% endmacro %}{% set ns.f = m %}{% endfor %}{{ ns.f() }}".to_owned(),
    ]);
    for template in &templates {
        let head: String = template.chars().take(80).collect();
        assert!(render(template).is_err(), "{head} rendered");
    }
    // What was held through cycles has been given back.
    let before = HELD.load(Relaxed);
    for _ in 0..100 {
        render("{% set ns = namespace() %}{% set ns.x = [ns] * 1000 %}{% macro m() %}{{ m }}{% endmacro %}")
            .unwrap();
    }
    let kept = HELD.load(Relaxed).saturating_sub(before);
    assert!(kept < 100_000, "{kept} bytes leaked");

    a_real_template_stays_far_from_the_bounds();
    random_templates_do_not_panic();
}

/// A long conversation is the caller's, not the template's: it must render.
fn a_real_template_stays_far_from_the_bounds() {
    let template = ChatTemplate::compile(
        "{% for m in messages %}{% if m.role == 'user' and m.content is string %}{{ '<|' + m.role + '|>' + m.content|trim }}{% else %}{{ '<|' ~ m['role'] ~ '|>' ~ m.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}{{ '\\n' }}{% endfor %}",
    )
    .unwrap();
    let messages: Vec<_> = (0..5000)
        .map(|i| {
            let role = if i % 2 == 0 { "user" } else { "assistant" };
            serde_json::json!({"role": role, "content": format!("message {i} ").repeat(60)})
        })
        .collect();
    let rendered = template.render(&serde_json::json!({ "messages": messages }), None).unwrap();
    assert!(rendered.len() > 3 << 20, "{}", rendered.len());
    let long = "word ".repeat(1 << 20);
    let messages = serde_json::json!({"messages": [{"role": "user", "content": long}]});
    assert!(template.render(&messages, None).unwrap().len() > 5 << 20);
}

fn random_templates_do_not_panic() {
    const PIECES: &[&str] = &[
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{%- ",
        " -%}",
        "{# ",
        " #}",
        "if ",
        "else",
        "elif ",
        "endif",
        "for ",
        " in ",
        "endfor",
        "set ",
        " = ",
        "endset",
        "macro ",
        "endmacro",
        "call ",
        "endcall",
        "raw",
        "endraw",
        "filter ",
        "endfilter",
        "with ",
        "endwith",
        "generation",
        "endgeneration",
        "block ",
        "endblock",
        "break",
        "continue",
        "l",
        "x",
        "y",
        "loop",
        "loop.index",
        "namespace()",
        "range(3)",
        "'a'",
        "\"é\"",
        "1",
        "2.5",
        "none",
        "true",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        ".",
        "|",
        "~",
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "**",
        "==",
        "<",
        " is ",
        " not ",
        " and ",
        " or ",
        "upper",
        "join",
        "tojson",
        "map",
        "select",
        "default",
        "length",
        "format",
        "[::-1]",
        "[1:]",
        "()",
        ".upper()",
        ".split()",
        ".items()",
        "\n",
        "  ",
        "é",
        "\\",
        "'",
        "%}",
        "{",
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let soup = prop::collection::vec(prop::sample::select(PIECES), 0..24);
    let tagged =
        prop::collection::vec(prop::collection::vec(prop::sample::select(&PIECES[33..]), 0..7), 0..4);
    runner
        .run(&(soup, tagged), |(soup, tagged)| {
            let _ = render(&soup.concat());
            let tagged: Vec<String> = tagged.iter().map(|t| format!("{{{{ {} }}}}", t.concat())).collect();
            let _ = render(&tagged.concat());
            Ok(())
        })
        .unwrap();
}
