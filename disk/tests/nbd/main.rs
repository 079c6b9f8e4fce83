//! The NBD server as clients meet it: by bytes that are made by hand (`handshake`, `commands`, `clients`, `places`), and by the tools
//! that people use (`tools`).

mod client;
mod clients;
mod commands;
mod handshake;
#[path = "../../../tests/kit/left_out.rs"]
mod left_out;
mod places;
mod served;
mod tools;
