//! The walls of the house: a file names its own floor and lower ones only, and floors 0 to 5 know
//! no clock, lock, global, thread, `async` or system call.
//!
//! Works on tokens, so comments and strings are out of the way, and what stands inside macros is
//! seen like any other code. Imports are resolved: grouped, renamed, relative and inline ones.
//! Known gap: a path that a macro glues together from pieces is not seen.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Folders (or files) right below `src/` and their floors.
const FLOORS: [(&str, u8); 14] = [
    ("base", 0),
    ("wire", 1),
    ("admission", 2),
    ("kernel", 3),
    ("features", 4),
    ("shard", 5),
    ("io", 6),
    ("adapters", 7),
    ("observe", 7),
    ("api", 7),
    ("host", 8),
    ("cli", 9),
    ("main", 9),
    ("lib", 9),
];
/// Beside the floors: they use floors 0 to 5, and only the command line uses them.
const BESIDE: [&str; 3] = ["sim", "load", "tune"];
/// Those of them whose work is the system itself.
const BESIDE_IMPURE: [&str; 2] = ["load", "tune"];
const PURE_FLOOR_MAX: u8 = 5;
const TOP_FLOOR: u8 = 9;

/// What floors 0 to 5 must not name, and why. A path here covers all that begins with it.
const IMPURE: [(&str, &str); 33] = [
    ("std::time::Instant", "a clock"),
    ("std::time::SystemTime", "a clock"),
    ("std::time::UNIX_EPOCH", "a clock"),
    ("quanta", "a clock"),
    ("std::sync::Mutex", "a lock"),
    ("std::sync::RwLock", "a lock"),
    ("std::sync::ReentrantLock", "a lock"),
    ("std::sync::Condvar", "a lock"),
    ("std::sync::Barrier", "a lock"),
    ("std::sync::Once", "a lock"),
    ("std::sync::OnceLock", "a lock"),
    ("std::sync::LazyLock", "a lock"),
    ("std::sync::mpsc", "a lock"),
    ("std::sync::mpmc", "a lock"),
    ("std::sync::nonpoison", "a lock"),
    ("std::sync::poison", "a lock"),
    ("flume", "a lock"),
    ("std::thread", "a thread"),
    ("std::task", "async"),
    ("std::future", "async"),
    ("tokio", "async"),
    ("axum", "async"),
    ("monoio", "async"),
    ("libc", "a system call"),
    ("socket2", "a system call"),
    ("std::fs", "a system call"),
    ("std::process", "a system call"),
    ("std::env", "a system call"),
    ("std::os", "a system call"),
    ("std::io::stdin", "a system call"),
    ("std::io::stdout", "a system call"),
    ("std::io::stderr", "a system call"),
    ("aws_lc_rs::rand", "a system call"),
];
const IMPURE_SOCKETS: [&str; 5] = ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs", "Incoming"];
/// Seeded by the system, so that a replay would differ.
const IMPURE_RANDOM: [&str; 6] = [
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
    "std::collections::HashMap::new",
    "std::collections::HashSet::new",
    "std::collections::HashMap::with_capacity",
    "std::collections::HashSet::with_capacity",
];
const IMPURE_MACROS: [&str; 6] = ["thread_local", "print", "println", "eprint", "eprintln", "dbg"];
const IO_ALONE: [&str; 3] = ["monoio", "flume", "quanta"];

#[test]
fn every_file_keeps_to_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(files.len() >= FLOORS.len(), "only {} files found below src", files.len());
    let mut broken = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).expect("the walk began there").to_path_buf();
        let source = std::fs::read_to_string(&file).expect("sources are readable UTF-8");
        broken.extend(violations(&path, &source));
    }
    assert!(broken.is_empty(), "{} broken walls:\n{}", broken.len(), broken.join("\n"));
}

/// The picture of who imports whom in `ARCHITECTURE.md` is what the code says.
#[test]
fn the_map_shows_the_walls_as_they_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = picture(&root.join("src"));
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the map is there");
    assert!(map.contains(&picture), "ARCHITECTURE.md shows other walls; they stand like this:\n\n{picture}");
}

