//! What might happen next in a state: generously, since a step that is not possible does nothing.

use super::action::{Action, Fate};
use super::cast::ACCOUNTS;
use super::world::World;

/// All that might be possible; what is not does nothing.
pub fn candidates(world: &World) -> Vec<Action> {
    let mut all = vec![
        Action::Tick,
        Action::Age,
        Action::Copy,
        Action::ComeBack,
        Action::OldGone,
    ];
    for call in 0..world.calls.len() {
        let metered = world.calls[call].metered;
        all.extend([
            Action::Reserve(call),
            Action::GiveUp(call),
            Action::Progress(call, metered),
            Action::Progress(call, 3),
            Action::End(call, 0),
            Action::End(call, 2),
            Action::End(call, 6),
            Action::Settle(call),
            Action::See(call),
            Action::Drop(call),
        ]);
    }
    for command in &world.net {
        for fate in [Fate::Heard, Fate::Lost, Fate::Twice, Fate::Late] {
            all.push(Action::Arrive(command.side, command.verb, fate));
        }
    }
    let late = world.late.iter();
    all.extend(late.map(|(command, _)| Action::Hear(command.side, command.verb)));
    for side in 0..world.sides.len() {
        all.extend(of_side(world, side));
    }
    for account in 0..ACCOUNTS {
        all.extend([
            Action::Grant(account),
            Action::Adjust(account, 2),
            Action::Adjust(account, -3),
            Action::Withdraw(account),
        ]);
    }
    for name in 0..3 {
        all.push(Action::Wipe(name));
        for copy in 0..world.copies.len() {
            all.push(Action::FailOver(copy, name));
        }
    }
    all
}

fn of_side(world: &World, side: usize) -> Vec<Action> {
    let mut all = vec![
        Action::AskDrained(side),
        Action::Expire(side),
        Action::Apply(side),
        Action::FlushRead(side, 1),
        Action::FlushRead(side, usize::MAX),
        Action::FlushCommit(side),
        Action::FlushForget(side),
        Action::FlushStop(side),
        Action::CheckRead(side),
        Action::CheckSave(side),
        Action::CheckOpen(side),
        Action::CheckStop(side),
        Action::Rebuild(side),
        Action::Disconnect(side),
        Action::Crash(side),
    ];
    all.extend((0..ACCOUNTS).map(|account| Action::Load(side, account)));
    all.extend((0..world.calls.len()).map(|call| Action::Sweep(side, call)));
    all
}
