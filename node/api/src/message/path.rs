//! Paths in messages: text for people, the exact bytes beside it where the name is not UTF-8.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// A path as bytes. In JSON an object with `path` and, only if the name is not UTF-8, `path_bytes` (base64); flatten it
/// into a message. A plain string is read, too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "Fields", try_from = "Written")]
pub struct PathName(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Fields {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Fields(Fields),
}

impl PathName {
    /// For people: what is not UTF-8 is shown as U+FFFD.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// For the file system.
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsString::from_vec(self.0.clone()))
    }
}

impl From<&[u8]> for PathName {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&Path> for PathName {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<&OsStr> for PathName {
    fn from(path: &OsStr) -> Self {
        Self(path.as_bytes().to_vec())
    }
}

impl From<PathName> for Fields {
    fn from(name: PathName) -> Self {
        match String::from_utf8(name.0) {
            Ok(path) => Self { path, path_bytes: None },
            Err(error) => Self {
                path: String::from_utf8_lossy(error.as_bytes()).into_owned(),
                path_bytes: Some(BASE64.encode(error.as_bytes())),
            },
        }
    }
}

impl TryFrom<Written> for PathName {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Text(path) | Written::Fields(Fields { path, path_bytes: None }) => Ok(Self(path.into_bytes())),
            Written::Fields(Fields {
                path_bytes: Some(base64),
                ..
            }) => BASE64
                .decode(base64.as_bytes())
                .map(Self)
                .map_err(|error| format!("`path_bytes`: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_names_are_plain_text_and_others_keep_their_bytes() {
        let plain = PathName::from(Path::new("/home/ä"));
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"path":"/home/ä"}"#);
        let odd = PathName(b"/x/\xff".to_vec());
        let json = serde_json::to_string(&odd).unwrap();
        assert_eq!(json, r#"{"path":"/x/�","path_bytes":"L3gv/w=="}"#);
        assert_eq!(serde_json::from_str::<PathName>(&json).unwrap(), odd);
        assert_eq!(serde_json::from_str::<PathName>(r#""/home/ä""#).unwrap(), plain);
        assert!(serde_json::from_str::<PathName>(r#"{"path":"x","path_bytes":"!"}"#).is_err());
    }
}
