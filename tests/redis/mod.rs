//! What is Redis's own: its connections, its scripts, and what they cost.

mod connections;
mod cost;
mod exact;
mod resharding;
mod scripts;
mod unreadable;
