//! Server-sent events, found while their bytes pass.
//!
//! The bytes go through as they came, as slices of the chunks they came in: nothing is parsed and written again. Only
//! the data of the event at hand is copied, to be read.

use std::mem;

use bytes::Bytes;
use memchr::memchr2;

/// The longest event that is read. A longer one passes unread, its bytes untouched.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It reaches the caller.
    Pass,
    /// It was meant for us.
    Withhold,
}

/// Finds events across the chunks of a stream.
///
/// Lines end with LF, CRLF or CR, an event with a blank line. It gives the same events and the same bytes however the
/// stream is cut into chunks.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about where the scanner stands"
)]
pub struct SseScanner {
    /// Whether events may be withheld, so that the bytes of an incomplete one have to wait for its end.
    may_withhold: bool,
    /// The bytes that wait.
    held: Vec<Bytes>,
    /// The part of the line at hand that came in earlier chunks.
    line: Vec<u8>,
    line_bytes: usize,
    /// The data of the event at hand; `None` while it has no data line.
    data: Option<Vec<u8>>,
    event_bytes: usize,
    /// The event at hand is longer than what is read.
    too_long: bool,
    /// How many events were.
    oversized_events: u64,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// What became of the last event.
    fate: Fate,
    is_first_line: bool,
}

impl SseScanner {
    /// A scanner at the start of a stream. Unless events may be withheld, no byte ever waits.
    pub fn new(may_withhold: bool) -> Self {
        Self {
            may_withhold,
            held: Vec::new(),
            line: Vec::new(),
            line_bytes: 0,
            data: None,
            event_bytes: 0,
            too_long: false,
            oversized_events: 0,
            after_cr: false,
            fate: Fate::Pass,
            is_first_line: true,
        }
    }

    /// Takes the next chunk: reads the events that end in it, and adds to `out` the bytes that may go on.
    pub fn push(
        &mut self,
        chunk: &Bytes,
        read: &mut impl FnMut(&[u8]) -> Fate,
        out: &mut Vec<Bytes>,
    ) {
        if chunk.is_empty() {
            // It tells nothing of what follows a CR.
            return;
        }
        // Up to `passed`, bytes are out or dropped; from `event` on, they belong to the event at hand.
        let (mut passed, mut event, mut line) = (0, 0, 0);
        if mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            line = 1;
            if self.is_between_events() {
                // It shares the fate of the event that the CR ended.
                event = 1;
                passed = usize::from(self.fate == Fate::Withhold);
            }
        }
        while let Some(length) = memchr2(b'\n', b'\r', &chunk[line..]) {
            let end = line + length;
            let mut next = end + 1;
            if chunk[end] == b'\r' {
                self.after_cr = next == chunk.len();
                next += usize::from(chunk.get(next) == Some(&b'\n'));
            }
            let is_blank = self.end_line(&chunk[line..end]);
            line = next;
            if self.too_long {
                out.append(&mut self.held);
            }
            if !is_blank {
                continue;
            }
            self.fate = self.end_event(read);
            match self.fate {
                Fate::Pass => out.append(&mut self.held),
                Fate::Withhold => {
                    self.held.clear();
                    give(out, chunk.slice(passed..event));
                    passed = next;
                }
            }
            event = next;
        }
        self.carry_line(&chunk[line..]);
        if self.may_withhold && !self.too_long {
            give(out, chunk.slice(passed..event));
            give(&mut self.held, chunk.slice(event..));
        } else {
            out.append(&mut self.held);
            give(out, chunk.slice(passed..));
        }
    }

    /// Takes the end of the stream: an event that was cut off is read as far as it came.
    pub fn finish(&mut self, read: &mut impl FnMut(&[u8]) -> Fate, out: &mut Vec<Bytes>) {
        if self.line_bytes > 0 {
            self.end_line(&[]);
        }
        match self.end_event(read) {
            Fate::Pass => out.append(&mut self.held),
            Fate::Withhold => self.held.clear(),
        }
    }

    /// How many events were too long to be read, the one at hand included.
    pub fn oversized_events(&self) -> u64 {
        self.oversized_events
    }

    fn is_between_events(&self) -> bool {
        self.event_bytes == 0 && self.line_bytes == 0
    }

    /// Notes the end of a line that goes on with `rest`; tells whether it is blank.
    fn end_line(&mut self, rest: &[u8]) -> bool {
        self.grow(rest.len());
        let is_blank = self.line_bytes == 0;
        if !is_blank && !self.too_long {
            let mut carried = mem::take(&mut self.line);
            if carried.is_empty() {
                self.field(rest);
            } else {
                carried.extend_from_slice(rest);
                self.field(&carried);
                carried.clear();
            }
            self.line = carried;
        }
        self.is_first_line = false;
        if !is_blank {
            self.event_bytes += self.line_bytes + 1;
        }
        self.line_bytes = 0;
        is_blank
    }

    /// Keeps the beginning of a line for when its end comes.
    fn carry_line(&mut self, beginning: &[u8]) {
        self.grow(beginning.len());
        if !self.too_long {
            self.line.extend_from_slice(beginning);
        }
    }

    fn grow(&mut self, bytes: usize) {
        self.line_bytes += bytes;
        if !self.too_long && self.event_bytes + self.line_bytes > MAX_EVENT_BYTES {
            self.too_long = true;
            self.oversized_events += 1;
            self.line = Vec::new();
            self.data = None;
        }
    }

    /// Reads one line of an event; only data matters here, comments and other fields are passed over.
    fn field(&mut self, line: &[u8]) {
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if self.is_first_line => rest,
            _ => line,
        };
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
    }

    fn end_event(&mut self, read: &mut impl FnMut(&[u8]) -> Fate) -> Fate {
        self.event_bytes = 0;
        self.too_long = false;
        let data = self.data.take().filter(|data| !data.is_empty());
        let fate = data.map_or(Fate::Pass, |data| read(&data));
        if self.may_withhold { fate } else { Fate::Pass }
    }
}

