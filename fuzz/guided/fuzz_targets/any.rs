//! The target that `GRIDBACKUP_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use fuzz::engine::Target;
use fuzz::heard::Heard;
use fuzz::targets::ALL;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("GRIDBACKUP_FUZZ_TARGET").expect("GRIDBACKUP_FUZZ_TARGET names a target");
        let found = ALL.iter().copied().find(|target| target.name == name);
        found.expect("there is a target of that name")
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (target().run)(input, &mut Heard::default());
});
