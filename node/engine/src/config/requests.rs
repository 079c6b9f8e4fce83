//! The requests that only read or edit config.toml. Whoever answers them (command or daemon) reads the config again after.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use api::failure::{Exit, Failure};
use api::human::nearest;
use api::message::{Changed, Folder, Message, PathName, Problem, Rule, Setting};
use api::request::{PeerAdd, Request};
use backup::exclude;

use super::peer_url::PeerUrl;
use super::{ConfigFile, last_good, notices};

/// Answers a request if it is one of those; saves the file if it changed. `PeerSet` and `PeerRemove` are answered for
/// every name that the config has; of other names (friends) `None` is returned, too. An emptied file is not written to: what is
/// added to it would pass for all there is. `last` is what `last_good::keep` left.
pub fn answer(config_toml: &Path, last: &Path, request: &Request) -> Option<Result<Vec<Message>, Failure>> {
    let edit = |change: &dyn Fn(&mut ConfigFile) -> Result<Vec<Message>, Failure>| {
        let mut file = last_good::usable(config_toml, last)?;
        let before = file.text();
        let messages = change(&mut file)?;
        if file.text() != before {
            file.save()?;
        }
        Ok(messages)
    };
    let answer = match request {
        Request::FolderAdd { paths } => edit(&|file| {
            let mut messages = paths
                .iter()
                .map(|path| folder_add(file, path))
                .collect::<Result<Vec<_>, _>>()?;
            messages.extend(notices::stores_in_folders(file.config()).into_iter().map(Message::from));
            Ok(messages)
        }),
        Request::FolderRemove { paths } => edit(&|file| paths.iter().map(|path| folder_remove(file, path)).collect()),
        Request::FolderList => edit(&|file| Ok(folders(file))),
        Request::ExcludeAdd { patterns } => edit(&|file| rules_add(file, patterns)),
        Request::ExcludeRemove { patterns } => {
            edit(&|file| patterns.iter().map(|pattern| rule_remove(file, pattern)).collect())
        }
        Request::ExcludeList => edit(&|file| {
            Ok(file
                .config()
                .exclude
                .iter()
                .map(|rule| Rule { pattern: rule.clone() }.into())
                .collect())
        }),
        Request::ConfigGet { key } => edit(&|file| config_get(file, key.as_deref())),
        Request::ConfigSet { key, value } => edit(&|file| {
            file.set(key, value)?;
            if key == "exclude" {
                file.config().exclude.iter().try_for_each(|rule| check_rule(rule))?;
            }
            let warning = minutes_for_months(key, value);
            Ok(warning
                .into_iter()
                .chain([changed(true, "changed", "setting", key)])
                .collect())
        }),
        Request::PeerAdd(peer) => edit(&|file| peer_add(file, peer)),
        Request::PeerRemove { name, .. } => edit(&|file| {
            let removed = file.config().peers.contains_key(name) && file.unset(&format!("peers.{name}"))?;
            Ok(if removed {
                vec![changed(true, "removed", "peer", name)]
            } else {
                Vec::new()
            })
        }),
        Request::PeerSet { name, quota, shares } => edit(&|file| peer_set(file, name, *quota, *shares)),
        _ => return None,
    };
    match answer {
        Ok(messages)
            if messages.is_empty() && matches!(request, Request::PeerRemove { .. } | Request::PeerSet { .. }) =>
        {
            None
        }
        answer => Some(answer),
    }
}

fn changed(done: bool, action: &str, what: &str, name: &str) -> Message {
    let action = if done { action } else { "unchanged" }.to_owned();
    Changed {
        action,
        what: what.to_owned(),
        name: name.to_owned(),
    }
    .into()
}

/// Settings that are days or more for anybody: minutes in them are likely to be months, as `m` is after `--keep-within`.
const OF_DAYS: [&str; 5] = [
    "alarm_after",
    "lost_after",
    "scrub_interval",
    "suspect_after",
    "verify_interval",
];

/// What to say of such a setting in minutes.
fn minutes_for_months(key: &str, value: &str) -> Option<Message> {
    let number = value.trim().strip_suffix('m')?;
    let is_typed = OF_DAYS.contains(&key) && number.parse::<u64>().is_ok();
    is_typed.then(|| {
        let error = format!("`{key}` is {number} minutes now; if months are meant, set it to {number}mo");
        Problem::new(error).into()
    })
}

fn utf8(path: &PathName) -> Result<&str, Failure> {
    std::str::from_utf8(&path.0).map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("`{}` is not UTF-8, which config.toml cannot hold", path.display()),
        )
        .hint("add the folder above it")
    })
}

fn folder_add(file: &mut ConfigFile, path: &PathName) -> Result<Message, Failure> {
    Ok(changed(
        file.list_add("folders", utf8(path)?)?,
        "added",
        "folder",
        &path.display(),
    ))
}

