//! Meters that read an answer as it goes by: one for streams of events, one for whole answers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::meter::Meter;
use crate::dialect::Encoding;
use crate::dialect::openai::{AnswerReader, Chunk, StreamReader};
use crate::quota::Reservation;

/// Answers up to this size have their words counted where they do not say their usage.
const COUNTED_UP_TO_BYTES: usize = 1024 * 1024;

/// Reads one stream. Dropping it, at its end or because the caller left, ends the reservation.
pub struct StreamMeter {
    reader: StreamReader,
    meter: Arc<Meter>,
    /// What may go on to the caller.
    pieces: VecDeque<Bytes>,
    _reservation: Reservation,
}

impl StreamMeter {
    /// A meter for a stream that is about to begin.
    pub fn new(meter: Arc<Meter>, reservation: Reservation, hide_usage_event: bool) -> Self {
        Self {
            reader: StreamReader::new(meter.model(), hide_usage_event),
            meter,
            pieces: VecDeque::new(),
            _reservation: reservation,
        }
    }

    /// What may go on to the caller.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        self.pieces.pop_front()
    }

    /// Reads what the upstream sent.
    pub fn read(&mut self, piece: &Bytes) {
        let meter = &self.meter;
        self.reader
            .push(piece, &mut self.pieces, |chunk| note(meter, chunk));
    }

    /// The stream came to its end.
    pub fn finish(&mut self) {
        let meter = &self.meter;
        self.reader
            .finish(&mut self.pieces, |chunk| note(meter, chunk));
        meter.answered();
    }

    /// The upstream broke off: what went by is what is charged.
    pub fn broke_off(&mut self) {
        self.finish();
    }
}

fn note(meter: &Meter, chunk: Chunk) {
    if let Some(model) = chunk.model {
        meter.saw_model(model);
    }
    if chunk.output_tokens > 0 {
        meter.saw_output(chunk.output_tokens);
    }
    if let Some((usage, raw)) = chunk.usage {
        meter.saw_usage(usage, raw);
    }
}

/// Reads one whole answer.
pub struct AnswerMeter {
    reader: AnswerReader,
    meter: Arc<Meter>,
    bytes: usize,
}

impl AnswerMeter {
    /// A meter for an answer that is about to begin.
    pub fn new(meter: Arc<Meter>) -> Self {
        Self {
            reader: AnswerReader::default(),
            meter,
            bytes: 0,
        }
    }

    /// Reads what the upstream sent.
    pub fn read(&mut self, piece: &[u8]) {
        self.bytes += piece.len();
        self.reader.push(piece);
    }

    /// The answer is over, or as much of it as there will be; `whole` is all of it where it was kept.
    pub fn finish(&mut self, whole: Option<&[u8]>) {
        if let Some(model) = self.reader.model() {
            self.meter.saw_model(model);
        }
        match (self.reader.usage(), whole) {
            (Some((usage, raw)), _) => self.meter.saw_usage(usage, raw),
            (None, Some(whole)) if whole.len() <= COUNTED_UP_TO_BYTES => {
                // Counted with its JSON around it: more than it was, and never more than was held.
                let words = String::from_utf8_lossy(whole);
                let count = Encoding::of(self.meter.model()).count(&words);
                self.meter.saw_output(count.min(self.meter.most_output()));
            }
            (None, _) => self.meter.unreadable("the answer did not say its usage"),
        }
        self.meter.answered();
    }
}
