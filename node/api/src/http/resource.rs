//! What the API offers: one row a request. The row is its documentation (`GET /`), its route and its decoder at once, so
//! the three cannot disagree.

use axum::http::Method;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::template;
use crate::failure::{Exit, Failure};
use crate::request::Request;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    Text,
    /// Any number of texts.
    Texts,
    /// A path: in a query percent-encoded bytes, in a body text or `{"path", "path_bytes"}`.
    Path,
    /// Any number of paths.
    Paths,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// One thing that can be asked.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// Its name: what clients look for, and the `request` tag of its `Request`.
    pub rel: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// URI template.
    pub href: &'static str,
    /// Fields, in the template or in the JSON body.
    pub fields: &'static [(&'static str, Kind)],
}

const fn row(
    rel: &'static str,
    method: &'static str,
    href: &'static str,
    fields: &'static [(&'static str, Kind)],
) -> Resource {
    Resource {
        rel,
        method,
        href,
        fields,
    }
}

/// Everything that can be asked.
pub const RESOURCES: &[Resource] = &[
    row("ready", "GET", "/node", &[]),
    row("stop", "POST", "/node/stop", &[]),
    row("status", "GET", "/status{?paths*}", &[("paths", Kind::Paths)]),
    row("queue", "GET", "/queue{?limit}", &[("limit", Kind::Integer)]),
    row(
        "run_once",
        "POST",
        "/runs",
        &[("paths", Kind::Paths), ("accept_emptied", Kind::Boolean)],
    ),
    row(
        "snapshots",
        "GET",
        "/snapshots{?device,path,tags*,last,group_by*}",
        &[
            ("device", Kind::Text),
            ("path", Kind::Path),
            ("tags", Kind::Texts),
            ("last", Kind::Integer),
            ("group_by", Kind::Texts),
        ],
    ),
    row(
        "tag",
        "PATCH",
        "/snapshots",
        &[
            ("snapshots", Kind::Texts),
            ("add", Kind::Texts),
            ("remove", Kind::Texts),
            ("set", Kind::Texts),
        ],
    ),
    row(
        "pin",
        "POST",
        "/pins",
        &[("snapshots", Kind::Texts), ("pinned", Kind::Boolean)],
    ),
    row(
        "list",
        "GET",
        "/snapshots/{snapshot}/entries{?path,recursive}",
        &[
            ("snapshot", Kind::Text),
            ("path", Kind::Path),
            ("recursive", Kind::Boolean),
        ],
    ),
    row(
        "find",
        "GET",
        "/entries{?pattern,snapshot,path,newer,older,kind}",
        &[
            ("pattern", Kind::Text),
            ("snapshot", Kind::Text),
            ("path", Kind::Path),
            ("newer", Kind::Text),
            ("older", Kind::Text),
            ("kind", Kind::Text),
        ],
    ),
    row(
        "cat",
        "GET",
        "/snapshots/{snapshot}/content{?path}",
        &[("snapshot", Kind::Text), ("path", Kind::Path)],
    ),
    row(
        "diff",
        "GET",
        "/snapshots/{before}/changes{?after,path}",
        &[("before", Kind::Text), ("after", Kind::Text), ("path", Kind::Path)],
    ),
    row(
        "dump",
        "GET",
        "/snapshots/{snapshot}/archive{?path,format}",
        &[("snapshot", Kind::Text), ("path", Kind::Path), ("format", Kind::Text)],
    ),
    row("verify", "POST", "/verifications", &[("files", Kind::Integer)]),
    row("stats", "GET", "/statistics{?snapshot}", &[("snapshot", Kind::Text)]),
    row(
        "restore",
        "POST",
        "/restores",
        &[
            ("snapshot", Kind::Text),
            ("path", Kind::Path),
            ("target", Kind::Path),
            ("include", Kind::Texts),
            ("exclude", Kind::Texts),
            ("overwrite", Kind::Text),
            ("delete", Kind::Boolean),
            ("unsafe_delete", Kind::Boolean),
            ("dry_run", Kind::Boolean),
            ("verify", Kind::Boolean),
        ],
    ),
    row(
        "mount",
        "POST",
        "/mounts",
        &[
            ("at", Kind::Path),
            ("webdav", Kind::Text),
            ("allow_other", Kind::Boolean),
        ],
    ),
    row(
        "forget",
        "POST",
        "/retentions",
        &[
            ("snapshots", Kind::Texts),
            ("keep_last", Kind::Integer),
            ("keep_hourly", Kind::Integer),
            ("keep_daily", Kind::Integer),
            ("keep_weekly", Kind::Integer),
            ("keep_monthly", Kind::Integer),
            ("keep_yearly", Kind::Integer),
            ("keep_within_secs", Kind::Integer),
            ("keep_tags", Kind::Texts),
            ("unread", Kind::Boolean),
            ("devices", Kind::Texts),
            ("allow_empty_group", Kind::Boolean),
            ("prune", Kind::Boolean),
            ("dry_run", Kind::Boolean),
        ],
    ),
    row("prune", "POST", "/prunings", &[("dry_run", Kind::Boolean)]),
    row("undelete", "POST", "/undeletions", &[("snapshots", Kind::Texts)]),
    row("check", "POST", "/checks", &[("read_percent", Kind::Integer)]),
    row(
        "recover",
        "POST",
        "/recoveries",
        &[
            ("via", Kind::Texts),
            ("before", Kind::Text),
            ("tolerate", Kind::Integer),
        ],
    ),
    row("repair", "POST", "/repairs", &[("once", Kind::Boolean)]),
    row("folder_list", "GET", "/folders", &[]),
    row("folder_add", "POST", "/folders", &[("paths", Kind::Paths)]),
    row(
        "folder_remove",
        "DELETE",
        "/folders{?paths*}",
        &[("paths", Kind::Paths)],
    ),
    row("exclude_list", "GET", "/rules", &[]),
    row("exclude_add", "POST", "/rules", &[("patterns", Kind::Texts)]),
    row(
        "exclude_remove",
        "DELETE",
        "/rules{?patterns*}",
        &[("patterns", Kind::Texts)],
    ),
    row("doctor", "GET", "/doctor", &[]),
    row("peer_list", "GET", "/peers", &[]),
    row(
        "peer_add",
        "POST",
        "/peers",
        &[
            ("name", Kind::Text),
            ("url", Kind::Text),
            ("endpoint", Kind::Text),
            ("region", Kind::Text),
            ("storage_class", Kind::Text),
            ("quota", Kind::Integer),
            ("shares", Kind::Integer),
        ],
    ),
    row("peer_evict", "DELETE", "/peers/{name}/shares", &[("name", Kind::Text)]),
    row(
        "peer_remove",
        "DELETE",
        "/peers/{name}{?how}",
        &[("name", Kind::Text), ("how", Kind::Text)],
    ),
    row(
        "peer_set",
        "PATCH",
        "/peers/{name}",
        &[
            ("name", Kind::Text),
            ("quota", Kind::Integer),
            ("shares", Kind::Integer),
        ],
    ),
    row(
        "invite",
        "POST",
        "/invites",
        &[("name", Kind::Text), ("expires_secs", Kind::Integer)],
    ),
    row(
        "join",
        "POST",
        "/memberships",
        &[("ticket", Kind::Text), ("word", Kind::Text)],
    ),
    row("device_list", "GET", "/devices", &[]),
    row(
        "say",
        "POST",
        "/words",
        &[
            ("word", Kind::Text),
            ("put_out", Kind::Texts),
            ("take_back", Kind::Texts),
            ("unheard", Kind::Boolean),
        ],
    ),
    row("config_get", "GET", "/settings{?key}", &[("key", Kind::Text)]),
    row(
        "config_set",
        "PUT",
        "/settings/{key}",
        &[("key", Kind::Text), ("value", Kind::Text)],
    ),
];

