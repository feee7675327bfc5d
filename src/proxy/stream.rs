//! The meter of a stream: it reads the events that go by, and keeps from the caller the one it did not ask for.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::meter::Meter;
use crate::dialect::openai::StreamReader;
use crate::quota::Reservation;

/// Reads one stream. Dropping it ends the reservation.
pub struct StreamMeter {
    reader: StreamReader,
    meter: Arc<Meter>,
    /// What may go on to the caller.
    pieces: VecDeque<Bytes>,
    /// Kept only to be dropped: that ends it, as the meter says.
    reservation: Option<Reservation>,
}
