//! Reads and edits config.toml in place: comments, order and spacing stay as the user left them.

use std::fs;
use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::Config;

/// An open config.toml. Changes are typed and checked as they are made; `save` makes them durable.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    document: DocumentMut,
    config: Config,
}

/// Far above any config that a person writes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

impl ConfigFile {
    /// Reads the file; one that is not there is an empty one.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed =
            |error: &std::io::Error| Failure::context(format!("`{}` cannot be read: {error}", path.display()), error);
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("`{}` is too large for a config", path.display()),
                ));
            }
            // A pipe would be waited for without an end.
            Ok(metadata) if !metadata.is_file() => {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("`{}` is no regular file", path.display()),
                ));
            }
            Ok(_) => fs::read_to_string(path).map_err(|error| failed(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&error)),
        };
        Self::parse(path, &text)
    }

    /// A file with this text, not yet written.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let wrong = |line: Option<usize>, reason: &str| {
            let place = line.map_or_else(String::new, |line| format!(", line {line}"));
            Failure::new(Exit::Failed, format!("`{}`{place}: {reason}", path.display()))
                .hint("correct that line of the file")
        };
        let line = |span: Option<std::ops::Range<usize>>| span.map(|span| text[..span.start].matches('\n').count() + 1);
        let document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| wrong(line(error.span()), &one_line(error.message())))?;
        let config: Config =
            toml_edit::de::from_str(text).map_err(|error| wrong(line(error.span()), &one_line(error.message())))?;
        config.validate().map_err(|reason| wrong(None, &reason))?;
        Ok(Self {
            path: path.to_owned(),
            document,
            config,
        })
    }

    /// As it is now, with the changes made so far.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Puts an item at a path of keys, one that is valid there; whether it was.
    pub fn adopt(&mut self, keys: &[&str], item: &Item) -> bool {
        let Some((last, tables)) = keys.split_last() else {
            return false;
        };
        let mut document = self.document.clone();
        let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
        for part in tables {
            let item = table.entry(part).or_insert_with(|| {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            });
            match item.as_table_like_mut() {
                Some(below) => table = below,
                None => return false,
            }
        }
        match item.as_value() {
            Some(value) => put(table, last, value.clone().decorated(" ", "")),
            None => drop(table.insert(last, item.clone())),
        }
        let adopted = Self::parse(&self.path, &document.to_string());
        match adopted {
            Ok(adopted) => {
                *self = adopted;
                true
            }
            Err(failure) => {
                tracing::warn!("A setting that came with the backups is left out: {failure}");
                false
            }
        }
    }

    /// The text, with the changes made so far.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Makes the changes durable: the file is replaced whole or not at all.
    pub fn save(&self) -> Result<(), Failure> {
        // A config that is a link (dotfiles) stays one: its target is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        durable::replace(&path, &[self.text().as_bytes()])
            .map_err(|error| Failure::context(format!("`{}` cannot be written: {error}", path.display()), &error))
    }

    /// The value of a dotted key, built-in or set, as JSON; `None` if there is no such key.
    pub fn get(&self, key: &str) -> Option<serde_json::Value> {
        let all = serde_json::to_value(&self.config).ok()?;
        key.split('.').try_fold(&all, |value, part| value.get(part)).cloned()
    }

    /// Sets a dotted key to what was typed: a TOML value if it is one that fits, otherwise text, or for a list the texts
    /// between commas.
    pub fn set(&mut self, key: &str, typed: &str) -> Result<(), Failure> {
        self.set_parts(&key.split('.').collect::<Vec<_>>(), typed)
    }

    /// Sets a field of a peer, whatever its name is.
    pub fn set_of_peer(&mut self, name: &str, field: &str, typed: &str) -> Result<(), Failure> {
        self.set_parts(&["peers", name, field], typed)
    }

    fn set_parts(&mut self, parts: &[&str], typed: &str) -> Result<(), Failure> {
        let as_text = self.with(parts, Some(Value::from(typed)));
        let texts = || typed.split(',').map(str::trim).collect::<toml_edit::Array>();
        let as_text = as_text.or_else(|reason| self.with(parts, Some(texts().into())).map_err(|_| reason));
        let as_value = match typed.parse::<Value>() {
            Ok(value) => self.with(parts, Some(value)),
            Err(_) => Err(String::new()),
        };
        match as_value
            .or_else(|as_value| as_text.map_err(|as_text| if as_value.is_empty() { as_text } else { as_value }))
        {
            Ok(changed) => {
                *self = changed;
                Ok(())
            }
            Err(reason) => Err(Failure::new(
                Exit::Usage,
                format!("`{}` cannot be set to `{typed}`: {reason}", parts.join(".")),
            )
            .hint("`gridbackup config get` shows every key and its value")),
        }
    }

    /// Removes a dotted key, so that its default holds; was it there?
    pub fn unset(&mut self, key: &str) -> Result<bool, Failure> {
        let before = self.text();
        *self = self
            .with(&key.split('.').collect::<Vec<_>>(), None)
            .map_err(|reason| Failure::new(Exit::Failed, reason))?;
        Ok(self.text() != before)
    }

    /// Adds to a list of strings; was it not there before?
    pub fn list_add(&mut self, key: &str, entry: &str) -> Result<bool, Failure> {
        let mut list = self.list(key)?;
        if list.iter().any(|value| value.as_str() == Some(entry)) {
            return Ok(false);
        }
        list.push(entry);
        self.put_list(key, list)?;
        Ok(true)
    }

    /// Removes from a list of strings; was it there?
    pub fn list_remove(&mut self, key: &str, entry: &str) -> Result<bool, Failure> {
        let mut list = self.list(key)?;
        let Some(index) = list.iter().position(|value| value.as_str() == Some(entry)) else {
            return Ok(false);
        };
        list.remove(index);
        self.put_list(key, list)?;
        Ok(true)
    }

    fn list(&self, key: &str) -> Result<Array, Failure> {
        match self.document.get(key) {
            None => Ok(Array::new()),
            Some(item) => item
                .as_array()
                .cloned()
                .ok_or_else(|| Failure::new(Exit::Failed, format!("`{}`: `{key}` is no list", self.path.display()))),
        }
    }

    fn put_list(&mut self, key: &str, list: Array) -> Result<(), Failure> {
        *self = self
            .with(&[key], Some(Value::Array(list)))
            .map_err(|reason| Failure::new(Exit::Usage, reason))?;
        Ok(())
    }

    /// The file with one key changed, if its types still hold.
    fn with(&self, parts: &[&str], value: Option<Value>) -> Result<Self, String> {
        let mut document = self.document.clone();
        let Some((last, tables)) = parts.split_last() else {
            return Err("it names no setting".to_owned());
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err("it names no setting".to_owned());
        }
        let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
        for part in tables {
            let item = table.entry(part).or_insert_with(|| {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            });
            table = item
                .as_table_like_mut()
                .ok_or_else(|| format!("`{part}` is no table"))?;
        }
        match value {
            Some(value) => put(table, last, value),
            None => drop(table.remove(last)),
        }
        let text = document.to_string();
        let config: Config = toml_edit::de::from_str(&text).map_err(|error| one_line(error.message()))?;
        config.validate()?;
        Ok(Self {
            path: self.path.clone(),
            document,
            config,
        })
    }
}

