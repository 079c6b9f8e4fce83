//! Each target for `GRIDBACKUP_FUZZ_SECS` seconds.

use fuzz::engine::run;
use fuzz::targets;

#[test]
fn formats() {
    run(&targets::formats::TARGET);
}

#[test]
fn wire() {
    run(&targets::wire::TARGET);
}

#[test]
fn ticket() {
    run(&targets::ticket::TARGET);
}

#[test]
fn roster() {
    run(&targets::roster::TARGET);
}

#[test]
fn restore() {
    run(&targets::restore::TARGET);
}

#[test]
fn objects() {
    run(&targets::objects::TARGET);
}

#[test]
fn s3() {
    run(&targets::s3::TARGET);
}

#[test]
fn api() {
    run(&targets::api::TARGET);
}

#[test]
fn config() {
    run(&targets::config::TARGET);
}

/// A folder of inputs that no target reads would go stale in silence.
#[test]
fn every_folder_of_inputs_has_its_target() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(corpus).expect("the corpora are there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(targets::ALL.iter().any(|target| target.name == name), "{name}");
    }
}
