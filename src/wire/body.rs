//! Bodies of requests, of announced length or in chunks (`RFC 9112` sections 6 and 7), as far as a
//! gateway needs them. Invariant: where a body ends is never in doubt (two lengths, a length and
//! chunks, a line that ends in any other way: all refused), so no request can hide behind another;
//! and no byte is kept of a body that is too long.

use super::http::Head;

/// A line of a chunk's size, or of what may follow the last chunk, bytes.
const LINE_BYTES_MAX: usize = 256;
/// Lines behind the last chunk, which nobody reads.
const TRAILERS_MAX: u32 = 16;

/// Why a body is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyRefused {
    /// More than it may be.
    TooLarge,
    /// Nobody can say where it ends.
    Malformed,
}

/// A body as it comes in.
#[derive(Debug)]
pub struct Body {
    taken: Vec<u8>,
    bytes_max: usize,
    next: Next,
}

/// What is to come.
#[derive(Debug)]
enum Next {
    /// So many bytes, and the end.
    Length(usize),
    /// The line that says how long a chunk is.
    Size(Vec<u8>),
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The end of its line; the first of both bytes has come.
    ChunkEnd(bool),
    /// Lines behind the last chunk, and how many came.
    Trailer(Vec<u8>, u32),
    Nothing,
}

impl Body {
    /// The body that a request announces, of at most `bytes_max` bytes.
    pub fn of(head: &Head<'_>, bytes_max: usize) -> Result<Body, BodyRefused> {
        let mut lengths = head.headers_named("content-length");
        let length = lengths.next();
        let mut codings = head.headers_named("transfer-encoding");
        let coding = codings.next();
        if lengths.next().is_some() || codings.next().is_some() {
            return Err(BodyRefused::Malformed);
        }
        let next = match (length, coding) {
            (None, None) => Next::Nothing,
            (Some(digits), None) => {
                let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                if !is_number {
                    return Err(BodyRefused::Malformed);
                }
                match digits.parse() {
                    Ok(0) => Next::Nothing,
                    Ok(length) if length <= bytes_max => Next::Length(length),
                    _ => return Err(BodyRefused::TooLarge),
                }
            }
            // HTTP/1.0 knows no chunks (`RFC 9112` section 6.1).
            (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && head.minor_version > 0 => {
                Next::Size(Vec::new())
            }
            _ => return Err(BodyRefused::Malformed),
        };
        Ok(Body { taken: Vec::new(), bytes_max, next })
    }

    /// One that has come.
    pub fn whole(bytes: Vec<u8>) -> Body {
        Body { bytes_max: bytes.len(), taken: bytes, next: Next::Nothing }
    }

    pub fn is_whole(&self) -> bool {
        matches!(self.next, Next::Nothing)
    }

    /// Memory that it holds, bytes.
    pub fn bytes_held(&self) -> usize {
        self.taken.capacity()
    }

    /// What came of it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.taken
    }

    /// Takes of `bytes` what belongs to it, and says how many that were.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, BodyRefused> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.next {
                Next::Nothing => break,
                Next::Length(left) | Next::Chunk(left) => {
                    let part = &rest[..rest.len().min(*left)];
                    self.taken.extend_from_slice(part);
                    at += part.len();
                    *left -= part.len();
                    if *left == 0 {
                        let is_chunk = matches!(self.next, Next::Chunk(_));
                        self.next = if is_chunk { Next::ChunkEnd(false) } else { Next::Nothing };
                    }
                }
                Next::ChunkEnd(half) => {
                    if rest[0] != if *half { b'\n' } else { b'\r' } {
                        return Err(BodyRefused::Malformed);
                    }
                    at += 1;
                    if *half {
                        self.next = Next::Size(Vec::new());
                    } else {
                        *half = true;
                    }
                }
                Next::Size(line) => {
                    let (used, is_line) = read_line(line, rest)?;
                    at += used;
                    if is_line {
                        self.next = match chunk_size(line)? {
                            0 => Next::Trailer(Vec::new(), 0),
                            size if size <= self.bytes_max - self.taken.len() => Next::Chunk(size),
                            _ => return Err(BodyRefused::TooLarge),
                        };
                    }
                }
                Next::Trailer(line, lines) => {
                    let (used, is_line) = read_line(line, rest)?;
                    at += used;
                    if is_line && line == b"\r\n" {
                        self.next = Next::Nothing;
                    } else if is_line {
                        if !line.ends_with(b"\r\n") || *lines == TRAILERS_MAX {
                            return Err(BodyRefused::Malformed);
                        }
                        *lines += 1;
                        line.clear();
                    }
                }
            }
        }
        Ok(at)
    }
}

/// Adds of `bytes` what belongs to a line. Says how many that were, and whether the line has ended.
fn read_line(line: &mut Vec<u8>, bytes: &[u8]) -> Result<(usize, bool), BodyRefused> {
    let end = memchr::memchr(b'\n', bytes);
    let part = &bytes[..end.map_or(bytes.len(), |end| end + 1)];
    if line.len() + part.len() > LINE_BYTES_MAX {
        return Err(BodyRefused::Malformed);
    }
    line.extend_from_slice(part);
    Ok((part.len(), end.is_some()))
}

