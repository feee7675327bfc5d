//! Meters that read an answer as it goes by: one for streams of events, one for whole answers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::gate::COUNTED_IN_PLACE_UP_TO_BYTES;
use super::meter::{Meter, UNSAID};
use crate::dialect::count_output;
use crate::dialect::openai::{AnswerReader, StreamReader};
use crate::quota::Reservation;

/// Reads one stream. Dropping it, at its end or because the caller left, ends the reservation.
pub struct StreamMeter {
    reader: Box<StreamReader>,
    meter: Arc<Meter>,
    /// What may go on to the caller.
    pieces: VecDeque<Bytes>,
    _reservation: Reservation,
}

impl StreamMeter {
    /// A meter for a stream that is about to begin.
    pub fn new(meter: Arc<Meter>, reservation: Reservation, reader: Box<StreamReader>) -> Self {
        Self {
            reader,
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
        let mut out = Vec::new();
        self.reader.push(piece, &mut out);
        self.pieces.extend(out);
        self.meter.saw(self.reader.answered());
    }

    /// The stream came to its end, or the upstream broke it off: what went by is what is charged.
    pub fn finish(&mut self) {
        let mut out = Vec::new();
        self.reader.finish(&mut out);
        self.pieces.extend(out);
        self.meter.saw(self.reader.answered());
        self.meter.ended();
    }
}

/// Reads one whole answer.
pub struct AnswerMeter {
    reader: AnswerReader,
    meter: Arc<Meter>,
}

impl AnswerMeter {
    /// A meter for an answer that is about to begin.
    pub fn new(meter: Arc<Meter>, reader: AnswerReader) -> Self {
        Self { reader, meter }
    }

    /// Reads what the upstream sent.
    pub fn read(&mut self, piece: &[u8]) {
        self.reader.push(piece);
    }

    /// The answer is over and `whole` is all of it: where it does not say its usage, its words are counted.
    pub async fn finish_kept(&self, whole: &Bytes) {
        let mut answered = self.reader.answered();
        if answered.usage.is_none() {
            match self.count(whole).await {
                Some(tokens) => answered.output_seen = tokens,
                None => self.meter.unreadable(UNSAID),
            }
        }
        self.meter.saw(&answered);
        self.meter.ended();
    }

    /// The answer is over, or as much of it as there will be, and was not kept: where it did not say its usage, all the
    /// output that was held is charged.
    pub fn finish(&self) {
        let answered = self.reader.answered();
        if answered.usage.is_none() {
            self.meter.unreadable(UNSAID);
        }
        self.meter.saw(&answered);
        self.meter.ended();
    }

    /// Counts an answer with its JSON around it: more than it was, and never more than was held. A large one is counted
    /// away from the tasks that others' calls run on; `None` if that fails.
    async fn count(&self, whole: &Bytes) -> Option<i64> {
        let most = self.meter.most_output();
        let (model, whole) = (self.meter.model().to_owned(), whole.clone());
        let large = whole.len() > COUNTED_IN_PLACE_UP_TO_BYTES;
        let count = move || count_output(&model, &String::from_utf8_lossy(&whole)).min(most);
        if large {
            tokio::task::spawn_blocking(count).await.ok()
        } else {
            Some(count())
        }
    }
}
