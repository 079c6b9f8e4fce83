//! The way between a virtual disk and the grid: its packs are sealed and delivered by the write side of backups, and read by the read side.
//! What is in them is the disk's; when a commit is made, and who is asked to take it, is not decided here.

pub mod incoming;
pub mod outgoing;

#[cfg(test)]
mod tests;
