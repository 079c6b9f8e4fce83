//! The binary `gridbackup`.

fn main() -> std::process::ExitCode {
    node::cli::main()
}
