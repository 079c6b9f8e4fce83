//! The binary `gridbackup`.

fn main() {}
