//! The verbs as scripts: what each is made of, and its hash.
//!
//! A script is its flags, the constants it shares with Rust, the parts of the prelude it uses, and the verb itself.

use redis::Script as Hashed;

use super::ClockSource;
use crate::money::{MAX_BALANCE, MAX_DEBT};
use crate::quota::ENDED_MARK_MS;

/// A script, ready to be called.
#[derive(Debug)]
pub(super) struct Script {
    /// What is sent where the server does not know the hash.
    pub text: String,
    /// What is sent first.
    pub hash: String,
}

/// Every script of the store.
#[derive(Debug)]
pub(super) struct Scripts {
    pub reserve: Script,
    pub progress: Script,
    pub settle: Script,
    pub lapse: Script,
    pub overdue: Script,
    pub expire: Script,
    pub load: Script,
    pub apply: Script,
    pub view: Script,
    pub open: Script,
    pub outbox: Script,
    pub forget: Script,
    pub account: Script,
}

/// Refused when the server is out of memory.
const GROWS: &str = "#!lua";
/// Endings, and what frees memory or leaves it as it is (rule 14).
const ALWAYS: &str = "#!lua flags=allow-oom";
/// Reads alone.
const READS: &str = "#!lua flags=no-writes";

const EXACT: &str = include_str!("../../../lua/prelude/exact.lua");
const HEADER: &str = include_str!("../../../lua/prelude/header.lua");
const SERVER: &str = include_str!("../../../lua/prelude/server.lua");
const ACCOUNT: &str = include_str!("../../../lua/prelude/account.lua");
const RESERVATION: &str = include_str!("../../../lua/prelude/reservation.lua");
const LOTS: &str = include_str!("../../../lua/prelude/lots.lua");
const REPAY: &str = include_str!("../../../lua/prelude/repay.lua");
const ENTRY: &str = include_str!("../../../lua/prelude/entry.lua");
const WITHDRAW: &str = include_str!("../../../lua/prelude/withdraw.lua");
const ENDING: &str = include_str!("../../../lua/prelude/ending.lua");
const SERVER_CLOCK: &str = include_str!("../../../lua/prelude/clock_server.lua");
const CALLER_CLOCK: &str = include_str!("../../../lua/prelude/clock_caller.lua");

macro_rules! verb {
    ($name:literal) => {
        include_str!(concat!("../../../lua/", $name, ".lua"))
    };
}

impl Scripts {
    pub fn new(clock: &ClockSource) -> Self {
        let clock = match clock {
            ClockSource::Server => SERVER_CLOCK,
            ClockSource::Caller(_) => CALLER_CLOCK,
        };
        let hold = [HEADER, clock, EXACT, ACCOUNT, RESERVATION];
        let ending = [&hold[..], &[LOTS, ENTRY, ENDING]].concat();
        let credit = [HEADER, clock, EXACT, ACCOUNT, LOTS, ENTRY, WITHDRAW, REPAY];
        let expiry = [HEADER, clock, EXACT, ACCOUNT, ENTRY, WITHDRAW];
        let deadline = [HEADER, clock, RESERVATION];
        Self {
            reserve: Script::new(GROWS, &hold, verb!("reserve")),
            progress: Script::new(ALWAYS, &deadline, verb!("progress")),
            settle: Script::new(ALWAYS, &ending, verb!("settle")),
            lapse: Script::new(ALWAYS, &ending, verb!("lapse")),
            overdue: Script::new(READS, &[HEADER, clock], verb!("overdue")),
            expire: Script::new(ALWAYS, &expiry, verb!("expire")),
            load: Script::new(GROWS, &credit, verb!("load")),
            apply: Script::new(GROWS, &credit, verb!("apply")),
            view: Script::new(READS, &[SERVER, clock], verb!("view")),
            open: Script::new(GROWS, &[], verb!("open")),
            outbox: Script::new(READS, &[HEADER, SERVER], verb!("outbox")),
            forget: Script::new(ALWAYS, &[HEADER], verb!("forget")),
            account: Script::new(READS, &hold, verb!("account")),
        }
    }
}

impl Script {
    fn new(flags: &str, prelude: &[&str], verb: &str) -> Self {
        let constants = format!(
            "local MAX_BALANCE, MAX_DEBT, ENDED_MARK_MS = '{MAX_BALANCE}', '{MAX_DEBT}', {ENDED_MARK_MS}"
        );
        let text = [&[flags, &constants], prelude, &[verb]].concat().join("\n");
        let hash = Hashed::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}
