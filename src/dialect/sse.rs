//! Server-sent events: finds where each ends, whatever pieces a stream comes in, without copying what passes through.
//!
//! Only an event that is cut in two by the network is put together in a buffer of its own, and that one is bounded.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// The largest event that is read; a larger one passes through unread.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// What happens to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is kept back.
    Hide,
}

/// Cuts a stream into events.
#[derive(Debug)]
pub struct Scanner {
    lines: Lines,
    /// The beginning of an event whose end has not come yet; not passed on, if events may be hidden.
    tail: BytesMut,
    /// Whether a whole event is waited for before any of it is passed on.
    may_hide: bool,
    /// The event that goes by is too large to be read.
    oversized: bool,
    /// Nothing has come yet: a byte order mark may.
    at_start: bool,
}

impl Scanner {
    /// A scanner; where it may hide events, it holds each back until it is whole.
    pub fn new(may_hide: bool) -> Self {
        Self {
            lines: Lines::default(),
            tail: BytesMut::new(),
            may_hide,
            oversized: false,
            at_start: true,
        }
    }

    /// Reads a piece. `judge` sees the data of each event that ends in it; what may go on is put behind `out`.
    pub fn push(
        &mut self,
        piece: Bytes,
        out: &mut VecDeque<Bytes>,
        mut judge: impl FnMut(&[u8]) -> Verdict,
    ) {
        // Where the bytes begin that are decided to pass, and where the event begins that is being read.
        let (mut passing, mut event) = (0, 0);
        let mut scan = Scan::default();
        while let Some(end) = self.lines.next_event_end(&piece, &mut scan) {
            let hidden = self.end_event(&piece[event..end], &mut judge) == Verdict::Hide;
            if self.may_hide && hidden {
                pass(out, piece.slice(passing..event));
                self.tail.clear();
                passing = end;
            } else if self.may_hide && !self.tail.is_empty() {
                pass(out, self.tail.split().freeze());
            }
            self.tail.clear();
            self.oversized = false;
            event = end;
        }
        self.keep_tail(&piece[event..]);
        let decided = if self.may_hide && !self.oversized { event } else { piece.len() };
        if self.may_hide && self.oversized && !self.tail.is_empty() {
            // It is too large to wait for: what was held back goes on, and so will the rest.
            pass(out, piece.slice(passing..event));
            pass(out, self.tail.split().freeze());
        } else {
            pass(out, piece.slice(passing..decided));
        }
    }

    /// The stream is over: an event without its end is read all the same, and what was held back goes on.
    pub fn finish(&mut self, out: &mut VecDeque<Bytes>, mut judge: impl FnMut(&[u8]) -> Verdict) {
        let tail = self.tail.split().freeze();
        let verdict = judge(&data_of(strip_mark(&tail, self.at_start)));
        if self.may_hide && verdict == Verdict::Pass {
            pass(out, tail);
        }
    }

    /// Judges the event that ends with `rest`.
    fn end_event(&mut self, rest: &[u8], judge: &mut impl FnMut(&[u8]) -> Verdict) -> Verdict {
        if self.oversized {
            return Verdict::Pass;
        }
        let at_start = std::mem::take(&mut self.at_start);
        if self.tail.is_empty() {
            return judge(&data_of(strip_mark(rest, at_start)));
        }
        let whole = [&self.tail[..], rest].concat();
        judge(&data_of(strip_mark(&whole, at_start)))
    }

    fn keep_tail(&mut self, rest: &[u8]) {
        if self.oversized {
            return;
        }
        self.tail.extend_from_slice(rest);
        self.oversized = self.tail.len() > MAX_EVENT_BYTES;
        if self.oversized && !self.may_hide {
            self.tail.clear();
        }
    }
}

fn pass(out: &mut VecDeque<Bytes>, bytes: Bytes) {
    if !bytes.is_empty() {
        out.push_back(bytes);
    }
}

fn strip_mark(event: &[u8], at_start: bool) -> &[u8] {
    match event.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) if at_start => rest,
        _ => event,
    }
}

/// What the `data` lines of an event say, joined as the standard joins them.
fn data_of(event: &[u8]) -> Cow<'_, [u8]> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    // A CRLF gives an empty line between its two halves, which says nothing.
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(value) = line.strip_prefix(b"data:") else {
            continue;
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(known) => {
                let known = known.to_mut();
                known.push(b'\n');
                known.extend_from_slice(value);
            }
        }
    }
    data.unwrap_or_default()
}

