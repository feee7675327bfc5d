//! The verbs as scripts: what each is made of, and its hash.
//!
//! A script is its flags, the constants it shares with Rust, the parts of the prelude it uses, and the verb itself. It is
//! sent without its comments and with each constant's value in the place of its name.

use std::collections::HashMap;

use redis::Script as Hashed;

use super::ClockSource;
use crate::money::{MAX_BALANCE, MAX_DEBT};
use crate::quota::{ENDED_MARK_MS, MAX_LINES};

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

/// The first byte of a hold is how many lines it has: so much MessagePack writes in one byte, and begins no text with.
const _: () = assert!(MAX_LINES < 0x80);

/// Refused when the server is out of memory.
const GROWS: &str = "#!lua";
/// Endings, and what frees memory or leaves it as it is (rule 14).
const ALWAYS: &str = "#!lua flags=allow-oom";
/// Reads alone.
const READS: &str = "#!lua flags=no-writes";

const EPOCH: &str = include_str!("../../../lua/prelude/epoch.lua");
const EXACT: &str = include_str!("../../../lua/prelude/exact.lua");
const SERVER: &str = include_str!("../../../lua/prelude/server.lua");
const ACCOUNT: &str = include_str!("../../../lua/prelude/account.lua");
const RESERVATION: &str = include_str!("../../../lua/prelude/reservation.lua");
const DETAIL: &str = include_str!("../../../lua/prelude/detail.lua");
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
        let hold = [EPOCH, clock, EXACT, ACCOUNT, RESERVATION];
        let ending = [&hold[..], &[LOTS, ENTRY, ENDING]].concat();
        let lapse = [&ending[..], &[DETAIL]].concat();
        let credit = [EPOCH, clock, EXACT, ACCOUNT, LOTS, ENTRY, WITHDRAW, REPAY];
        let expiry = [EPOCH, clock, EXACT, ACCOUNT, ENTRY, WITHDRAW];
        let deadline = [EPOCH, clock, RESERVATION, DETAIL];
        Self {
            reserve: Script::new(GROWS, &hold, verb!("reserve")),
            progress: Script::new(ALWAYS, &deadline, verb!("progress")),
            settle: Script::new(ALWAYS, &ending, verb!("settle")),
            lapse: Script::new(ALWAYS, &lapse, verb!("lapse")),
            overdue: Script::new(READS, &[EPOCH, clock], verb!("overdue")),
            expire: Script::new(ALWAYS, &expiry, verb!("expire")),
            load: Script::new(GROWS, &credit, verb!("load")),
            apply: Script::new(GROWS, &credit, verb!("apply")),
            view: Script::new(READS, &[SERVER, clock], verb!("view")),
            open: Script::new(GROWS, &[], verb!("open")),
            outbox: Script::new(READS, &[EPOCH, SERVER], verb!("outbox")),
            forget: Script::new(ALWAYS, &[EPOCH], verb!("forget")),
            account: Script::new(READS, &hold, verb!("account")),
        }
    }
}

impl Script {
    fn new(flags: &str, prelude: &[&str], verb: &str) -> Self {
        // `PX` as text, as every number that a script hands to a command: Redis would write it with `%.17g`, which is slow.
        let constants = format!(
            "local MAX_LINES, MAX_BALANCE, MAX_DEBT, ENDED_MARK_MS, ENDED_MARK_PX = \
             {MAX_LINES}, '{MAX_BALANCE}', '{MAX_DEBT}', {ENDED_MARK_MS}, '{ENDED_MARK_MS}'"
        );
        let text = [&[&*constants], prelude, &[verb]].concat().join("\n");
        let text = format!("{flags}\n{}", folded(&text));
        let hash = Hashed::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

/// Puts values in the place of constants, and drops comments.
///
/// To Lua a constant is a variable that each function which names it has to capture, anew in every call: that took 6 of
/// the 53 microseconds of a reserve and its settle.
fn folded(text: &str) -> String {
    let mut constants = HashMap::new();
    let mut code = Vec::new();
    for line in text.lines() {
        let line = line.split("--").next().unwrap_or_default().trim_end();
        match constants_of(line) {
            Some(found) => constants.extend(found),
            None => code.push(line),
        }
    }
    let code = code.join("\n");
    let mut folded = String::with_capacity(code.len());
    // Every other piece is a text: it stays as it is.
    for (place, piece) in code.split('\'').enumerate() {
        if place > 0 {
            folded.push('\'');
        }
        if place % 2 == 1 {
            folded.push_str(piece);
            continue;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in piece.split_inclusive(|c| !is_name(c)) {
            let name = word.trim_end_matches(|c| !is_name(c));
            folded.push_str(constants.get(name).copied().unwrap_or(name));
            folded.push_str(&word[name.len()..]);
        }
    }
    folded
}

/// The names and values of a line that says nothing else: `local FIRST, SECOND = 1, 2`.
fn constants_of(line: &str) -> Option<Vec<(&str, &str)>> {
    let (names, values) = line.strip_prefix("local ")?.split_once(" = ")?;
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let is_literal = |value: &str| value.starts_with(|c: char| c.is_ascii_digit() || c == '\'');
    let (names, values) = (names.split(", "), values.split(", "));
    let are_constants = names.clone().all(is_name) && values.clone().all(is_literal);
    are_constants.then(|| names.zip(values).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_folded_and_texts_are_not() {
        let text = "local ONE, TEXT = 1, 'a b'\n-- ONE's comment\nlocal ONES = { ONE } -- another's\nreturn ONE + f(TEXT, 'ONE')";
        assert_eq!(
            folded(text),
            "\nlocal ONES = { 1 }\nreturn 1 + f('a b', 'ONE')"
        );
    }

    #[test]
    fn no_script_names_a_constant() {
        let scripts = Scripts::new(&ClockSource::Server);
        for script in [
            &scripts.reserve,
            &scripts.settle,
            &scripts.lapse,
            &scripts.load,
        ] {
            let left = script
                .text
                .lines()
                .find(|line| line.starts_with("local MAX") || line.contains("FIRST_"));
            assert_eq!(left, None);
        }
    }
}
