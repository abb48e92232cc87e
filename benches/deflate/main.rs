//! Which library and which level compress what rooms carry: `cargo bench --bench deflate`.
//!
//!     cargo bench --bench deflate                     what is read back, sizes, then times
//!     cargo bench --bench deflate -- sizes            bytes out and memory only: the same everywhere
//!     cargo bench --bench deflate -- instructions     user instructions by valgrind: noise cannot move them
//!
//! Every message that a candidate makes is first read back by ringroom and by a library that made none of them.

mod chat;

use chat::{Kind, MIXED, message};
use criterion::{BenchmarkId, Criterion, Throughput};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use ringroom::wire::deflate::{Deflater, Inflater, Window};
use ringroom::wire::frame;
use ringroom::wire::json;
use std::hint::black_box;
use std::process::Command;

const SIZES: [usize; 4] = [256, 1_024, 4_096, 16_384];
/// Messages of a size that are gone through, so that nothing learns one by heart.
const MESSAGES: u64 = 64;
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What a flush ends with and a message does not have (`RFC 7692` section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// What makes a message's payload of its plain form (`RFC 7692` section 7.2.1).
enum Maker {
    Ours(Deflater),
    ZlibRs(Box<Compress>),
    Libdeflate(Compressor),
    Miniz(Box<CompressorOxide>),
}

impl Maker {
    fn of(name: &str) -> Maker {
        let level = |name: &str| name.parse::<u8>().expect("a level");
        match name.split_once(' ') {
            None => {
                let mut deflater = Deflater::default();
                deflater.set_bytes_min(Some(0));
                Maker::Ours(deflater)
            }
            Some(("zlib-rs", name)) => {
                Maker::ZlibRs(Box::new(Compress::new(Compression::new(level(name).into()), false)))
            }
            Some(("libdeflate", name)) => {
                Maker::Libdeflate(Compressor::new(CompressionLvl::new(level(name).into()).expect("a level")))
            }
            Some(("miniz", name)) => {
                let strategy = CompressionStrategy::Default;
                Maker::Miniz(Box::new(CompressorOxide::with_params(DataFormat::Raw, level(name), strategy, 15)))
            }
            Some(_) => panic!("no candidate is called {name}"),
        }
    }

    /// What is sent for `plain`, framed, and so long: `None` where it is sent as it is.
    fn make(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let payload = frame::parts(plain).1;
        match self {
            Maker::Ours(deflater) => match deflater.frame(plain, Window::Full) {
                Some(compressed) => out.extend_from_slice(payload_of(compressed)),
                None => return false,
            },
            Maker::ZlibRs(context) => {
                context.reset();
                out.reserve(payload.len() + 64);
                context.compress_vec(payload, out, FlushCompress::Sync).expect("there is room");
                assert!(out.ends_with(&TAIL));
                out.truncate(out.len() - TAIL.len());
            }
            // It ends its stream, and knows nothing of flushes: an empty block that does not follow, for
            // which the receiver adds what is missing (section 7.2.3.4).
            Maker::Libdeflate(compressor) => {
                out.resize(compressor.deflate_compress_bound(payload.len()), 0);
                let len = compressor.deflate_compress(payload, out).expect("there is room");
                out.truncate(len);
                out.push(0);
            }
            Maker::Miniz(context) => {
                context.reset();
                out.resize(payload.len() + 64, 0);
                let (status, read, len) = compress(context, payload, out, TDEFLFlush::Sync);
                assert!(status == TDEFLStatus::Okay && read == payload.len());
                out.truncate(len);
                assert!(out.ends_with(&TAIL));
                out.truncate(len - TAIL.len());
            }
        }
        out.len() < payload.len()
    }
}

/// The payload of a frame that has the bit of a compressed one.
fn payload_of(compressed: &[u8]) -> &[u8] {
    match compressed[1] {
        126 => &compressed[4..],
        127 => &compressed[10..],
        _ => &compressed[2..],
    }
}

const MAKERS: [&str; 12] = [
    "ours",
    "zlib-rs 1",
    "zlib-rs 2",
    "zlib-rs 3",
    "zlib-rs 4",
    "zlib-rs 6",
    "zlib-rs 9",
    "libdeflate 1",
    "libdeflate 6",
    "libdeflate 12",
    "miniz 1",
    "miniz 6",
];

/// What reads a message's payload.
enum Reader {
    Ours(Inflater),
    ZlibRs(Box<Decompress>),
    Libdeflate(Decompressor),
    Miniz(Box<DecompressorOxide>),
}

impl Reader {
    fn of(name: &str) -> Reader {
        match name {
            "ours" => Reader::Ours(Inflater::default()),
            "zlib-rs" => Reader::ZlibRs(Box::new(Decompress::new(false))),
            "libdeflate" => Reader::Libdeflate(Decompressor::new()),
            "miniz" => Reader::Miniz(Box::default()),
            _ => panic!("no reader is called {name}"),
        }
    }

    /// `len`: of the message, for those who have to know it.
    fn read<'a>(&'a mut self, compressed: &[u8], len: usize, out: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Reader::Ours(inflater) => inflater.message(compressed, MESSAGE_BYTES_MAX).expect("it inflates"),
            Reader::ZlibRs(context) => {
                context.reset(false);
                out.clear();
                out.reserve(len + 64);
                for part in [compressed, &TAIL] {
                    context.decompress_vec(part, out, FlushDecompress::Sync).expect("it inflates");
                }
                out
            }
            Reader::Libdeflate(decompressor) => {
                // It wants a whole stream with an end: an empty last block behind what a flush leaves.
                let mut whole = Vec::with_capacity(compressed.len() + TAIL.len() + 2);
                whole.extend_from_slice(compressed);
                whole.extend_from_slice(&TAIL);
                whole.extend_from_slice(&[0x03, 0x00]);
                out.resize(len, 0);
                let len = decompressor.deflate_decompress(&whole, out).expect("it inflates");
                &out[..len]
            }
            Reader::Miniz(context) => {
                **context = DecompressorOxide::new();
                out.clear();
                out.resize(len + 64, 0);
                let (status, read, written) =
                    decompress(context, compressed, out, 0, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT | FLAT);
                let (_, _, more) = match status {
                    TINFLStatus::NeedsMoreInput => decompress(context, &TAIL, out, written, FLAT),
                    // The end of a stream: what follows is the empty block of section 7.2.3.4.
                    TINFLStatus::Done => {
                        assert_eq!(&compressed[read..], [0]);
                        (status, read, 0)
                    }
                    other => panic!("{other:?}"),
                };
                &out[..written + more]
            }
        }
    }
}

