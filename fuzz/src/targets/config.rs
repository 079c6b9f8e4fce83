//! config.toml, and what the `settings` of a head say of it.

use std::path::Path;

use engine::config::ConfigFile;
use toml_edit::DocumentMut;

use crate::engine::{Cost, Target};
use crate::heard::Heard;

/// The target.
pub const TARGET: Target = Target {
    name: "config",
    run,
    seeds,
    golden: &[],
    words: &[
        b"\n",
        b"= ",
        b"[peers.",
        b"[[schedule]]\n",
        b"\"\"\"",
        b"\"10G\"",
        b"\"15%\"",
        b"\"1d\"",
        b"\"07:00\"",
        b"1979-05-27T07:32:00Z",
        b"inf",
        b"{a={a={a=",
        b"[[[[[[",
        b"a.a.a.a",
        b"**/",
        b"{a,b}",
        b"\\u0000",
    ],
    cost: Cost {
        bytes: 16 << 20,
        ..Cost::SMALL
    },
};

fn seeds() -> Vec<Vec<u8>> {
    let everything = r#"# mine
name = "laptop"
tolerate = 3
folders = ["/home/ann", "/etc"]
exclude = ["*.tmp", "!/keep/**", "node_modules/"]
one_file_system = true
listen = ["/ip4/0.0.0.0/tcp/4250"]
announce = ["/dns4/home.example.org/tcp/4250"]
mdns = false
spool_max = "10G"
store_max = "15%"
min_free = "5%"
limit_upload = "1M"
zstd_level = 3
interval = "1h"
verify_interval = ""
verify_files = 20
steward = "oak"

[peers.usb]
url = "dir:/mnt/usb"
quota = "1T"

[peers."my bucket"]
url = "s3://bucket/prefix?region=eu-west-3"
storage_class = "STANDARD_IA"
price = 0.0125
shares = 2

[[schedule]]
from = "22:00"
to = "07:00"
limit_upload = "10M"
"#;
    let short = [
        "",
        "name = \"x\"\n",
        "peers = { a = { quota = 5 } }\n",
        "priority = { recent = 1.0 }\n",
    ];
    let texts = std::iter::once(everything).chain(short);
    texts.map(|text| text.as_bytes().to_vec()).collect()
}

fn run(input: &[u8], heard: &mut Heard) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new("/config.toml");
    if let Some(file) = heard.note("config", ConfigFile::parse(path, text)) {
        assert_eq!(
            ConfigFile::parse(path, &file.text()).map(|again| again.config().clone()),
            Ok(file.config().clone())
        );
        assert!(file.config().validate().is_ok());
        edit(&file, text, heard);
    }
    // Settings that came with a head are taken item by item, where they are valid.
    if let Some(said) = heard.note("document", text.parse::<DocumentMut>()) {
        let mut file = ConfigFile::parse(path, "").expect("an empty config is one");
        for (key, item) in said.iter() {
            heard.count("adopted", usize::from(file.adopt(&[key], item)));
        }
        assert!(
            ConfigFile::parse(path, &file.text()).is_ok(),
            "what was adopted is valid"
        );
    }
}

/// What is typed at `config set`: the first line as key, the second as value.
fn edit(file: &ConfigFile, text: &str, heard: &mut Heard) {
    let mut lines = text.lines().map(|line| line.trim_start_matches("# "));
    let (key, value) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    for key in [key, "tolerate", "folders", "peers.usb.quota", "exclude", "interval"] {
        let mut edited = file.clone();
        if heard.note("set", edited.set(key, value)).is_some() {
            let again = ConfigFile::parse(Path::new("/config.toml"), &edited.text());
            assert_eq!(
                again.map(|again| again.config().clone()),
                Ok(edited.config().clone()),
                "{key}"
            );
        }
        let mut edited = file.clone();
        heard.note("unset", edited.unset(key));
        heard.note("list add", edited.list_add(key, value));
        heard.note("list remove", edited.list_remove(key, value));
        assert!(
            ConfigFile::parse(Path::new("/config.toml"), &edited.text()).is_ok(),
            "{key}"
        );
    }
}
