//! The table of verbs as HTTP: a verb's row is its documentation (`GET /`), its route and its decoder at once, so that the three
//! cannot disagree.

use axum::http::Method;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::template;
use crate::failure::{Exit, Failure};
use crate::request::field::Kind;
use crate::request::verb::Verb;
use crate::request::{Request, VERBS};

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
    let links = VERBS.iter().map(|verb| Link {
        rel: verb.name.to_owned(),
        method: verb.method.to_owned(),
        href: verb.href.to_owned(),
        fields: verb
            .fields
            .iter()
            .map(|&(name, kind)| Field {
                name: name.to_owned(),
                kind,
            })
            .collect(),
        idempotency_key: needs_key(verb),
    });
    Entry {
        title: format!("gridbackup {}", env!("CARGO_PKG_VERSION")),
        links: links.collect(),
    }
}

/// Only a request that changes something needs a key to be safe to repeat.
pub fn needs_key(verb: &Verb) -> bool {
    verb.method != Method::GET.as_str()
}

/// The request of a verb in path variables, query pairs and body.
pub fn decode(verb: &Verb, pairs: Vec<(String, Vec<u8>)>, body: &[u8]) -> Result<Request, Failure> {
    let mut fields = match body {
        [] => Map::new(),
        body => serde_json::from_slice::<Map<String, Value>>(body)
            .map_err(|error| usage(format!("The body is not a JSON object: {error}")))?,
    };
    for (name, bytes) in pairs {
        let Some(&(_, kind)) = verb.fields.iter().find(|(known, _)| *known == name) else {
            return Err(usage(format!("`{}` has no field `{name}`", verb.name)));
        };
        let value = read_text(&name, kind, bytes)?;
        match fields.get_mut(&name) {
            Some(Value::Array(values)) => values.push(value),
            _ if kind.is_list() => drop(fields.insert(name, Value::Array(vec![value]))),
            _ => drop(fields.insert(name, value)),
        }
    }
    fields.insert("request".to_owned(), verb.name.into());
    serde_json::from_value(Value::Object(fields)).map_err(|error| usage(format!("`{}`: {error}", verb.name)))
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
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::request::{Find, Invite, Mount, RunOnce, Tag};

    fn verb(name: &str) -> &'static Verb {
        VERBS.iter().find(|verb| verb.name == name).unwrap()
    }

    /// Sends a request along its link, and returns what arrives.
    fn sent(request: &Request) -> Request {
        let (entry, verb) = (entry(), request.verb());
        let link = entry.links.iter().find(|link| link.rel == verb.name).unwrap();
        let (_, uri, body) = encode(link, request).unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let mut pairs = template::query(query).unwrap();
        let parts = template::path(verb.href).split('/').zip(path.split('/'));
        for (hole, value) in parts.filter(|(hole, _)| hole.starts_with('{')) {
            let name = hole.trim_matches(['{', '}']).to_owned();
            pairs.push((name, template::decode(value).unwrap()));
        }
        decode(verb, pairs, &body).unwrap()
    }

    #[test]
    fn every_request_survives_its_link_with_a_value_in_every_field() {
        for request in Request::of_each_kind() {
            let value = serde_json::to_value(&request).unwrap();
            let is_given = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
            assert!(value.as_object().unwrap().values().all(is_given), "{value}");
            assert_eq!(sent(&request), request, "{value}");
        }
    }

    #[test]
    fn what_is_not_given_is_not_there_behind_the_link_either() {
        for request in [
            Request::RunOnce(RunOnce {
                paths: Vec::new(),
                accept_emptied: false,
            }),
            Request::Invite(Invite {
                name: None,
                expires_secs: 0,
            }),
            Request::Tag(Tag {
                set: Some(Vec::new()),
                ..Tag::default()
            }),
            Request::Mount(Mount::default()),
            Request::Find(Find {
                pattern: String::new(),
                snapshot: None,
                path: None,
                newer: None,
                older: None,
                kind: None,
            }),
        ] {
            assert_eq!(sent(&request), request);
        }
    }

    /// The row of `peer_add` had no `storage_class`: who read the API's own page could not know of it.
    #[test]
    fn a_row_names_every_field_of_its_request_and_no_other() {
        for request in Request::of_each_kind() {
            let verb = request.verb();
            let value = serde_json::to_value(&request).unwrap();
            assert_eq!(value["request"], verb.name);
            let keys = value.as_object().unwrap().keys().map(String::as_str);
            let keys: BTreeSet<&str> = keys.filter(|key| *key != "request").collect();
            let fields: BTreeSet<&str> = verb.fields.iter().map(|(field, _)| *field).collect();
            assert_eq!(keys, fields, "{}", verb.name);
        }
    }

    #[test]
    fn a_template_asks_for_fields_and_for_several_where_there_may_be_several() {
        for verb in VERBS {
            for hole in template::holes(verb.href) {
                let field = verb.fields.iter().find(|(name, _)| *name == hole.name);
                let (name, kind) = field.unwrap_or_else(|| panic!("{}: {}", verb.name, hole.name));
                assert_eq!(
                    kind.is_list(),
                    verb.href.contains(&format!("{name}*")),
                    "{} {name}",
                    verb.name
                );
            }
            let is_in_template = |name: &str| template::holes(verb.href).iter().any(|hole| hole.name == name);
            let needs_body = verb.fields.iter().any(|(name, _)| !is_in_template(name));
            assert!(!needs_body || needs_key(verb), "{}: a GET has no body", verb.name);
        }
    }

    #[test]
    fn no_two_verbs_share_a_name_or_a_link() {
        let names: BTreeSet<_> = VERBS.iter().map(|verb| verb.name).collect();
        let links: BTreeSet<_> = VERBS
            .iter()
            .map(|verb| (verb.method, template::path(verb.href)))
            .collect();
        assert_eq!((names.len(), links.len()), (VERBS.len(), VERBS.len()));
    }

    #[test]
    fn what_does_not_fit_is_a_usage_failure() {
        let queue = verb("queue");
        for pairs in [
            vec![("limit".to_owned(), b"x".to_vec())],
            vec![("limits".to_owned(), b"1".to_vec())],
            vec![("limit".to_owned(), vec![0xff])],
            vec![],
        ] {
            assert_eq!(decode(queue, pairs, b"").unwrap_err().exit, Exit::Usage);
        }
        for body in [&b"["[..], br#"{"limit":1,"x":2}"#] {
            assert_eq!(decode(queue, Vec::new(), body).unwrap_err().exit, Exit::Usage);
        }
    }
}
