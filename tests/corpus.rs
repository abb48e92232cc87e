//! Every input that the fuzz targets keep (`fuzz/corpus`), through the same checks: what was found once
//! stays found, with no fuzzer and no other toolchain. `fuzz/README.md` says how inputs get there.

#[path = "../fuzz/checks/lib.rs"]
mod checks;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{fs, panic};

/// A target and what it checks.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 10] = [
    ("engine", checks::engine),
    ("envelope", checks::envelope),
    ("frames", checks::frames),
    ("frames_raw", checks::frames_raw),
    ("http_head", checks::http_head),
    ("inflate", checks::inflate),
    ("msgpack", checks::msgpack),
    ("proxy", checks::proxy),
    ("socketio", checks::socketio),
    ("sse", checks::sse),
];

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_target_has_its_checks_and_its_corpus() {
    let ours = TARGETS.map(|(name, _)| name);
    assert_eq!(names(&entries(&fuzz().join("fuzz_targets"))), ours);
    assert_eq!(names(&entries(&fuzz().join("corpus"))), ours);
}

/// One test a target, so that they share the processors.
fn replay(name: &str) {
    let (_, check) = TARGETS.into_iter().find(|(target, _)| *target == name).expect("a target");
    let inputs = entries(&fuzz().join("corpus").join(name));
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    let fails = |path: &PathBuf| {
        let bytes = fs::read(path).expect("an input");
        panic::catch_unwind(|| check(&bytes)).is_err()
    };
    let failed: Vec<&PathBuf> = inputs.iter().filter(|path| fails(path)).collect();
    // Past the harness, which would keep it to itself.
    writeln!(io::stderr(), "{name}: {} inputs replayed", inputs.len()).expect("an open stderr");
    assert!(failed.is_empty(), "{name}: {failed:#?}");
}

#[test]
fn the_corpus_of_engine_replays() {
    replay("engine");
}

#[test]
fn the_corpus_of_envelope_replays() {
    replay("envelope");
}

#[test]
fn the_corpus_of_frames_replays() {
    replay("frames");
}

#[test]
fn the_corpus_of_frames_raw_replays() {
    replay("frames_raw");
}

#[test]
fn the_corpus_of_http_head_replays() {
    replay("http_head");
}

#[test]
fn the_corpus_of_inflate_replays() {
    replay("inflate");
}

#[test]
fn the_corpus_of_msgpack_replays() {
    replay("msgpack");
}

#[test]
fn the_corpus_of_proxy_replays() {
    replay("proxy");
}

#[test]
fn the_corpus_of_socketio_replays() {
    replay("socketio");
}

#[test]
fn the_corpus_of_sse_replays() {
    replay("sse");
}