/// What was written is the window: nothing wraps.
const FLAT: u32 = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
const READERS: [&str; 4] = ["ours", "zlib-rs", "libdeflate", "miniz"];

/// Frames of mixed chat whose payloads are `bytes` long.
fn mixed(bytes: usize) -> Vec<Vec<u8>> {
    (0..MESSAGES).map(|number| framed(&message(MIXED[number as usize % MIXED.len()], bytes, number))).collect()
}

fn of_kind(kind: Kind, bytes: usize) -> Vec<Vec<u8>> {
    (0..MESSAGES).map(|number| framed(&message(kind, bytes, number))).collect()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::header(&mut out, frame::TEXT, payload.len());
    out.extend_from_slice(payload);
    out
}

/// Every candidate's messages, read by all: a browser is one more that follows the RFC.
fn check() {
    let mut readers: Vec<Reader> = READERS.iter().map(|name| Reader::of(name)).collect();
    let (mut compressed, mut out) = (Vec::new(), Vec::new());
    for name in MAKERS {
        let mut maker = Maker::of(name);
        for plain in SIZES.into_iter().flat_map(|bytes| Kind::ALL.map(|kind| of_kind(kind, bytes))).flatten() {
            let payload = frame::parts(&plain).1;
            json::check(payload).expect("chat is JSON");
            if !maker.make(&plain, &mut compressed) {
                continue;
            }
            for (reader, of_reader) in readers.iter_mut().zip(READERS) {
                assert!(reader.read(&compressed, payload.len(), &mut out) == payload, "{name}, by {of_reader}");
            }
        }
    }
    println!("every message of {} candidates is read back by {}\n", MAKERS.len(), READERS.join(", "));
}

/// Bytes sent of a hundred, of whole messages: those that do not shrink go as they are.
fn share(maker: &mut Maker, messages: &[Vec<u8>]) -> f64 {
    let (mut sent, mut plain, mut out) = (0, 0, Vec::new());
    for message in messages {
        let len = frame::parts(message).1.len();
        plain += len;
        sent += if maker.make(message, &mut out) { out.len() } else { len };
    }
    sent as f64 * 100.0 / plain as f64
}

fn sizes() {
    println!("Bytes sent of a hundred, mixed chat, and the memory that a context keeps:\n");
    println!("| candidate | 256 B | 1 KiB | 4 KiB | 16 KiB | KiB kept |\n|---|---:|---:|---:|---:|---:|");
    for name in MAKERS {
        let before = allocated();
        let mut maker = Maker::of(name);
        let shares = SIZES.map(|bytes| format!("{:.1}", share(&mut maker, &mixed(bytes))));
        println!("| {name} | {} | {:.0} |", shares.join(" | "), (allocated() - before) as f64 / 1024.0);
    }
    println!("\nBytes sent of a hundred, as ringroom sends what is no shorter than `compression.min_bytes`:\n");
    println!("| what | 256 B | 1 KiB | 4 KiB | 16 KiB |\n|---|---:|---:|---:|---:|");
    for kind in Kind::ALL {
        let shares = SIZES.map(|bytes| format!("{:.1}", share(&mut Maker::of("ours"), &of_kind(kind, bytes))));
        println!("| {kind:?} | {} |", shares.join(" | "));
    }
    let message = &mixed(16_384)[0];
    let mut deflater = Deflater::default();
    let [full, small] = [Window::Full, Window::Small].map(|window| kept(|| _ = deflater.frame(message, window)));
    let (mut inflater, compressed) = (Inflater::default(), compressed(std::slice::from_ref(message)));
    let inflates = kept(|| _ = inflater.message(&compressed[0].0, MESSAGE_BYTES_MAX));
    println!("\nKiB a shard keeps: {full} to compress, {small} for small windows, {inflates} to inflate\n");
}

