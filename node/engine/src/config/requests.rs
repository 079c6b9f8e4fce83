//! The requests that only read or edit config.toml. Whoever answers them (command or daemon) reads the config again after.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use api::failure::{Exit, Failure, Kind};
use api::human::nearest;
use api::message::{Changed, Deed, Folder, Message, PathName, Problem, Rule, Setting, Thing};
use api::request::SettingsRequest;
use backup::exclude;

use super::{ConfigFile, last_good, notices};

/// Answers a request; saves the file if it changed. An emptied file is not written to: what is added to it would pass for all
/// there is. `last` is what `last_good::keep` left.
pub fn answer(config_toml: &Path, last: &Path, request: &SettingsRequest) -> Result<Vec<Message>, Failure> {
    edit(config_toml, last, |file| match request {
        SettingsRequest::FolderAdd(asked) => {
            let added = asked.paths.iter().map(|path| folder_add(file, path));
            let mut messages = added.collect::<Result<Vec<_>, _>>()?;
            messages.extend(notices::stores_in_folders(file.config()).into_iter().map(Message::from));
            Ok(messages)
        }
        SettingsRequest::FolderRemove(asked) => asked.paths.iter().map(|path| folder_remove(file, path)).collect(),
        SettingsRequest::FolderList => Ok(folders(file)),
        SettingsRequest::ExcludeAdd(asked) => rules_add(file, &asked.patterns),
        SettingsRequest::ExcludeRemove(asked) => asked.patterns.iter().map(|rule| rule_remove(file, rule)).collect(),
        SettingsRequest::ExcludeList => Ok(rules(file)),
        SettingsRequest::ConfigGet(asked) => config_get(file, asked.key.as_deref()),
        SettingsRequest::ConfigSet(asked) => config_set(file, &asked.key, &asked.value),
    })
}

/// Whether a setting is checked against the roster: it says whether a steward is a member.
pub fn needs_roster(request: &SettingsRequest) -> bool {
    matches!(request, SettingsRequest::ConfigSet(asked) if asked.key == STEWARD)
}

/// The setting that names a member.
pub const STEWARD: &str = "steward";

/// Changes the file that is in force, and saves it if that changed it.
pub fn edit<T>(
    config_toml: &Path,
    last: &Path,
    change: impl FnOnce(&mut ConfigFile) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut file = last_good::usable(config_toml, last)?;
    let before = file.text();
    let changed = change(&mut file)?;
    if file.text() != before {
        file.save()?;
    }
    Ok(changed)
}

fn changed(done: bool, action: Deed, what: Thing, name: &str) -> Message {
    let action = if done { action } else { Deed::Unchanged };
    Changed::new(action, what, name).into()
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
        Deed::Added,
        Thing::Folder,
        &path.display(),
    ))
}

fn folder_remove(file: &mut ConfigFile, path: &PathName) -> Result<Message, Failure> {
    if file.list_remove("folders", utf8(path)?)? {
        return Ok(changed(true, Deed::Removed, Thing::Folder, &path.display()));
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

fn rules(file: &ConfigFile) -> Vec<Message> {
    let rules = file.config().exclude.iter();
    rules.map(|rule| Rule { pattern: rule.clone() }.into()).collect()
}

fn rules_add(file: &mut ConfigFile, rules: &[String]) -> Result<Vec<Message>, Failure> {
    let mut messages = Vec::new();
    for rule in rules {
        check_rule(rule)?;
        messages.push(changed(file.list_add("exclude", rule)?, Deed::Added, Thing::Rule, rule));
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
        return Ok(changed(true, Deed::Removed, Thing::Rule, pattern));
    }
    Err(
        Failure::new(Exit::Failed, format!("There is no exclude rule `{pattern}`"))
            .kind(Kind::NotFound)
            .hint("`gridbackup exclude ls` lists the rules"),
    )
}

fn config_set(file: &mut ConfigFile, key: &str, value: &str) -> Result<Vec<Message>, Failure> {
    file.set(key, value)?;
    if key == "exclude" {
        file.config().exclude.iter().try_for_each(|rule| check_rule(rule))?;
    }
    let warning = minutes_for_months(key, value).into_iter();
    Ok(warning
        .chain([changed(true, Deed::Changed, Thing::Setting, key)])
        .collect())
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
                .kind(Kind::NotFound)
                .hint(format!("{meant}`gridbackup config get` shows every key and its value")))
        }
    }
}
