//! The binary `gridbackup`.

/// What several threads free goes back to the system. With the C library's allocator a disk that needed 235 MB held 1.5 GB
/// (docs/decisions/0073-allocator.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    node::cli::main()
}