/// A row for each folder, top floor first, with an `x` for each folder that its product code names.
fn picture(src: &Path) -> String {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in rust_files(src) {
        let here = module_of(file.strip_prefix(src).expect("the walk began there"));
        let top = here.first().cloned().unwrap_or_else(|| "lib".into());
        let source = std::fs::read_to_string(&file).expect("sources are readable UTF-8");
        let tokens: Vec<TokenTree> = source.parse::<TokenStream>().expect("sources lex").into_iter().collect();
        let row = imports.entry(top.clone()).or_default();
        for named in Reading::of(&without_tests(&tokens), &here).paths {
            if let Named::Inside { path, .. } = named
                && let Some(target) = path.first().filter(|target| **target != top)
            {
                row.insert(target.clone());
            }
        }
    }
    imports.remove("lib");
    imports.remove("main");
    let mut folders: Vec<&String> = imports.keys().collect();
    folders
        .sort_by_key(|folder| (BESIDE.contains(&folder.as_str()), std::cmp::Reverse(floor_of(folder)), folder.len()));
    let mut lines = vec![format!("{:14}{}", "", folders.iter().map(|to| format!("{to:>10}")).collect::<String>())];
    for from in &folders {
        let floor = if BESIDE.contains(&from.as_str()) { "-".into() } else { floor_of(from).unwrap_or(0).to_string() };
        let mark = |to: &&String| if imports[*from].contains(*to) { "x" } else { "." };
        let marks: String = folders.iter().map(|to| format!("{:>10}", mark(to))).collect();
        lines.push(format!("{floor} {from:12}{marks}"));
    }
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("source folders are readable") {
            let path = entry.expect("source folders are readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What the file at `path` below `src/` breaks, one line each.
fn violations(path: &Path, source: &str) -> Vec<String> {
    let here = module_of(path);
    let top = here.first().map_or("lib", String::as_str);
    let tokens: Vec<TokenTree> = match source.parse::<TokenStream>() {
        Ok(tokens) => tokens.into_iter().collect(),
        Err(error) => return vec![format!("{}: does not lex: {error}", path.display())],
    };
    let Some(floor) = floor_of(top) else {
        return vec![format!("{}: {top} has no floor; give it one in tests/floors.rs", path.display())];
    };
    let mut found = Vec::new();
    let whole = Reading::of(&tokens, &here);
    for named in &whole.paths {
        found.extend(upward(top, floor, named));
        if let Some(krate) = named.outside().filter(|path| IO_ALONE.contains(&path[0].as_str()))
            && top != "io"
        {
            found.push(format!("names {}, which only io may", krate[0]));
        }
    }
    if whole.words.iter().any(|word| word == "unsafe") && !["base", "io"].contains(&top) {
        found.push("holds unsafe code, which only base and io may".into());
    }
    if floor <= PURE_FLOOR_MAX && !BESIDE_IMPURE.contains(&top) {
        found.extend(whole.tricks);
        if path.file_stem().is_none_or(|stem| stem != "tests") {
            let product = Reading::of(&without_tests(&tokens), &here);
            found.extend(product.paths.iter().filter_map(impure));
            found.extend(product.globals);
            let keyword = |word: &&String| ["async", "await"].contains(&word.as_str());
            found.extend(product.words.iter().filter(keyword).map(|word| format!("says {word}")));
            let macros = product.macros.iter().filter(|name| IMPURE_MACROS.contains(&name.as_str()));
            found.extend(macros.map(|name| format!("calls {name}!")));
        }
    }
    found.sort();
    found.dedup();
    found.into_iter().map(|what| format!("{}: {what}", path.display())).collect()
}

/// `kernel/outbox.rs` is `kernel::outbox`, `kernel/mod.rs` is `kernel`, `lib.rs` is the root.
fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn floor_of(top: &str) -> Option<u8> {
    // What stands beside the floors looks down at the pure ones only.
    let beside = BESIDE.contains(&top).then_some(PURE_FLOOR_MAX);
    FLOORS.iter().find(|(name, _)| *name == top).map(|(_, floor)| *floor).or(beside)
}

fn upward(top: &str, floor: u8, named: &Named) -> Option<String> {
    let Named::Inside { path, glob } = named else { return None };
    let Some(target) = path.first() else {
        return (*glob && floor < TOP_FLOOR).then(|| "imports the whole crate by a glob".into());
    };
    if floor == TOP_FLOOR || target == top {
        return None;
    }
    if BESIDE.contains(&target.as_str()) {
        return Some(format!("reaches {}, beside the floors", path.join("::")));
    }
    match floor_of(target) {
        Some(below) if below <= floor => None,
        Some(above) => Some(format!("on floor {floor} reaches up to {} on floor {above}", path.join("::"))),
        None => Some(format!("names {}, which has no floor", path.join("::"))),
    }
}

fn impure(named: &Named) -> Option<String> {
    let mut path = named.outside()?.to_vec();
    if path[0] == "core" || path[0] == "alloc" {
        path[0] = "std".into();
    }
    let glob = matches!(named, Named::Outside { glob: true, .. });
    let covers = |forbidden: &str| {
        let forbidden: Vec<&str> = forbidden.split("::").collect();
        let shorter = forbidden.len().min(path.len());
        // A glob brings in what lies below it; a plain path must be there or deeper.
        let deep_enough = glob || path.len() >= forbidden.len();
        deep_enough && path[..shorter].iter().zip(&forbidden).all(|(a, b)| a == b)
    };
    let sockets = IMPURE_SOCKETS.map(|name| format!("std::net::{name}"));
    let why = IMPURE.iter().find(|(forbidden, _)| covers(forbidden)).map(|(_, why)| *why);
    let why = why.or_else(|| sockets.iter().any(|socket| covers(socket)).then_some("a system call"));
    let why = why.or_else(|| IMPURE_RANDOM.iter().any(|random| covers(random)).then_some("randomness"));
    why.map(|why| format!("names {}: {why}", path.join("::")))
}

/// A path as code names it, resolved.
#[derive(Clone, Debug)]
enum Named {
    /// In this crate, from its root.
    Inside { path: Vec<String>, glob: bool },
    /// In another crate, its name first; never empty.
    Outside { path: Vec<String>, glob: bool },
}

impl Named {
    fn outside(&self) -> Option<&[String]> {
        match self {
            Named::Outside { path, .. } => Some(path),
            Named::Inside { .. } => None,
        }
    }

    fn joined(&self, rest: &[String]) -> Named {
        let mut longer = self.clone();
        let (Named::Inside { path, .. } | Named::Outside { path, .. }) = &mut longer;
        path.extend_from_slice(rest);
        longer
    }
}

/// Everything of interest in a file's tokens.
#[derive(Default)]
struct Reading {
    paths: Vec<Named>,
    words: Vec<String>,
    macros: Vec<String>,
    globals: Vec<String>,
    /// Ways around this test.
    tricks: Vec<String>,
    /// What imports call a path here. One table for the file: scopes are not told apart.
    aliases: HashMap<String, Named>,
    /// Paths in code, resolved once all aliases are known: the module they stand in, and they.
    inline: Vec<(Vec<String>, Vec<String>)>,
}

impl Reading {
    fn of(tokens: &[TokenTree], here: &[String]) -> Reading {
        let mut reading = Reading::default();
        reading.read(tokens, here);
        for (module, path) in std::mem::take(&mut reading.inline) {
            let named = match reading.aliases.get(&path[0]) {
                Some(alias) => alias.joined(&path[1..]),
                None => resolved(&module, &path, false),
            };
            reading.paths.push(named);
        }
        reading
    }

    fn read(&mut self, tokens: &[TokenTree], here: &[String]) {
        let mut at = 0;
        while at < tokens.len() {
            let word = word_at(tokens, at).unwrap_or_default();
            if !word.is_empty() {
                self.words.push(word.clone());
            }
            match word.as_str() {
                // Not `impl Trait + use<'a>`.
                "use" if !is_punct(tokens, at + 1, '<') => {
                    let end = end_of_statement(tokens, at);
                    self.import(&tokens[at + 1..end], here, &[]);
                    at = end;
                    continue;
                }
                "mod" if brace_at(tokens, at + 2).is_some() => {
                    let name = word_at(tokens, at + 1).unwrap_or_default();
                    let inner = [here, &[name]].concat();
                    self.read(&brace_at(tokens, at + 2).unwrap_or_default(), &inner);
                    at += 3;
                    continue;
                }
                "static" if !is_punct(tokens, at.wrapping_sub(1), '\'') => {
                    if let Some(global) = mutable_global(tokens, at) {
                        self.globals.push(global);
                    }
                }
                "extern" if word_at(tokens, at + 1).as_deref() == Some("crate") => {
                    self.tricks.push("says extern crate, which hides what it names".into());
                }
                "include" if is_punct(tokens, at + 1, '!') => {
                    self.tricks.push("includes source by hand, which hides where it belongs".into());
                }
                _ => {}
            }
            if is_punct(tokens, at + 1, '!') && !word.is_empty() && !is_punct(tokens, at + 2, '=') {
                self.macros.push(word.clone());
            }
            if is_punct(tokens, at, '#')
                && let Some(TokenTree::Group(attribute)) = tokens.get(at + 1)
                && attribute.stream().to_string().starts_with("path =")
            {
                self.tricks.push("places a module by #[path], which hides where it belongs".into());
            }
            if !word.is_empty() && is_separator(tokens, at + 1) {
                let (path, end) = path_at(tokens, at);
                self.inline.push((here.to_vec(), path));
                at = end;
                continue;
            }
            if let Some(TokenTree::Group(group)) = tokens.get(at) {
                self.read(&group.stream().into_iter().collect::<Vec<_>>(), here);
            }
            at += 1;
        }
    }

    /// One tree of a `use`, below `prefix`.
    fn import(&mut self, tokens: &[TokenTree], here: &[String], prefix: &[String]) {
        let mut path = prefix.to_vec();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(word) if word == "as" => {
                    return self.leaf(here, &path, word_at(tokens, at + 1));
                }
                TokenTree::Ident(word) => path.push(plain(&word.to_string())),
                TokenTree::Punct(mark) if mark.as_char() == '*' => {
                    return self.paths.push(resolved(here, &path, true));
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in inner.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',')) {
                        self.import(tree, here, &path);
                    }
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
        if path.len() > prefix.len() {
            let name = path.iter().rev().find(|part| *part != "self").cloned();
            self.leaf(here, &path, name);
        }
    }

    fn leaf(&mut self, here: &[String], path: &[String], name: Option<String>) {
        let mut path = path.to_vec();
        // `{self}` at the end names what stands before the braces.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let named = match self.aliases.get(&path[0]) {
            Some(alias) => alias.joined(&path[1..]),
            None => resolved(here, &path, false),
        };
        self.paths.push(named.clone());
        if let Some(name) = name.filter(|name| !["crate", "super", "self", "_"].contains(&name.as_str())) {
            self.aliases.insert(name, named);
        }
    }
}

/// `path` as seen from the module `here`, from the root of this crate or of another.
fn resolved(here: &[String], path: &[String], glob: bool) -> Named {
    let mut base = match path.first().map(String::as_str) {
        Some("crate" | "ringroom") => Vec::new(),
        Some("self" | "super") => here.to_vec(),
        _ => return Named::Outside { path: path.to_vec(), glob },
    };
    for part in path {
        match part.as_str() {
            "crate" | "ringroom" | "self" => {}
            "super" => {
                base.pop();
            }
            name => base.push(name.into()),
        }
    }
    Named::Inside { path: base, glob }
}

/// The words of the path that begins at `at`, and where it ends.
fn path_at(tokens: &[TokenTree], at: usize) -> (Vec<String>, usize) {
    let mut path = vec![word_at(tokens, at).unwrap_or_default()];
    let mut end = at + 1;
    while is_separator(tokens, end)
        && let Some(word) = word_at(tokens, end + 2)
    {
        path.push(word);
        end += 3;
    }
    (path, end)
}

/// A `static` that can change while the program runs, as far as its type tells: only plain values,
/// slices, arrays and references of plain values are known not to.
fn mutable_global(tokens: &[TokenTree], at: usize) -> Option<String> {
    const PLAIN: [&str; 18] = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64", "bool",
        "char", "str", "static",
    ];
    if word_at(tokens, at + 1).as_deref() == Some("mut") {
        return Some("holds a static mut".into());
    }
    let name = word_at(tokens, at + 1)?;
    if !is_punct(tokens, at + 2, ':') {
        return None;
    }
    let declared = tokens[at + 3..].iter().take_while(|token| !is_mark(token, '=') && !is_mark(token, ';'));
    let mut words = Vec::new();
    declared.for_each(|token| collect_words(token, &mut words));
    let constant = |word: &String| word.chars().all(|char| char.is_ascii_uppercase() || char == '_');
    let unknown = words.into_iter().find(|word| !PLAIN.contains(&word.as_str()) && !constant(word))?;
    Some(format!("holds the global {name} of type {unknown}, which may change; use a const"))
}