/// Where the scanner is in its lines, across pieces.
#[derive(Debug)]
struct Lines {
    /// Nothing of the present line has come yet.
    empty: bool,
    /// The last byte was a CR; true, if it ended an empty line, and so an event, once it is clear that no LF follows.
    after_cr: Option<bool>,
}

/// Where the scanner is in a piece.
#[derive(Default)]
struct Scan {
    at: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            empty: true,
            after_cr: None,
        }
    }
}

impl Lines {
    /// The end of the next event in this piece: behind the empty line that closes it.
    fn next_event_end(&mut self, piece: &[u8], scan: &mut Scan) -> Option<usize> {
        while scan.at < piece.len() {
            if let Some(blank) = self.after_cr.take() {
                scan.at += usize::from(piece[scan.at] == b'\n');
                if blank {
                    return Some(scan.at);
                }
                continue;
            }
            let Some(length) = memchr2(b'\n', b'\r', &piece[scan.at..]) else {
                self.empty = false;
                scan.at = piece.len();
                return None;
            };
            let blank = self.empty && length == 0;
            self.empty = true;
            let ends_in_cr = piece[scan.at + length] == b'\r';
            scan.at += length + 1;
            if ends_in_cr {
                self.after_cr = Some(blank);
            } else if blank {
                return Some(scan.at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data of the events, and what passed, for a stream cut at these places.
    fn scan(stream: &[u8], cuts: &[usize], hide: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut scanner = Scanner::new(!hide.is_empty());
        let (mut out, mut events) = (VecDeque::new(), Vec::new());
        let mut judge = |data: &[u8]| {
            if !data.is_empty() {
                events.push(data.to_vec());
            }
            if !hide.is_empty() && data == hide { Verdict::Hide } else { Verdict::Pass }
        };
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let cut = cut.clamp(from, stream.len());
            scanner.push(Bytes::copy_from_slice(&stream[from..cut]), &mut out, &mut judge);
            from = cut;
        }
        scanner.finish(&mut out, &mut judge);
        (events, out.into_iter().flatten().collect())
    }

    #[test]
    fn events_are_found_however_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(": hi{end}data: a{end}{end}data:b{end}data: c{end}{end}data: last");
            let (events, passed) = scan(stream.as_bytes(), &[], b"");
            assert_eq!(events, [b"a".to_vec(), b"b\nc".to_vec(), b"last".to_vec()], "{end:?}");
            assert_eq!(passed, stream.as_bytes());
        }
    }

    #[test]
    fn a_byte_order_mark_hides_nothing() {
        let (events, _) = scan(b"\xEF\xBB\xBFdata: a\n\n", &[2], b"");
        assert_eq!(events, [b"a".to_vec()]);
    }

    #[test]
    fn an_event_that_is_too_large_passes_unread() {
        let large = vec![b'x'; MAX_EVENT_BYTES + 10];
        let stream = [b"data: ", &large[..], b"\n\ndata: hide\n\ndata: a\n\n"].concat();
        for hide in [&b"hide"[..], b""] {
            let (events, passed) = scan(&stream, &[100, 600_000, 1_048_590], hide);
            assert_eq!(events.last().unwrap(), b"a");
            let hidden = if hide.is_empty() { 0 } else { b"data: hide\n\n".len() };
            assert_eq!(passed.len(), stream.len() - hidden);
        }
    }

    proptest! {
        /// Whatever the network cuts, the events and the bytes are the same.
        #[test]
        fn the_cut_changes_nothing(
            parts in prop::collection::vec(prop::sample::select(vec![
                "data: a", "data: hide", "data:", "event: x", ":", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\r\r",
            ]), 0..24),
            cuts in prop::collection::vec(0usize..120, 0..6),
            hides in any::<bool>(),
        ) {
            let stream = parts.concat();
            let mut cuts = cuts;
            cuts.sort_unstable();
            let hide: &[u8] = if hides { b"hide" } else { b"" };
            let whole = scan(stream.as_bytes(), &[], hide);
            prop_assert_eq!(scan(stream.as_bytes(), &cuts, hide), whole.clone());
            if !hides {
                prop_assert_eq!(whole.1, stream.as_bytes());
            }
        }
    }
}