/// The entry document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Says what answers.
    pub title: String,
    /// What can be asked.
    pub links: Vec<Link>,
}

/// A link, or a form if it has fields that are not in its template.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub rel: String,
    /// HTTP method.
    pub method: String,
    /// URI template.
    pub href: String,
    /// Its fields; those that are not in the template are sent as a JSON object.
    #[serde(default)]
    pub fields: Vec<Field>,
    /// The client chooses an `Idempotency-Key`; repeating it repeats the answer, not the deed.
    #[serde(default)]
    pub idempotency_key: bool,
}

/// A field of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// The entry document.
pub fn entry() -> Entry {
    let links = RESOURCES.iter().map(|resource| Link {
        rel: resource.rel.to_owned(),
        method: resource.method.to_owned(),
        href: resource.href.to_owned(),
        fields: resource
            .fields
            .iter()
            .map(|&(name, kind)| Field {
                name: name.to_owned(),
                kind,
            })
            .collect(),
        idempotency_key: resource.needs_key(),
    });
    Entry {
        title: format!("gridbackup {}", env!("CARGO_PKG_VERSION")),
        links: links.collect(),
    }
}

impl Resource {
    /// Only a request that changes something needs a key to be safe to repeat.
    pub fn needs_key(&self) -> bool {
        self.method != Method::GET.as_str()
    }