fn give(out: &mut Vec<Bytes>, bytes: Bytes) {
    if !bytes.is_empty() {
        out.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The events and the bytes of a stream that comes in these chunks; events that begin with `x` are withheld.
    fn scan(chunks: &[&[u8]], may_withhold: bool) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut scanner = SseScanner::new(may_withhold);
        let (mut events, mut out) = (Vec::new(), Vec::new());
        let mut read = |data: &[u8]| {
            events.push(data.to_vec());
            if data.starts_with(b"x") {
                Fate::Withhold
            } else {
                Fate::Pass
            }
        };
        for chunk in chunks {
            scanner.push(&Bytes::copy_from_slice(chunk), &mut read, &mut out);
        }
        scanner.finish(&mut read, &mut out);
        (events, out.concat())
    }

    fn texts(events: Vec<Vec<u8>>) -> Vec<String> {
        events
            .into_iter()
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    #[test]
    fn events_are_found_whatever_ends_their_lines() {
        let stream = "\u{FEFF}data: one\n\n: a comment\r\ndata:two\r\ndata: lines\r\n\r\nevent: e\rdata\rdata: x\r\rid: 1\n\ndata: cut off";
        let (events, out) = scan(&[stream.as_bytes()], false);
        assert_eq!(texts(events), ["one", "two\nlines", "\nx", "cut off"]);
        assert_eq!(out, stream.as_bytes());
    }

    #[test]
    fn a_withheld_event_takes_exactly_its_own_bytes_along() {
        let (events, out) = scan(
            &[
                b"data: a\r\n\r",
                b"\nid: 1\ndata: x\r\n\r",
                b"\ndata: b\n\n",
            ],
            true,
        );
        assert_eq!(texts(events), ["a", "x", "b"]);
        assert_eq!(out, b"data: a\r\n\r\ndata: b\n\n");
        let (_, out) = scan(&[b"data: x"], true);
        assert_eq!(out, b"");
    }

    #[test]
    fn an_empty_chunk_between_cr_and_lf_ends_no_event() {
        let (events, out) = scan(&[b"data: a\r", b"", b"\ndata: b\r\n\r\n"], false);
        assert_eq!(texts(events), ["a\nb"]);
        assert_eq!(out, b"data: a\r\ndata: b\r\n\r\n");
    }

    #[test]
    fn only_the_tail_of_an_incomplete_event_waits() {
        let mut scanner = SseScanner::new(true);
        let mut out = Vec::new();
        scanner.push(
            &Bytes::from_static(b"data: a\n\nda"),
            &mut |_| Fate::Pass,
            &mut out,
        );
        assert_eq!(out.concat(), b"data: a\n\n");
        let mut scanner = SseScanner::new(false);
        let whole = Bytes::from_static(b"data: a\n\nda");
        let mut out = Vec::new();
        scanner.push(&whole, &mut |_| Fate::Pass, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), whole.as_ptr(), "the bytes were copied");
    }

    #[test]
    fn an_event_beyond_the_bound_passes_unread() {
        let long = format!("data: x{}\n\ndata: y\n\n", "-".repeat(MAX_EVENT_BYTES));
        for may_withhold in [false, true] {
            for size in [1000, 4096, long.len()] {
                let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
                let (events, out) = scan(&chunks, may_withhold);
                assert_eq!(texts(events), ["y"]);
                assert!(out == long.as_bytes(), "bytes were changed");
            }
        }
    }

    proptest! {
        #[test]
        fn every_cut_of_a_stream_gives_the_same(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "data: a", "data: x", "data:x2", "data", "data:", ": c", "id: 1", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "é",
            ]), 0..24),
            cuts in prop::collection::vec(0..200_usize, 0..12),
            may_withhold in any::<bool>(),
        ) {
            let stream = pieces.concat().into_bytes();
            let whole = scan(&[&stream], may_withhold);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(scan(&chunks, may_withhold), whole.clone());
            let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(scan(&bytewise, may_withhold), whole.clone());
            if !may_withhold {
                prop_assert_eq!(whole.1, stream);
            }
        }

        #[test]
        fn any_bytes_pass_unchanged(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(scan(&slices, false).1, chunks.concat());
        }
    }
}