fn collect_words(token: &TokenTree, words: &mut Vec<String>) {
    match token {
        TokenTree::Ident(word) => words.push(word.to_string()),
        TokenTree::Group(group) => group.stream().into_iter().for_each(|token| collect_words(&token, words)),
        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
    }
}

/// The tokens without items under `#[cfg(test)]`, at any depth.
fn without_tests(tokens: &[TokenTree]) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_cfg_test(tokens, at)
            && let Some(end) = end_of_item(tokens, at + 2)
        {
            at = end;
            continue;
        }
        kept.push(match &tokens[at] {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut smaller =
                    proc_macro2::Group::new(group.delimiter(), without_tests(&inner).into_iter().collect());
                smaller.set_span(group.span());
                TokenTree::Group(smaller)
            }
            other => other.clone(),
        });
        at += 1;
    }
    kept
}

fn is_cfg_test(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, '#')
        && matches!(tokens.get(at + 1), Some(TokenTree::Group(group))
            if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// Where the item that begins at `at` ends; `None` where something else than an item follows.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> Option<usize> {
    while is_punct(tokens, at, '#') {
        at += 2;
    }
    if word_at(tokens, at).as_deref() == Some("pub") {
        at += 1;
        let scoped =
            matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        at += usize::from(scoped);
    }
    match word_at(tokens, at)?.as_str() {
        "const" if word_at(tokens, at + 1).as_deref() != Some("fn") => Some(end_of_statement(tokens, at) + 1),
        "use" | "static" | "type" => Some(end_of_statement(tokens, at) + 1),
        "mod" | "fn" | "impl" | "struct" | "enum" | "trait" | "const" | "macro_rules" => {
            let ends = |token: &TokenTree| is_mark(token, ';') || is_brace(token);
            tokens[at..].iter().position(ends).map(|length| at + length + 1)
        }
        _ => None,
    }
}