    /// The request in path variables, query pairs and body.
    pub fn decode(&self, pairs: Vec<(String, Vec<u8>)>, body: &[u8]) -> Result<Request, Failure> {
        let mut fields = match body {
            [] => Map::new(),
            body => serde_json::from_slice::<Map<String, Value>>(body)
                .map_err(|error| usage(format!("The body is not a JSON object: {error}")))?,
        };
        for (name, bytes) in pairs {
            let Some(&(_, kind)) = self.fields.iter().find(|(known, _)| *known == name) else {
                return Err(usage(format!("`{}` has no field `{name}`", self.rel)));
            };
            let value = read_text(&name, kind, bytes)?;
            match fields.get_mut(&name) {
                Some(Value::Array(values)) => values.push(value),
                _ if matches!(kind, Kind::Texts | Kind::Paths) => drop(fields.insert(name, Value::Array(vec![value]))),
                _ => drop(fields.insert(name, value)),
            }
        }
        fields.insert("request".to_owned(), self.rel.into());
        serde_json::from_value(Value::Object(fields)).map_err(|error| usage(format!("`{}`: {error}", self.rel)))
    }
}

fn usage(error: String) -> Failure {
    Failure::new(Exit::Usage, error).hint("GET / lists every request and its fields")
}

fn read_text(name: &str, kind: Kind, bytes: Vec<u8>) -> Result<Value, Failure> {
    if matches!(kind, Kind::Path | Kind::Paths) {
        return Ok(json!({ "path": String::from_utf8_lossy(&bytes), "path_bytes": BASE64.encode(&bytes) }));
    }
    let text = String::from_utf8(bytes).map_err(|_| usage(format!("`{name}` is not UTF-8")))?;
    match kind {
        Kind::Integer => text
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| usage(format!("`{name}` is no number"))),
        Kind::Boolean => text
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| usage(format!("`{name}` is no boolean"))),
        _ => Ok(Value::String(text)),
    }
}

/// What a client sends for `request` along `link`: method, URI and body.
pub fn encode(link: &Link, request: &Request) -> Result<(String, String, Vec<u8>), Failure> {
    let mut fields = match serde_json::to_value(request) {
        Ok(Value::Object(fields)) => fields,
        _ => return Err(Failure::new(Exit::Failed, "The request has no JSON form")),
    };
    fields.remove("request");
    let uri = template::expand(&link.href, &|name| values(fields.get(name)));
    for hole in template::holes(&link.href) {
        fields.remove(hole.name);
    }
    let body = match fields.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&fields).map_err(|error| Failure::from_error(&error))?,
    };
    Ok((link.method.clone(), uri, body))
}

