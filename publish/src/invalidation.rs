//! Which paths a CDN is told to forget: each by itself while they are few, else whole folders, as deep as the limits allow.

use std::collections::BTreeMap;

use s3::INVALIDATION_WILDCARDS_MAX;

/// A web site's endpoint answers a folder's path with this page.
const PAGE: &[u8] = b"index.html";

/// Paths for changed keys. `keys` gives them from the beginning whenever it is called, in byte order; folders are asked for when
/// there would be more than `paths_max`.
pub(crate) fn paths<E, I: Iterator<Item = Result<Vec<u8>, E>>>(
    keys: impl Fn() -> I,
    paths_max: usize,
) -> Result<Vec<String>, E> {
    let mut depth = 0;
    let mut exact = Vec::new();
    for key in keys() {
        let key = key?;
        depth = depth.max(key.iter().filter(|&&byte| byte == b'/').count());
        if exact.len() <= paths_max {
            exact.extend(paths_of(&key));
        }
    }
    if exact.len() <= paths_max {
        return Ok(exact);
    }
    // From the deepest folders upwards until it is few enough; the whole site is one path.
    for depth in (1..=depth).rev() {
        if let Some(paths) = in_folders(keys(), depth, paths_max)? {
            return Ok(paths);
        }
    }
    Ok(vec!["/*".to_owned()])
}

/// Changes in folders of at most so many levels; none: too many paths.
fn in_folders<E>(
    keys: impl Iterator<Item = Result<Vec<u8>, E>>,
    depth: usize,
    paths_max: usize,
) -> Result<Option<Vec<String>>, E> {
    let mut folders: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    for key in keys {
        let key = key?;
        let folder = folder(&key, depth).to_vec();
        // One key of a folder stands for itself.
        folders
            .entry(folder)
            .and_modify(|only| *only = None)
            .or_insert(Some(key));
        if folders.len() > paths_max {
            return Ok(None);
        }
    }
    let (mut paths, mut wildcards, mut covered) = (Vec::new(), 0, None::<Vec<u8>>);
    for (folder, only) in folders {
        if covered.as_ref().is_some_and(|covered| folder.starts_with(covered)) {
            continue;
        }
        match only {
            Some(key) => paths.extend(paths_of(&key)),
            None => {
                paths.push(format!("/{}*", escaped(&folder)));
                (wildcards, covered) = (wildcards + 1, Some(folder));
            }
        }
    }
    let is_allowed = wildcards <= INVALIDATION_WILDCARDS_MAX && paths.len() <= paths_max;
    Ok(is_allowed.then_some(paths))
}

/// A key's folder, with `/` at its end, or the outer one of so many levels.
fn folder(key: &[u8], depth: usize) -> &[u8] {
    let slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let end = slashes.take(depth).last().map_or(0, |(index, _)| index + 1);
    &key[..end]
}

/// The path of a key, and its folder's if it is the page that stands for it.
fn paths_of(key: &[u8]) -> impl Iterator<Item = String> {
    let folder = key
        .strip_suffix(PAGE)
        .filter(|folder| folder.is_empty() || folder.ends_with(b"/"));
    let path = |key: &[u8]| format!("/{}", escaped(key));
    [Some(path(key)), folder.map(path)].into_iter().flatten()
}

/// As CloudFront wants it: unsafe characters (RFC 1738 §2.2) and all beyond ASCII encoded, and no others
/// (<https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-specifying-objects.html>). A `?` would
/// begin a query.
fn escaped(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for &byte in key {
        match byte {
            b' ' | b'<' | b'>' | b'"' | b'#' | b'%' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'~' | b'[' | b']' | b'`'
            | b'?' => text += &format!("%{byte:02X}"),
            0x21..=0x7e => text.push(byte.into()),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(keys: &[&str], paths_max: usize) -> Vec<String> {
        let mut keys: Vec<_> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        keys.sort();
        paths(|| keys.iter().cloned().map(Ok::<_, ()>), paths_max).unwrap()
    }

    #[test]
    fn few_paths_are_named_one_by_one() {
        assert_eq!(
            of(
                &["a b/ü~.txt", "index.html", "x/index.html", "noindex.html", "q?(1)"],
                10
            ),
            [
                "/a%20b/%C3%BC%7E.txt",
                "/index.html",
                "/",
                "/noindex.html",
                "/q%3F(1)",
                "/x/index.html",
                "/x/"
            ]
        );
    }

    #[test]
    fn many_become_the_deepest_folders_that_are_few_enough() {
        let keys: Vec<String> = (0..100)
            .map(|number| format!("blog/{}/{}/p{number}.html", number % 3, number % 9))
            .collect();
        let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        keys.push("about.html");
        assert_eq!(of(&keys, 10).len(), 10, "nine folders and a page");
        assert_eq!(of(&keys, 9), ["/about.html", "/blog/0/*", "/blog/1/*", "/blog/2/*"]);
        assert_eq!(of(&keys, 3), ["/about.html", "/blog/*"]);
        assert_eq!(of(&keys, 1), ["/*"]);
    }

    #[test]
    fn no_more_wildcards_than_may_be_in_progress() {
        let keys: Vec<String> = (0..64)
            .map(|number| format!("{}/{}/x{number}", number % 2, number % 16))
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(of(&keys, 20), ["/0/*", "/1/*"], "sixteen folders would be too many");
    }

    proptest! {
        #[test]
        fn every_changed_key_is_covered_within_the_limits(
            keys in prop::collection::btree_set("[ab]{1,2}(/[ab]{1,2}){0,3}", 1..60), paths_max in 1..40usize
        ) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let paths = of(&keys, paths_max);
            prop_assert!(paths.len() <= paths_max);
            prop_assert!(paths.iter().filter(|path| path.ends_with('*')).count() <= INVALIDATION_WILDCARDS_MAX);
            for key in keys {
                let path = format!("/{key}");
                prop_assert!(paths.iter().any(|asked| match asked.strip_suffix('*') {
                    Some(start) => path.starts_with(start),
                    None => *asked == path,
                }), "{key} in {paths:?}");
            }
        }
    }
}