/// Where the next `;` stands, or the end.
fn end_of_statement(tokens: &[TokenTree], at: usize) -> usize {
    tokens[at..].iter().position(|token| is_mark(token, ';')).map_or(tokens.len(), |length| at + length)
}

fn word_at(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(word)) => Some(plain(&word.to_string())),
        _ => None,
    }
}

/// A raw identifier is the same name.
fn plain(word: &str) -> String {
    word.strip_prefix("r#").unwrap_or(word).to_owned()
}

fn brace_at(tokens: &[TokenTree], at: usize) -> Option<Vec<TokenTree>> {
    match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            Some(group.stream().into_iter().collect())
        }
        _ => None,
    }
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

fn is_punct(tokens: &[TokenTree], at: usize, mark: char) -> bool {
    tokens.get(at).is_some_and(|token| is_mark(token, mark))
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_brace(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

mod samples {
    //! The test's own test: each sample breaks one wall, or none.

    use super::*;

    fn broken(path: &str, source: &str) -> Vec<String> {
        violations(Path::new(path), source)
    }

    #[track_caller]
    fn breaks(path: &str, source: &str, what: &str) {
        let found = broken(path, source);
        assert!(found.iter().any(|line| line.contains(what)), "{source}\nfound {found:?} instead of {what}");
    }

    #[track_caller]
    fn keeps(path: &str, source: &str) {
        assert_eq!(broken(path, source), Vec::<String>::new(), "{source}");
    }

    #[test]
    fn downward_and_level_imports_are_fine() {
        keeps("kernel/outbox.rs", "use crate::{base::{limits, time::Instant}, wire::codes, kernel::ids};");
        keeps("kernel/outbox.rs", "use super::ids::RoomId; use self::inner::x; use super::super::base::time;");
        keeps("kernel/mod.rs", "pub mod ids; fn f() { crate::base::time::Instant::ZERO; }");
        keeps("cli/client.rs", "use crate::host; use crate::base::time;");
        keeps("sim/mod.rs", "use crate::shard::Shard;");
    }

    #[test]
    fn an_upward_import_is_found_however_it_is_written() {
        for source in [
            "use crate::io::ring;",
            "use crate::{base::time, io::{self, ring}};",
            "use crate::io as lower;",
            "pub use crate::io::ring::Ring;",
            "use super::super::io::ring;",
            "use super::super::{base, io};",
            "use self::super::super::io;",
            "use crate::r#io;",
            "use ::ringroom::io;",
            "fn f() { crate::io::ring::run(); }",
            "fn f() -> crate :: io :: Ring { todo!() }",
            "fn f() { super::super::io::run(); }",
            "fn f() { println!(\"{}\", crate::io::count()); }",
            "macro_rules! m { () => { $crate::io::run() } }",
            "mod inner { use super::super::super::io; }",
            "use crate as root; fn f() { root::io::run(); }",
            "use crate::{self as root}; use root::io;",
            "#[cfg(test)] mod tests { use crate::io::ring; }",
            "struct S { ring: Option<Vec<crate::io::Ring>> }",
        ] {
            breaks("kernel/outbox.rs", source, "io");
        }
    }

    #[test]
    fn relative_paths_count_from_the_module_they_stand_in() {
        keeps("kernel/outbox.rs", "use super::io::x;");
        breaks("kernel/mod.rs", "use super::io::x;", "floor 6");
        keeps("kernel/mod.rs", "mod inner { use super::io::x; }");
        breaks("kernel/mod.rs", "mod inner { use super::super::io::x; }", "floor 6");
    }

    #[test]
    fn every_floor_is_closed_to_the_next_one_up() {
        for pair in FLOORS.windows(2).filter(|pair| pair[1].1 > pair[0].1) {
            let (low, high) = (pair[0].0, pair[1].0);
            breaks(&format!("{low}/a.rs"), &format!("use crate::{high}::x;"), "reaches up");
            keeps(&format!("{high}/a.rs"), &format!("use crate::{low}::x;"));
        }
    }

    #[test]
    fn the_whole_crate_and_unknown_folders_are_refused() {
        breaks("kernel/a.rs", "use crate::*;", "glob");
        breaks("kernel/a.rs", "use super::super::*;", "glob");
        breaks("kernel/a.rs", "use crate::attic::x;", "no floor");
        breaks("attic/a.rs", "", "no floor");
        breaks("kernel/a.rs", "use crate::sim::World;", "beside");
        breaks("sim/mod.rs", "use crate::io::ring;", "floor 6");
        breaks("sim/mod.rs", "use std::fs;", "a system call");
        keeps("tune/mod.rs", "use std::fs; use crate::base::limits;");
        breaks("tune/mod.rs", "use crate::host::Options;", "floor 8");
        breaks("host/mod.rs", "use crate::tune::Needs;", "beside");
    }

    #[test]
    fn the_ways_around_this_test_are_closed() {
        breaks("kernel/a.rs", "extern crate self as me;", "extern crate");
        breaks("kernel/a.rs", "include!(\"../io/ring.rs\");", "by hand");
        breaks("kernel/a.rs", "#[path = \"../io/ring.rs\"] mod ring;", "#[path]");
        breaks("wire/a.rs", "fn f() { unsafe { g() } }", "unsafe");
        keeps("base/a.rs", "fn f() { unsafe { g() } }");
    }

    #[test]
    fn clocks_locks_threads_and_system_calls_are_found_on_the_pure_floors() {
        for source in [
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::{sync::{Arc, Mutex}, time::Duration};",
            "use std::sync::RwLock as Shared;",
            "use std::sync::*;",
            "use std::*;",
            "use std::time; fn f() { time::Instant::now(); }",
            "use std::time as t; fn f() { t::Instant::now(); }",
            "use std as s; fn f() { s::thread::spawn(g); }",
            "fn f() { std::thread::spawn(g); }",
            "fn f() { std::sync::OnceLock::<u8>::new(); }",
            "fn f() { ::std::process::abort(); }",
            "use std::sync::{Condvar, LazyLock};",
            "use std::sync::mpsc::channel;",
            "use std::net::TcpStream;",
            "use std::{fs, io};",
            "fn f() { std::env::var(\"HOME\"); }",
            "use core::task::Waker;",
            "async fn f() {}",
            "fn f() { g(async move { 1 }); }",
            "fn f() { println!(\"x\"); }",
            "thread_local! { static X: u8 = 0; }",
            "static COUNT: AtomicU64 = AtomicU64::new(0);",
            "static mut COUNT: u64 = 0;",
            "static CELLS: [Cell<u8>; 4] = x;",
            "fn f() { static SEEN: OnceCell<u8> = OnceCell::new(); }",
            "fn f() { libc::getpid(); }",
            "use std::hash::RandomState;",
            "use std::sync as s; fn f() { let x: s::Mutex<u8> = y; }",
        ] {
            assert!(!broken("kernel/a.rs", source).is_empty(), "{source}");
            let other = broken("host/a.rs", source);
            assert!(other.is_empty(), "{source}: {other:?}");
        }
    }

    #[test]
    fn what_only_looks_like_a_clock_or_a_lock_is_fine() {
        for source in [
            "use std::time::Duration;",
            "use crate::base::time::Instant; fn f(now: Instant) {}",
            "// use std::time::Instant;\n/* std::sync::Mutex */ const X: &str = \"std::thread::spawn(async)\";",
            "use std::net::IpAddr;",
            "use std::sync::Arc;",
            "use std::io::Read;",
            "static NAMES: [&'static str; COUNT_MAX] = [];",
            "fn f<'a>(x: &'static str) -> impl Iterator + use<'a> { g }",
            "#[cfg(test)] mod tests { use std::time::Instant; static X: AtomicU8 = y; }",
            "#[cfg(test)] use std::sync::Mutex; fn f() {}",
            "mod inner { #[cfg(test)] fn helper() { std::thread::yield_now(); } }",
            "fn f() { if a != b {} }",
        ] {
            keeps("kernel/a.rs", source);
        }
    }

    #[test]
    fn what_follows_a_test_module_is_read_again() {
        breaks("kernel/a.rs", "#[cfg(test)] mod tests { } use std::time::Instant;", "a clock");
        breaks("kernel/a.rs", "#[cfg(test)] use std::time::Duration; use std::sync::Mutex;", "a lock");
        breaks("kernel/a.rs", "struct S { #[cfg(test)] x: u8, y: std::sync::Mutex<u8> }", "a lock");
    }

    #[test]
    fn the_runtime_and_its_clock_and_queue_are_named_in_io_alone() {
        for source in ["use monoio::net::TcpStream;", "fn f() { flume::bounded::<u8>(1); }", "use quanta as q;"] {
            keeps("io/a.rs", source);
            for path in ["host/a.rs", "cli/a.rs", "observe/a.rs", "kernel/a.rs", "main.rs", "lib.rs"] {
                breaks(path, source, "which only io may");
            }
        }
    }
}