/// The name of a request's link.
pub fn rel(request: &Request) -> String {
    let tag = serde_json::to_value(request).ok();
    tag.and_then(|value| value["request"].as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn values(value: Option<&Value>) -> Vec<Vec<u8>> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => values.iter().flat_map(values_of_one).collect(),
        Some(value) => values_of_one(value).into_iter().collect(),
    }
}

fn values_of_one(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(_) => serde_json::from_value::<crate::message::PathName>(value.clone())
            .ok()
            .map(|path| path.0),
        other => Some(other.to_string().into_bytes()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::message::PathName;
    use crate::request::{
        DumpFormat, Find, Forget, GroupBy, Mount, Overwrite, PeerAdd, RemoveHow, Restore, SnapshotFilter, Tag, Word,
    };

    /// One of each request, with values that are hard on URIs.
    pub fn every_request() -> Vec<Request> {
        let path = PathName::from(Path::new("/home/ä b/{x}&y=?"));
        let odd = PathName(b"/x/\xff\n".to_vec());
        vec![
            Request::RunOnce {
                paths: vec![path.clone(), odd.clone()],
                accept_emptied: true,
            },
            Request::FolderAdd {
                paths: vec![path.clone()],
            },
            Request::FolderList,
            Request::FolderRemove {
                paths: vec![path.clone(), odd.clone()],
            },
            Request::ExcludeAdd {
                patterns: vec!["*.tmp".into()],
            },
            Request::ExcludeList,
            Request::ExcludeRemove {
                patterns: vec!["*.tmp".into(), "!/a&b".into()],
            },
            Request::Invite {
                name: None,
                expires_secs: 60,
            },
            Request::Join {
                ticket: "t".into(),
                word: Some("w".into()),
            },
            Request::DeviceList,
            Request::Say(Word {
                put_out: vec!["4f".into()],
                take_back: vec!["5e".into()],
                unheard: true,
                ..Word::encoded("w+/=".into())
            }),
            Request::Doctor,
            Request::PeerList,
            Request::PeerAdd(PeerAdd {
                name: "usb".into(),
                url: "dir:/mnt".into(),
                endpoint: None,
                region: None,
                storage_class: Some("STANDARD_IA".into()),
                quota: Some(5),
                shares: None,
            }),
            Request::PeerRemove {
                name: "a/b".into(),
                how: RemoveHow::DryRun,
            },
            Request::PeerEvict { name: "a/b".into() },
            Request::PeerSet {
                name: "usb".into(),
                quota: Some(1 << 40),
                shares: Some(2),
            },
            Request::Status {
                paths: vec![path.clone(), odd.clone()],
            },
            Request::Queue { limit: 20 },
            Request::Snapshots(SnapshotFilter {
                device: Some("ab12".into()),
                path: Some(odd.clone()),
                tags: vec!["a b".into(), "ä".into()],
                last: Some(3),
                group_by: vec![GroupBy::Path, GroupBy::Tag],
            }),
            Request::Tag(Tag {
                snapshots: vec!["latest".into()],
                add: vec!["x".into()],
                remove: Vec::new(),
                set: Some(Vec::new()),
            }),
            Request::Pin {
                snapshots: vec!["latest".into()],
                pinned: true,
            },
            Request::List {
                snapshot: "latest".into(),
                path: Some(odd.clone()),
                recursive: true,
            },
            Request::Cat {
                snapshot: "2026-11-21 08:00".into(),
                path: path.clone(),
            },
            Request::Diff {
                before: "latest~1".into(),
                after: "2026-11-21".into(),
                path: Some(odd.clone()),
            },
            Request::Find(Find {
                pattern: "*.ä?".into(),
                newer: Some(jiff::Timestamp::UNIX_EPOCH),
                path: Some(odd.clone()),
                ..Find::default()
            }),
            Request::Dump {
                snapshot: "latest".into(),
                path: Some(odd.clone()),
                format: DumpFormat::Zip,
            },
            Request::Verify { files: Some(5) },
            Request::Stats {
                snapshot: Some("latest".into()),
            },
            Request::Restore(Restore {
                snapshot: "latest".into(),
                path: Some(odd),
                target: path,
                include: vec!["*.rs".into()],
                exclude: Vec::new(),
                overwrite: Overwrite::Never,
                delete: true,
                unsafe_delete: true,
                dry_run: true,
                verify: false,
            }),
            Request::Recover {
                via: vec!["dir:/mnt".into()],
                before: Some(jiff::Timestamp::UNIX_EPOCH),
                tolerate: Some(3),
            },
            Request::Mount(Mount {
                at: Some(PathName(b"/mnt/\xff".to_vec())),
                webdav: Some("127.0.0.1:0".into()),
                allow_other: true,
            }),
            Request::Forget(Forget {
                snapshots: vec!["latest~1".into()],
                keep_last: 3,
                keep_within_secs: Some(86_400),
                unread: true,
                devices: vec!["laptop".into()],
                prune: true,
                ..Forget::default()
            }),
            Request::Prune { dry_run: true },
            Request::Undelete {
                snapshots: vec!["ab12".into()],
            },
            Request::Check { read_percent: Some(5) },
            Request::Repair { once: true },
            Request::ConfigGet {
                key: Some("tolerate".into()),
            },
            Request::ConfigSet {
                key: "peers.usb.quota".into(),
                value: "5G".into(),
            },
            Request::Ready,
            Request::Stop,
        ]
    }

    #[test]
    fn every_request_survives_its_link() {
        let entry = entry();
        let requests = every_request();
        assert_eq!(
            requests.len(),
            RESOURCES.len(),
            "a request has no row, or a row no request here"
        );
        for request in requests {
            let name = rel(&request);
            let link = entry
                .links
                .iter()
                .find(|link| link.rel == name)
                .unwrap_or_else(|| panic!("no link {name}"));
            let resource = RESOURCES.iter().find(|resource| resource.rel == name).unwrap();
            let (_, uri, body) = encode(link, &request).unwrap();
            let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
            let mut pairs = template::query(query).unwrap();
            let parts = template::path(resource.href).split('/').zip(path.split('/'));
            for (hole, value) in parts.filter(|(hole, _)| hole.starts_with('{')) {
                pairs.push((
                    hole.trim_matches(['{', '}']).to_owned(),
                    template::decode(value).unwrap(),
                ));
            }
            assert_eq!(resource.decode(pairs, &body).unwrap(), request, "{uri}");
        }
    }

    /// The row of `peer_add` had no `storage_class`: who read the API's own page could not know of it.
    #[test]
    fn a_row_names_every_field_of_its_request_and_no_other() {
        for request in every_request() {
            let name = rel(&request);
            let resource = RESOURCES.iter().find(|resource| resource.rel == name).unwrap();
            let value = serde_json::to_value(&request).unwrap();
            let keys = value.as_object().unwrap().keys().map(String::as_str);
            let keys: BTreeSet<&str> = keys.filter(|key| *key != "request").collect();
            let fields: BTreeSet<&str> = resource.fields.iter().map(|(field, _)| *field).collect();
            assert_eq!(keys, fields, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_a_usage_failure() {
        let queue = RESOURCES.iter().find(|resource| resource.rel == "queue").unwrap();
        for pairs in [
            vec![("limit".to_owned(), b"x".to_vec())],
            vec![("limits".to_owned(), b"1".to_vec())],
            vec![("limit".to_owned(), vec![0xff])],
            vec![],
        ] {
            assert_eq!(queue.decode(pairs, b"").unwrap_err().exit, Exit::Usage);
        }
        assert_eq!(queue.decode(Vec::new(), b"[").unwrap_err().exit, Exit::Usage);
        assert_eq!(
            queue.decode(Vec::new(), br#"{"limit":1,"x":2}"#).unwrap_err().exit,
            Exit::Usage
        );
    }
}
