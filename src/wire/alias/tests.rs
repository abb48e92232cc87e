use super::*;
use crate::base::limits::{ALIAS_SOURCES_MAX, ALIAS_TEXT_BYTES_MAX, ROOMS_PER_REQUEST_MAX};
use crate::wire::socketio::{Packet, parse, values};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn alias(event: &str, request: &str, arguments: &str, fields: &str) -> DeclaredAlias {
    DeclaredAlias {
        event: event.into(),
        request: request.into(),
        arguments: arguments.into(),
        fields: fields.into(),
        ..DeclaredAlias::default()
    }
}

fn aliases(rows: &[DeclaredAlias]) -> Aliases {
    Aliases::new(rows, &[]).expect("well declared")
}

/// What `emit` of this array asks for: the event, and its data.
fn asked(aliases: &Aliases, emitted: &str) -> Result<(String, String), WireError> {
    let packet = format!("2{emitted}");
    let Ok(Packet::Event { event, arguments, .. }) = parse(&packet, 0) else { panic!("no event: {emitted}") };
    let request = aliases.request(&event, &arguments)?;
    json::check(request.data.as_bytes()).expect("JSON");
    let read: Vec<_> = request.data().fields().into_iter().flatten().map(|(_, value)| value).collect();
    let fields: Vec<_> = json::object(&request.data).into_iter().flatten().map(|(_, value)| value).collect();
    assert_eq!(read, fields, "the spans are those of the data");
    Ok((request.event.to_owned(), request.data.into_owned()))
}

fn data(aliases: &Aliases, emitted: &str) -> String {
    asked(aliases, emitted).expect(emitted).1
}

fn refused(aliases: &Aliases, emitted: &str) -> String {
    asked(aliases, emitted).expect_err(emitted).message.into_owned()
}