/// KiB that are there after `step` and were not before.
fn kept(step: impl FnOnce()) -> usize {
    let before = allocated();
    step();
    (allocated() - before) / 1024
}

/// Bytes that the system's allocator has given out, which is what all of these libraries ask.
fn allocated() -> usize {
    // SAFETY: it reads the allocator's counters and takes nothing.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn times(criterion: &mut Criterion) {
    for (group, makes) in [("compress", true), ("inflate", false)] {
        let mut group = criterion.benchmark_group(group);
        for bytes in SIZES {
            let messages = mixed(bytes);
            group.throughput(Throughput::Elements(MESSAGES));
            for name in if makes { &MAKERS[..] } else { &READERS[..] } {
                group.bench_function(BenchmarkId::new(*name, bytes), |bench| match makes {
                    true => {
                        let (mut maker, mut out) = (Maker::of(name), Vec::new());
                        bench.iter(|| make_all(&mut maker, &messages, &mut out));
                    }
                    false => {
                        let (mut reader, compressed, mut out) = (Reader::of(name), compressed(&messages), Vec::new());
                        bench.iter(|| read_all(&mut reader, &compressed, &mut out));
                    }
                });
            }
        }
        group.finish();
    }
    let noise = of_kind(Kind::Noise, 4_096);
    let mut group = criterion.benchmark_group("compress_noise");
    group.throughput(Throughput::Elements(MESSAGES));
    for name in MAKERS {
        let (mut maker, mut out) = (Maker::of(name), Vec::new());
        group.bench_function(BenchmarkId::new(name, 4_096), |bench| {
            bench.iter(|| make_all(&mut maker, &noise, &mut out));
        });
    }
}

fn make_all(maker: &mut Maker, messages: &[Vec<u8>], out: &mut Vec<u8>) {
    for message in messages {
        black_box(maker.make(black_box(message), out));
    }
}

/// What clients send: zlib's usual level, and how long it was.
fn compressed(messages: &[Vec<u8>]) -> Vec<(Vec<u8>, usize)> {
    let mut maker = Maker::of("zlib-rs 6");
    let of = |message: &Vec<u8>| {
        let mut out = Vec::new();
        maker.make(message, &mut out);
        (out, frame::parts(message).1.len())
    };
    messages.iter().map(of).collect()
}

fn read_all(reader: &mut Reader, compressed: &[(Vec<u8>, usize)], out: &mut Vec<u8>) {
    for (compressed, len) in compressed {
        black_box(reader.read(black_box(compressed), *len, out).len());
    }
}

/// Counts this program's own loops: the difference of two lengths leaves the start out.
fn instructions() {
    let this = std::env::current_exe().expect("this program");
    let file = std::env::temp_dir().join(format!("ringroom-deflate-{}", std::process::id()));
    let count = |words: [&str; 3], times: u64| -> u64 {
        let run = Command::new("valgrind")
            // A store that repeats counts as one instruction for each byte, and contexts are cleared with such.
            .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_stosb_threshold=1073741824")
            .args(["--quiet", "--tool=callgrind", &format!("--callgrind-out-file={}", file.display())])
            .arg(&this)
            .arg("loop")
            .args(words)
            .arg(times.to_string())
            .status()
            .expect("valgrind is installed");
        assert!(run.success(), "{words:?}");
        let said = std::fs::read_to_string(&file).expect("callgrind wrote it");
        let line = said.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        line.and_then(|line| line.trim().parse().ok()).expect("a total")
    };
    println!("User instructions a message:\n\n| candidate | 1 KiB | 4 KiB |\n|---|---:|---:|");
    let each = MAKERS.map(|name| ("make", name)).into_iter().chain(READERS.map(|name| ("read", name)));
    for (what, name) in each {
        let counts = ["1024", "4096"].map(|bytes| {
            let words = [what, name, bytes];
            ((count(words, 3) - count(words, 1)) / (2 * MESSAGES)).to_string()
        });
        println!("| {what} {name} | {} |", counts.join(" | "));
    }
    std::fs::remove_file(&file).expect("it was there");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sizes"] => {
            check();
            sizes();
        }
        ["instructions"] => instructions(),
        ["loop", what, name, bytes, times] => {
            let messages = mixed(bytes.parse().expect("bytes"));
            let mut out = Vec::new();
            let times = times.parse::<u32>().expect("a number");
            match what {
                "make" => {
                    let mut maker = Maker::of(name);
                    (0..times).for_each(|_| make_all(&mut maker, &messages, &mut out));
                }
                _ => {
                    let (mut reader, compressed) = (Reader::of(name), compressed(&messages));
                    (0..times).for_each(|_| read_all(&mut reader, &compressed, &mut out));
                }
            }
        }
        _ => {
            check();
            sizes();
            let mut criterion = Criterion::default().configure_from_args();
            times(&mut criterion);
            criterion.final_summary();
        }
    }
}