fn folder_remove(file: &mut ConfigFile, path: &PathName) -> Result<Message, Failure> {
    if file.list_remove("folders", utf8(path)?)? {
        return Ok(changed(true, "removed", "folder", &path.display()));
    }
    Err(
        Failure::new(Exit::Failed, format!("`{}` is not backed up by itself", path.display()))
            .hint("`gridbackup folder ls` lists the folders"),
    )
}

fn folders(file: &ConfigFile) -> Vec<Message> {
    let folders = file.config().folders.iter();
    folders
        .map(|folder| {
            Folder {
                path: PathName(folder.as_os_str().as_bytes().to_vec()),
            }
            .into()
        })
        .collect()
}

fn rules_add(file: &mut ConfigFile, rules: &[String]) -> Result<Vec<Message>, Failure> {
    let mut messages = Vec::new();
    for rule in rules {
        check_rule(rule)?;
        messages.push(changed(file.list_add("exclude", rule)?, "added", "rule", rule));
    }
    let idle = notices::idle_rules(rules, file.config().folders.iter());
    messages.extend(idle.into_iter().map(Message::from));
    Ok(messages)
}

fn check_rule(rule: &str) -> Result<(), Failure> {
    exclude::check_rule(rule).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))
}

fn rule_remove(file: &mut ConfigFile, pattern: &str) -> Result<Message, Failure> {
    if file.list_remove("exclude", pattern)? {
        return Ok(changed(true, "removed", "rule", pattern));
    }
    Err(
        Failure::new(Exit::Failed, format!("There is no exclude rule `{pattern}`"))
            .hint("`gridbackup exclude ls` lists the rules"),
    )
}

fn config_get(file: &ConfigFile, key: Option<&str>) -> Result<Vec<Message>, Failure> {
    let Some(key) = key else {
        let all = serde_json::to_value(file.config()).map_err(|error| Failure::from_error(&error))?;
        let settings = all.as_object().cloned().unwrap_or_default();
        return Ok(settings
            .into_iter()
            .map(|(key, value)| Setting { key, value }.into())
            .collect());
    };
    match file.get(key) {
        Some(value) => Ok(vec![
            Setting {
                key: key.to_owned(),
                value,
            }
            .into(),
        ]),
        None => {
            let known = serde_json::to_value(file.config()).map_err(|error| Failure::from_error(&error))?;
            let known = known.as_object().into_iter().flat_map(|settings| settings.keys());
            let meant =
                nearest(key, known.map(String::as_str)).map_or(String::new(), |meant| format!("is `{meant}` meant? "));
            Err(Failure::new(Exit::Usage, format!("There is no setting `{key}`"))
                .hint(format!("{meant}`gridbackup config get` shows every key and its value")))
        }
    }
}

fn peer_add(file: &mut ConfigFile, peer: &PeerAdd) -> Result<Vec<Message>, Failure> {
    if peer.name.is_empty() || !peer.name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
        return Err(
            Failure::new(Exit::Usage, format!("`{}` is no name for a peer", peer.name))
                .hint("use letters, digits, - and _"),
        );
    }
    PeerUrl::check(&peer.url).map_err(|reason| Failure::new(Exit::Usage, reason))?;
    if let Some(there) = file.config().peers.get(&peer.name) {
        if there.url.as_deref() == Some(&peer.url) {
            return Ok(vec![changed(false, "added", "peer", &peer.name)]);
        }
        return Err(
            Failure::new(Exit::Failed, format!("There is a peer `{}` already", peer.name))
                .hint("choose another name, or remove it first with `gridbackup peer rm`"),
        );
    }
    let key = |field: &str| format!("peers.{}.{field}", peer.name);
    file.set(&key("url"), &peer.url)?;
    let texts = [
        ("endpoint", &peer.endpoint),
        ("region", &peer.region),
        ("storage_class", &peer.storage_class),
    ];
    for (field, value) in texts {
        if let Some(value) = value {
            file.set(&key(field), value)?;
        }
    }
    peer_limits(file, &peer.name, peer.quota, peer.shares)?;
    let mut messages = vec![changed(true, "added", "peer", &peer.name)];
    let stores = notices::stores_in_folders(file.config()).into_iter();
    messages.extend(
        stores
            .filter(|store| store.peer.as_ref() == Some(&peer.name))
            .map(Message::from),
    );
    Ok(messages)
}

fn peer_set(
    file: &mut ConfigFile,
    name: &str,
    quota: Option<u64>,
    shares: Option<u16>,
) -> Result<Vec<Message>, Failure> {
    if !file.config().peers.contains_key(name) {
        return Ok(Vec::new());
    }
    peer_limits(file, name, quota, shares)?;
    Ok(vec![changed(true, "changed", "peer", name)])
}

/// Sets the limits that are given; for a friend this makes its entry in the config.
fn peer_limits(file: &mut ConfigFile, name: &str, quota: Option<u64>, shares: Option<u16>) -> Result<(), Failure> {
    if let Some(quota) = quota {
        file.set(&format!("peers.{name}.quota"), &quota.to_string())?;
    }
    if let Some(shares) = shares {
        file.set(&format!("peers.{name}.shares"), &shares.to_string())?;
    }
    Ok(())
}