#[test]
fn without_a_row_an_event_is_what_it_is() {
    for aliases in [Aliases::default(), aliases(&[alias("a", "b", "c", "d = {c}")])] {
        for (emitted, data) in [
            (r#"["room:join"]"#, "{}"),
            (r#"["room:join",{ "room" : "a" }]"#, r#"{ "room" : "a" }"#),
            (r#"["room:join",{"room":"a"},2]"#, r#"{"room":"a"}"#),
            (r#"["room:join","a"]"#, r#""a""#),
        ] {
            assert_eq!(asked(&aliases, emitted), Ok(("room:join".to_owned(), data.to_owned())));
        }
        for emitted in [r#"[""]"#, r#"["a b"]"#, r#"["é"]"#, &format!("[{:?}]", "x".repeat(65))] {
            assert!(refused(&aliases, emitted).contains("an event is named by"), "{emitted}");
        }
    }
}

#[test]
fn what_is_emitted_bare_gets_a_name() {
    let aliases = aliases(&[
        alias("join", "room:join", "room", ""),
        alias("join:chat", "room:join", "chatId", "room = chat:{chatId}"),
        alias("subscribe", "room:join-many", "w, z", "rooms = [warehouse:{w}, zone:{w}:{z}]"),
    ]);
    let expected = |data: &str| Ok(("room:join".to_owned(), data.to_owned()));
    assert_eq!(asked(&aliases, r#"["join","r1"]"#), expected(r#"{"room":"r1"}"#));
    assert_eq!(asked(&aliases, r#"["join",{"room":"r1"}]"#), expected(r#"{"room":"r1"}"#));
    assert_eq!(asked(&aliases, r#"["join"]"#), expected("{}"));
    assert_eq!(asked(&aliases, r#"["join",{"a":1},2]"#), expected(r#"{"room":{"a":1}}"#));
    for emitted in [r#"["join:chat",7]"#, r#"["join:chat","7","more"]"#, r#"["join:chat",{"chatId":7}]"#] {
        assert_eq!(asked(&aliases, emitted), expected(r#"{"room":"chat:7"}"#), "{emitted}");
    }
    assert_eq!(data(&aliases, r#"["subscribe","a","b"]"#), r#"{"rooms":["warehouse:a","zone:a:b"]}"#);
    assert_eq!(data(&aliases, r#"["subscribe","a"]"#), r#"{"rooms":["warehouse:a"]}"#);
    assert_eq!(data(&aliases, r#"["subscribe","a",null]"#), r#"{"rooms":["warehouse:a"]}"#);
    assert_eq!(data(&aliases, r#"["subscribe",{"z":1,"w":2}]"#), r#"{"rooms":["warehouse:2","zone:2:1"]}"#);
    assert_eq!(data(&aliases, r#"["subscribe",null,1]"#), "{}");
}

#[test]
fn fields_are_made_of_others() {
    let aliases = aliases(&[
        alias("send_message", "room:publish", "", "data = {payload}, exclude_self = true, cid = \"7\", n = x y"),
        alias("chat:join-multiple", "room:join-many", "chatIds", "rooms = chat:{chatIds}"),
        alias("subscribe", "room:join-many", "", "rooms = {channels}"),
        alias("trim", "", "", "id = {room after chat:}"),
    ]);
    assert_eq!(
        asked(&aliases, r#"["send_message",{"event":"e","payload":{"a": [ 1e5 ]},"rooms":["r"],"cid":1}]"#),
        Ok((
            "room:publish".to_owned(),
            r#"{"event":"e","rooms":["r"],"data":{"a": [ 1e5 ]},"exclude_self":true,"cid":"7","n":"x y"}"#.to_owned()
        ))
    );
    assert_eq!(
        data(&aliases, r#"["chat:join-multiple",[1,"b c\"",3]]"#),
        r#"{"rooms":["chat:1","chat:b c\"","chat:3"]}"#
    );
    assert_eq!(data(&aliases, r#"["chat:join-multiple",[]]"#), r#"{"rooms":[]}"#);
    assert_eq!(data(&aliases, r#"["subscribe",{"channels":["a","b"]}]"#), r#"{"rooms":["a","b"]}"#);
    assert_eq!(data(&aliases, r#"["subscribe",{"rooms":["a"],"x\n":1}]"#), r#"{"x\n":1,"rooms":["a"]}"#);
    assert_eq!(data(&aliases, r#"["subscribe",["a"]]"#), r#"["a"]"#);
    assert_eq!(data(&aliases, r#"["trim",{"room":"chat:a"}]"#), r#"{"id":"a"}"#);
    assert_eq!(data(&aliases, r#"["trim",{"room":"other:a"}]"#), "{}");
}

#[test]
fn what_does_not_fit_is_told_to_the_client() {
    let aliases = aliases(&[alias("join", "room:join", "chatId", "rooms = [chat:{chatId}]")]);
    for value in ["{}", "true", "[[1]]", "[null]", "[true,1]", r#""\ud800""#] {
        let message = refused(&aliases, &format!(r#"["join",{{"chatId":{value}}}]"#));
        assert_eq!(message, "`chatId` must be a string or a number", "{value}");
    }
    let long = format!(r#"["join","{}"]"#, "x".repeat(ALIAS_TEXT_BYTES_MAX + 1));
    assert_eq!(refused(&aliases, &long), "`chatId` is too long");
    let list = |len: usize| format!(r#"["join",[{}]]"#, vec!["1"; len].join(","));
    assert_eq!(data(&aliases, &list(ROOMS_PER_REQUEST_MAX)).matches("chat:").count(), ROOMS_PER_REQUEST_MAX);
    for len in [ROOMS_PER_REQUEST_MAX + 1, 300_000] {
        let error = asked(&aliases, &list(len)).expect_err("too many");
        assert_eq!((error.code, error.limit), (ErrorCode::TooMany, Some(Limit::RoomsPerRequest)));
    }
}

#[test]
fn rows_that_say_nothing_sensible_are_refused_by_name() {
    let many: String = (0..=ALIAS_FIELDS_MAX).map(|nth| format!("f{nth} = 1,")).collect();
    let sources: String = (0..=ALIAS_SOURCES_MAX).map(|nth| format!("{{f{nth}}}")).collect();
    let items = vec!["a"; ALIAS_FIELDS_MAX + 1].join(",");
    let long = "x".repeat(ALIAS_TEXT_BYTES_MAX + 1);
    for (row, key, what) in [
        (alias("", "a", "", ""), "event", "no event that clients emit"),
        (alias("disconnect", "a", "", ""), "event", "no event that clients emit"),
        (alias("a", "b c", "", ""), "request", "`b c` is no request"),
        (alias("a b", "", "", ""), "request", "`a b` is no request"),
        (alias("a", "b", "a,,b", ""), "arguments", "`` is no name of a field"),
        (alias("a", "b", "a b", ""), "arguments", "`a b` is no name of a field"),
        (alias("a", "b", "", "room"), "fields", "`room` makes no field"),
        (alias("a", "b", "", "= 1"), "fields", "`` is no name of a field"),
        (alias("a", "b", "", "room ="), "fields", "made of nothing"),
        (alias("a", "b", "", "room = {a"), "fields", "no closing brace"),
        (alias("a", "b", "", "room = a}"), "fields", "without an opening one"),
        (alias("a", "b", "", "room = {}"), "fields", "`{}` is no field"),
        (alias("a", "b", "", "room = {a b}"), "fields", "`{a b}` is no field"),
        (alias("a", "b", "", "room = [a"), "fields", "no closing bracket"),
        (alias("a", "b", "", "room = [a, [b]]"), "fields", "bracket inside"),
        (alias("a", "b", "", "room = x[a]"), "fields", "bracket inside"),
        (alias("a", "b", "", "room = 1, room = 2"), "fields", "\"room\" is made twice"),
        (alias("a", "b", "", "x = {a}, y = [{a}]"), "fields", "`{a}` is copied twice"),
        (alias("a", "b", "", &many), "fields", "more than 16 fields are made"),
        (alias("a", "b", "", &format!("x = {sources}")), "fields", "more than 16 fields are named"),
        (alias("a", "b", "", &format!("x = [{items}]")), "fields", "more than 16 items"),
        (alias("a", "b", "", &format!("x = {long}")), "fields", "longer than 256 bytes"),
        (DeclaredAlias { reply_push: "connect".into(), ..alias("a", "b", "", "") }, "reply_push", "raise themselves"),
        (DeclaredAlias { reply_fields: "x".into(), ..alias("a", "b", "", "") }, "reply_fields", "makes no field"),
    ] {
        let wrong = Aliases::new(&[alias("fine", "a", "", ""), row.clone()], &[]).expect_err(&row.fields);
        assert_eq!((wrong[0].list, wrong[0].row, wrong[0].key), ("alias", 1, key), "{row:?}: {wrong:?}");
        assert!(wrong[0].what.contains(what), "{row:?}: {wrong:?}");
    }
    let push = |event: &str, name: &str, fields: &str| DeclaredPush {
        event: event.into(),
        name: name.into(),
        fields: fields.into(),
    };
    for (row, key) in
        [(push("", "a", ""), "event"), (push("a", "disconnect", ""), "name"), (push("a", "b", "x"), "fields")]
    {
        let wrong = Aliases::new(&[], &[row]).expect_err(key);
        assert_eq!((wrong[0].list, wrong[0].row, wrong[0].key), ("push", 0, key));
    }
    let twice = Aliases::new(&[alias("a", "b", "", ""), alias("a", "c", "", "")], &[]).expect_err("twice");
    assert!(twice[0].what.contains("has a row already"));
    let rows = |len: usize| -> Vec<_> { (0..len).map(|nth| alias(&format!("e{nth}"), "", "", "")).collect() };
    assert!(Aliases::new(&rows(ALIASES_MAX), &[]).is_ok());
    assert!(Aliases::new(&rows(ALIASES_MAX + 1), &[]).expect_err("too many")[0].what.contains("256 is the most"));
}

/// How a value stands in a text; `None`: it cannot.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A made field: nothing, something, or a complaint.
type Expected = Result<Option<Value>, ()>;

fn text(value: Option<&Value>, write: &dyn Fn(String) -> Value) -> Expected {
    match value.filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| word(item).map(write))
            .collect::<Option<Vec<_>>>()
            .map(|all| Some(all.into()))
            .ok_or(()),
        Some(value) => word(value).map(|word| Some(write(word))).ok_or(()),
    }
}

/// Fields, and the naive way to make them of a tree.
#[allow(clippy::type_complexity)]
const MADE: [(&str, &str, fn(&Map<String, Value>) -> Expected); 5] = [
    ("room", "chat:{a}", |tree| text(tree.get("a"), &|word| format!("chat:{word}").into())),
    ("b", "{c}", |tree| Ok(tree.get("c").filter(|value| !value.is_null()).cloned())),
    ("d", "[{e}:]", |tree| {
        Ok(text(tree.get("e"), &|word| format!("{word}:").into())?.and_then(|made| match made {
            Value::Array(items) if items.is_empty() => None,
            Value::Array(items) => Some(items.into()),
            one => Some(vec![one].into()),
        }))
    }),
    ("f", "true", |_| Ok(Some(true.into()))),
    ("a", "[1, x]", |_| Ok(Some(serde_json::json!([1, "x"])))),
];

proptest! {
    #[test]
    fn requests_are_mapped_as_trees_are(
        tree in proptest::collection::btree_map("[a-g]|room", prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            Just(Value::from(false)),
            proptest::collection::vec(
                prop_oneof![4 => any::<u8>().prop_map(Value::from), 1 => Just(Value::Null)], 0..4,
            ).prop_map(Value::from),
            Just(serde_json::json!({"x": [1]})),
        ], 0..9),
        picked in proptest::sample::subsequence(vec![0, 1, 2, 3, 4], 0..=5), is_spaced: bool,
    ) {
        let tree: Map<String, Value> = tree.into_iter().collect();
        let fields: Vec<String> = picked.iter().map(|nth| format!("{} = {}", MADE[*nth].0, MADE[*nth].1)).collect();
        let aliases = aliases(&[alias("e", "r", "", &fields.join(", "))]);
        let data = match is_spaced {
            true => serde_json::to_string_pretty(&tree),
            false => serde_json::to_string(&tree),
        };
        let asked = asked(&aliases, &format!(r#"["e",{}]"#, data.expect("a tree can be written")));
        let mut expected = tree.clone();
        for nth in &picked {
            for source in ["a", "c", "e"] {
                let is_used = MADE[*nth].1.contains(&format!("{{{source}}}"));
                if is_used && !picked.iter().any(|nth| MADE[*nth].0 == source) {
                    expected.remove(source);
                }
            }
        }
        let mut complains = false;
        for nth in &picked {
            match MADE[*nth].2(&tree) {
                Ok(Some(value)) => drop(expected.insert(MADE[*nth].0.into(), value)),
                Ok(None) => {}
                Err(()) => complains = true,
            }
        }
        match asked {
            Ok((_, data)) => {
                prop_assert!(!complains, "{}", data);
                prop_assert_eq!(serde_json::from_str::<Value>(&data).expect("JSON"), Value::from(expected));
            }
            Err(error) => prop_assert!(complains, "{:?}", error),
        }
    }

    #[test]
    fn no_row_makes_the_compiler_panic(
        event in "\\PC{0,4}|[a-c]", arguments in "[a-c, {}\\[\\]=\"]{0,12}",
        fields in "[a-c ,={}\\[\\]\"0-9é]{0,24}",
        emitted in values(),
    ) {
        let row = DeclaredAlias { reply_fields: fields.clone(), ..alias(&event, "r", &arguments, &fields) };
        let push = DeclaredPush { event: "a".into(), name: event.clone(), fields: fields.clone() };
        if let Ok(aliases) = Aliases::new(&[row], &[push]) {
            let emitted = Value::from(vec![Value::from(event), emitted]).to_string();
            let _ = asked(&aliases, &emitted);
        }
    }
}
