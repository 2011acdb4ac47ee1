//! The templates of the tutorials, Go's corner cases, and what must never happen.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAX_TEMPLATE, Template};

fn data() -> Value {
    json!({
        "Id": "0123",
        "Name": "/web",
        "Names": "web.1.abc",
        "State": {"Pid": 42, "Running": true, "ExitCode": 0},
        "Config": {"Labels": {"x": "y", "com.example.a": "b"}, "Env": ["A=1", "B=2"]},
        "IPAM": {"Config": [{"Subnet": "10.0.1.0/24"}, {"Subnet": "fd00::/64"}]},
        "NetworkSettings": {"Networks": {
            "red": {"IPAddress": "10.0.2.3"}, "blue": {"IPAddress": "10.0.1.3"}}},
        "Empty": [],
        "Nil": null,
        "Real": 1.5,
    })
}

fn render(text: &str) -> String {
    match Template::parse(text).and_then(|template| template.render(&data())) {
        Ok(text) => text,
        Err(error) => format!("!{error}"),
    }
}

#[test]
fn templates_of_the_tutorials() {
    let table = [
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.1.310.0.2.3"),
        (
            "{{range .NetworkSettings.Networks}}{{println .IPAddress}}{{end}}",
            "10.0.1.3\n10.0.2.3\n",
        ),
        ("{{.NetworkSettings.Networks.blue.IPAddress}}", "10.0.1.3"),
        ("{{.Names}}", "web.1.abc"),
        ("{{.ID}} {{.Id}}", "0123 0123"),
        ("{{.State.Pid}}\\t{{.State.Running}}", "42\ttrue"),
        ("{{index .Config.Labels \"x\"}}", "y"),
        ("{{index .Config.Labels \"nope\"}}", ""),
        ("{{.Config.Labels.nope}}", "<no value>"),
        ("{{(index .IPAM.Config 0).Subnet}}", "10.0.1.0/24"),
        ("{{range .IPAM.Config}}{{.Subnet}} {{end}}", "10.0.1.0/24 fd00::/64 "),
        ("{{json .State}}", "{\"Pid\":42,\"Running\":true,\"ExitCode\":0}"),
        ("{{json .Name}}", "\"/web\""),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[com.example.a:b x:y]"),
        ("{{join .Config.Env \",\"}}", "A=1,B=2"),
        ("{{len .IPAM.Config}}", "2"),
        (
            "{{range $i, $c := .IPAM.Config}}{{$i}}={{$c.Subnet}};{{end}}",
            "0=10.0.1.0/24;1=fd00::/64;",
        ),
        (
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{$v.IPAddress}}\\n{{end}}",
            "blue 10.0.1.3\nred 10.0.2.3\n",
        ),
        ("{{with .State}}{{.Pid}}{{end}}", "42"),
        ("{{with .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
    ];
    for (template, expected) in table {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn conditions_pipelines_and_variables() {
    let table = [
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if eq .State.Pid 1}}a{{else if eq .State.Pid 42}}b{{else}}c{{end}}", "b"),
        ("{{if and .State.Running (gt .State.Pid 10)}}yes{{end}}", "yes"),
        ("{{if not .Empty}}empty{{end}}", "empty"),
        ("{{or .Empty .Name}}", "/web"),
        (
            "{{eq .State.Pid 1 2 42}} {{ne .Name \"x\"}} {{lt 1 2}} {{le 2 2}} {{ge 1 2}}",
            "true true true true false",
        ),
        ("{{$x := .State}}{{$x.Pid}}", "42"),
        ("{{$n := 0}}{{range .IPAM.Config}}{{$n = len .Subnet}}{{end}}{{$n}}", "9"),
        ("{{.Name | upper | printf \"%s!\"}}", "/WEB!"),
        (
            "{{printf \"%-6s|%5d|%05.1f|%q|%v|%t|%x\" \"ab\" 7 1.25 \"q\" .Empty true 255}}",
            "ab    |    7|001.2|\"q\"|[]|true|ff",
        ),
        ("{{printf \"%d\" .Name}}", "%!d(string=/web)"),
        ("{{title \"hello world\"}} {{lower \"ABC\"}}", "Hello World abc"),
        ("{{range split \"a:b\" \":\"}}<{{.}}>{{end}}", "<a><b>"),
        ("{{slice .Id 0 2}} {{truncate .Id 3}} {{pad .Id 1 2}}|", "01 012  0123  |"),
        ("a {{- \" b \" -}} c", "a b c"),
        ("{{/* note */}}x{{- /* trim */ -}} y", "xy"),
        ("{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{break}}{{end}}", "B=2"),
        ("{{$.Name}}{{with .State}}{{$.Id}}{{end}}", "/web0123"),
        ("{{`raw \\n`}}{{\"cooked\\n\"}}", "raw \\ncooked\n"),
        ("{{.Nil}}{{.Real}}{{print 1 2 \"x\" 3}}", "<no value>1.51 2x3"),
        ("{{.State | json}}", "{\"Pid\":42,\"Running\":true,\"ExitCode\":0}"),
    ];
    for (template, expected) in table {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn mistakes_are_named() {
    let table = [
        ("{{.Foo}}", "map has no entry for key \"Foo\""),
        ("{{.Name.Foo}}", "can't evaluate field Foo in type string"),
        ("{{.Nil.Foo}}", "nil pointer evaluating .Foo"),
        ("{{foo .Name}}", "template parsing error: template: :1: function \"foo\" not defined"),
        ("{{if .Name}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("x\n{{.Name", "template: :2: unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{\"x}}", "unterminated quoted string"),
        ("{{$x}}", "undefined variable: $x"),
        ("{{index .IPAM.Config 9}}", "out of range"),
        ("{{lt 1 \"a\"}}", "incompatible types"),
        ("{{.Name 1}}", "cannot be invoked as function"),
        ("{{range .State.Pid}}{{end}}", "range can't iterate over 42"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{.A | }}", "missing value for command"),
        ("{{(.A}}", "unexpected Close"),
    ];
    for (template, expected) in table {
        let found = render(template);
        assert!(found.starts_with('!') && found.contains(expected), "{template}: {found}");
    }
}

#[test]
fn limits_hold() {
    let nested = "{{with .State}}".repeat(2_000);
    assert!(render(&nested).contains("nested deeper"));
    assert!(render(&format!("{{{{{}1}}}}", "(".repeat(5_000))).contains("nested deeper"));
    assert!(render(&"x".repeat(MAX_TEMPLATE + 1)).contains("longer than"));
    let many = "{{range .A}}{{range $.A}}{{range $.A}}{{range $.A}}{{end}}{{end}}{{end}}{{end}}";
    let data = json!({"A": vec![1; 200]});
    let error = Template::parse(many).unwrap().render(&data).unwrap_err();
    assert!(error.to_string().contains("steps"), "{error}");
    let doubled = r#"{{$x := "a"}}"#.to_owned() + &"{{$x = print $x $x}}".repeat(40);
    assert!(render(&doubled).contains("bytes of values"));
    let joined = "{{$x := `a`}}".to_owned()
        + &"{{$x = print $x $x}}".repeat(17)
        + r#"{{join (split $x "") $x}}"#;
    assert!(render(&joined).contains("calling join: more than"));
    let split =
        "{{$x := `a`}}".to_owned() + &"{{$x = print $x $x}}".repeat(20) + r#"{{split $x ""}}"#;
    assert!(render(&split).contains("calling split: more than"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = render(&text);
    }

    #[test]
    fn no_soup_of_tokens_makes_it_panic(parts in proptest::collection::vec(
        prop::sample::select(vec![
            "{{", "}}", " ", "-", ".", ".Name", ".IPAM.Config", "$", "$x", ":=", "=", "|", "(", ")",
            ",", "if", "else", "end", "range", "with", "index", "len", "json", "printf", "\"%s%9d\"",
            "1", "-1", "1e9", "\"", "`", "'a'", "eq", "and", "slice", "join", "\\n", "é", "/*", "*/",
            "break", "truncate", "nil",
        ]), 0..40)) {
        let _ = render(&parts.concat());
        let _ = render(&format!("{{{{{}}}}}", parts.join(" ")));
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{}\\\\]{0,100}") {
        prop_assert_eq!(render(&text), text);
    }
}