fn chunk_size(line: &[u8]) -> Result<usize, BodyRefused> {
    // `httparse` reads no digit at all as zero.
    let has_digit = line.first().is_some_and(u8::is_ascii_hexdigit);
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((len, size))) if has_digit && len == line.len() => {
            Ok(usize::try_from(size).unwrap_or(usize::MAX))
        }
        _ => Err(BodyRefused::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::parse_head;
    use proptest::prelude::*;

    fn of(lines: &str, bytes_max: usize) -> Result<Body, BodyRefused> {
        let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
        Body::of(&parse_head(text.as_bytes()).unwrap().unwrap(), bytes_max)
    }

    /// The body, and what is behind it.
    fn chunked(bytes: &[u8], bytes_max: usize) -> Result<(Vec<u8>, &[u8]), BodyRefused> {
        let mut body = of("Transfer-Encoding: chunked\r\n", bytes_max)?;
        let used = body.read(bytes)?;
        assert!(body.is_whole(), "it has an end");
        Ok((body.into_bytes(), &bytes[used..]))
    }

    #[test]
    fn where_a_body_ends_is_never_in_doubt() {
        for lines in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length:\r\n",
        ] {
            assert_eq!(of(lines, 100).err(), Some(BodyRefused::Malformed), "{lines}");
        }
        let text = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        let old = Body::of(&parse_head(text).unwrap().unwrap(), 100);
        assert_eq!(old.err(), Some(BodyRefused::Malformed));
        assert!(of("", 100).unwrap().is_whole() && of("Content-Length: 0\r\n", 100).unwrap().is_whole());
        assert!(!of("Transfer-Encoding: Chunked\r\n", 100).unwrap().is_whole());
    }

    #[test]
    fn a_body_of_a_length_ends_there() {
        let mut body = of("Content-Length: 5\r\n", 5).unwrap();
        assert_eq!((body.read(b"ab"), body.is_whole()), (Ok(2), false));
        assert_eq!((body.read(b"cdeGET /"), body.is_whole()), (Ok(3), true));
        assert_eq!(body.into_bytes(), b"abcde");
    }

    #[test]
    fn what_is_too_long_is_refused_before_a_byte_of_it_is_kept() {
        assert_eq!(of("Content-Length: 6\r\n", 5).err(), Some(BodyRefused::TooLarge));
        assert_eq!(of("Content-Length: 99999999999999999999999\r\n", 5).err(), Some(BodyRefused::TooLarge));
        let mut body = of("Transfer-Encoding: chunked\r\n", 5).unwrap();
        assert_eq!(body.read(b"3\r\nabc\r\n"), Ok(8));
        assert_eq!(body.read(b"3\r\nd"), Err(BodyRefused::TooLarge));
        assert_eq!(chunked(b"FFFFFFFFFFFFFFFF\r\n", 5).err(), Some(BodyRefused::TooLarge));
    }

    #[test]
    fn chunks_are_joined_and_what_is_behind_them_is_left() {
        let whole = b"3;ext=\"x\"\r\nabc\r\n0A \r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\nGET /";
        assert_eq!(chunked(whole, 13).unwrap(), (b"abc0123456789".to_vec(), &b"GET /"[..]));
        for malformed in [
            &b"\r\n"[..],
            b";a\r\n",
            b" 3\r\nabc\r\n",
            b"3\nabc\r\n0\r\n\r\n",
            b"3;a\nb\r\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\r0\r\n\r\n",
            b"-3\r\n",
            b"0x3\r\n",
            b"00000000000000003\r\n",
            b"0\r\n\n",
            b"0\r\nX: y\n\r\n",
            &[b"3;", &[b'x'; LINE_BYTES_MAX][..], b"\r\n"].concat(),
            &[&b"0\r\n"[..], &b"X: y\r\n".repeat(TRAILERS_MAX as usize + 1)].concat(),
        ] {
            assert_eq!(chunked(malformed, 100).err(), Some(BodyRefused::Malformed), "{}", malformed.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_body_reads_the_same_however_it_is_cut(
            chunks in prop::collection::vec("[a-z]{1,20}", 0..5), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut wire = String::new();
            chunks.iter().for_each(|chunk| wire.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len())));
            wire.push_str("0\r\n\r\nrest");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).chain([0, wire.len()]).collect();
            cuts.sort_unstable();
            let mut body = of("Transfer-Encoding: chunked\r\n", 100).unwrap();
            let mut used = 0;
            for cut in cuts.windows(2) {
                let part = &wire.as_bytes()[cut[0]..cut[1]];
                let read = body.read(part).unwrap();
                prop_assert!(read == part.len() || body.is_whole());
                used += read;
            }
            prop_assert_eq!(&wire[used..], "rest");
            prop_assert_eq!(body.into_bytes(), chunks.concat().into_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_too_much(noise: Vec<u8>, start in 0usize..20) {
            let valid = b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n";
            let bytes = [&valid[..start], &noise].concat();
            let mut body = of("Transfer-Encoding: chunked\r\n", 8).unwrap();
            let _ = body.read(&bytes);
            prop_assert!(body.taken.len() <= 8);
        }
    }
}