/// Sets a value where the old one stood, with the comment that stands behind it.
fn put(table: &mut dyn toml_edit::TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}

fn one_line(message: &str) -> String {
    message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use durable::power_cut::{Found, Trial};

    use super::*;

    const TEXT: &str = "# mine\nname = \"nas\" # the black one\n\n# how safe\ntolerate = 2 # friends\nfolders = [\n  \"/home/a\", # me\n]\n";

    fn file(text: &str) -> Result<ConfigFile, Failure> {
        ConfigFile::parse(Path::new("/x/config.toml"), text)
    }

    /// It said that the changes are durable, and never synced the folder.
    #[test]
    fn what_was_saved_survives_a_power_cut() {
        let root = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(root.path()).unwrap();
        let mut changed = file(TEXT).unwrap();
        changed.set("tolerate", "3").unwrap();
        let (old, new) = (TEXT.to_owned(), changed.text());
        let row = Trial {
            name: "ConfigFile::save",
            ready: &|root| fs::write(root.join("config.toml"), &old).unwrap(),
            act: &|root| {
                let config = ConfigFile::parse(&root.join("config.toml"), &new);
                let saved = config.and_then(|config| config.save());
                saved.map_err(|failure| failure.to_string())
            },
            found: &|root| {
                let found = fs::read(root.join("config.toml")).ok();
                Found::is(found.as_deref(), Some(old.as_bytes()), Some(new.as_bytes()))
            },
        };
        println!("{}", row.run(&root));
    }

    #[test]
    fn a_change_keeps_every_comment() {
        let mut config = file(TEXT).unwrap();
        config.set("tolerate", "3").unwrap();
        config.set("limit_upload", "5M").unwrap();
        config.set("peers.usb.url", "dir:/mnt/usb").unwrap();
        assert!(config.list_add("folders", "/home/b").unwrap());
        assert!(!config.list_add("folders", "/home/b").unwrap());
        let text = config.text();
        for comment in [
            "# mine",
            "# the black one",
            "# how safe",
            "tolerate = 3 # friends",
            "# me",
        ] {
            assert!(text.contains(comment), "{comment} is gone:\n{text}");
        }
        let again = file(&text).unwrap();
        assert_eq!(again.config(), config.config());
        assert_eq!(again.config().folders.len(), 2);
        assert_eq!(again.config().limit_upload.unwrap().0, 5 << 20);
        assert_eq!(again.config().peers["usb"].url.as_deref(), Some("dir:/mnt/usb"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let failure = file("name = \"x\"\n\ntolerat = 2\n").unwrap_err();
        assert!(
            failure.error.contains("line 3") && failure.error.contains("tolerat"),
            "{failure}"
        );
        let failure = file("tolerate = \n").unwrap_err();
        assert!(failure.error.contains("line 1"), "{failure}");
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_and_nothing_changes() {
        let mut config = file(TEXT).unwrap();
        for (key, value) in [
            ("tolerate", "many"),
            ("tolerate", "99"),
            ("tolerat", "2"),
            ("", "2"),
            ("name.x", "2"),
            ("zstd_level", "0"),
        ] {
            let failure = config.set(key, value).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{failure}");
        }
        assert_eq!(config.text(), TEXT);
        config.set("name", "5").unwrap();
        assert_eq!(config.config().name, "5");
    }

    #[test]
    fn a_key_is_read_whether_set_or_built_in() {
        let config = file(TEXT).unwrap();
        assert_eq!(config.get("tolerate"), Some(2.into()));
        assert_eq!(config.get("zstd_level"), Some(3.into()));
        assert_eq!(config.get("nothing.here"), None);
    }

    #[test]
    fn removing_a_peer_removes_its_table() {
        let mut config = file("[peers.usb] # disk\nurl = \"dir:/mnt\"\n").unwrap();
        assert!(config.unset("peers.usb").unwrap());
        assert!(!config.unset("peers.usb").unwrap());
        assert!(config.config().peers.is_empty());
    }
}
