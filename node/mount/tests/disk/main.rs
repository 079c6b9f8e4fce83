//! A disk that is mounted as a file, as programs meet it: by its promises (`promises`), by what it refuses (`refusals`), by 20,000
//! operations at random (`random`), and by the kernel's loop device with file systems on it (`loops`).
//!
//! `fsx.sh` beside this file runs the file system exerciser of FreeBSD on it, which has to be built first.

#[path = "../../../../tests/kit/left_out.rs"]
mod left_out;
mod loops;
mod mounted;
mod promises;
mod random;
mod refusals;
