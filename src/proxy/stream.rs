//! The meter of a stream: it reads the events that go by, and keeps from the caller the one it did not ask for.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::meter::Meter;

use crate::quota::Reservation;

/// Reads one stream. Dropping it ends the reservation.
pub struct StreamMeter {
    meter: Arc<Meter>,
    /// What may go on to the caller.
    pieces: VecDeque<Bytes>,
    /// Kept only to be dropped: that ends it, as the meter says.
    reservation: Option<Reservation>,
}
use super::body::BodyError;
impl StreamMeter {
    pub fn new(_: Arc<Meter>, _: Reservation, _: bool) -> Self {
        todo!()
    }
    pub fn next_piece(&mut self) -> Option<Bytes> {
        self.pieces.pop_front()
    }
    pub fn read(&mut self, _: Bytes) {}
    pub fn broke_off(&mut self) {}
    pub fn finish(&mut self) {}
}
pub struct AnswerMeter;
impl AnswerMeter {
    pub fn new(_: Arc<Meter>) -> Self {
        Self
    }
    pub fn read(&mut self, _: &[u8]) {}
    pub fn finish(&mut self, _: &[u8]) {}
    pub fn broke_off(&mut self) {}
}
