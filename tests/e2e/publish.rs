//! `gridbackup publish` against real servers: the bucket equals the folder, and what that costs.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::s3::Kind;
use tests::site::{FILES, Site, write};

#[tokio::test]
async fn the_bucket_follows_the_folder_and_only_changes_are_sent() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let site = Site::start(kind, FILES)?;
        let first = site.publish(0, &[])?;
        ensure!(first.number("objects_uploaded") == FILES as u64, "{}", first.last());
        site.assert_same().await?;
        // A file that was written just before it was read is read once more; then its times say enough.
        std::thread::sleep(Duration::from_millis(2100));
        site.publish(0, &[])?;
        let none = site.publish(0, &[])?;
        ensure!(
            (none.number("requests"), none.number("files_unchanged")) == (0, FILES as u64),
            "{}",
            none.last()
        );

        std::fs::write(site.root.join("d0/file 0.css"), "1 ")?;
        std::fs::remove_file(site.root.join("d1/file 1.html"))?;
        write(&site.root, "d9/Grüße?#.bin".as_bytes(), 9)?;
        let touched = std::fs::File::options()
            .append(true)
            .open(site.root.join("d2/file 2.bin"))?;
        touched.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
        let changed = site.publish(0, &[])?;
        ensure!(
            changed.number("objects_uploaded") == 2 && changed.number("objects_deleted") == 1,
            "{}",
            changed.last()
        );
        // Two for the lock; where conditions are ignored it is looked at before and after, too.
        let requests = if kind == Kind::Moto { 5 } else { 7 };
        ensure!(changed.number("requests") == requests, "{}", changed.last());
        site.assert_same().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_others_changed_is_found_by_listing_and_repaired() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    site.publish(0, &[])?;
    let whole = site.publish(0, &["--verify"])?;
    ensure!(
        (whole.number("requests"), whole.number("drifted")) == (1, 0),
        "one page says it all: {}",
        whole.last()
    );
    for key in ["www/d0/file 0.css", "www/stranger.txt"] {
        site.put(key, "other").await?;
    }
    site.client.delete_one(b"www/d1/file 1.html").await?;
    ensure!(site.publish(0, &["--trust"])?.number("requests") == 0);
    let repaired = site.publish(0, &["--verify"])?;
    ensure!(
        repaired.number("drifted") == 3 && repaired.number("objects_uploaded") == 2,
        "{}",
        repaired.last()
    );
    site.assert_same().await?;

    std::fs::remove_dir_all(site.home.dir.join("publish"))?;
    site.put("www/stranger.txt", "other").await?;
    let again = site.publish(0, &[])?;
    ensure!(
        (again.number("objects_uploaded"), again.number("bytes_sent")) == (0, 0),
        "a lost inventory: {}",
        again.last()
    );
    ensure!(
        site.client.head(b"www/stranger.txt").await.is_ok(),
        "nobody said that it was ours"
    );
    Ok(())
}

#[tokio::test]
async fn nothing_is_deleted_by_mistake() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    let dry = site.publish(0, &["--dry-run"])?;
    ensure!(dry.number("objects_uploaded") == FILES as u64 && site.objects().await?.is_empty());
    site.publish(0, &[])?;
    let away = site.dir.path().join("away");
    std::fs::rename(&site.root, &away)?;
    std::fs::create_dir(&site.root)?;
    ensure!(site.publish(1, &[])?.stderr.contains("--allow-empty"));
    write(&site.root, b"one.txt", 1)?;
    ensure!(
        site.publish(1, &["--max-delete", "10"])?
            .stderr
            .contains("--max-delete 90")
    );
    let kept = site.publish(0, &["--no-delete"])?;
    ensure!(kept.number("objects_kept") == FILES as u64, "{}", kept.last());
    ensure!(site.objects().await?.len() == FILES + 1);
    std::os::unix::fs::symlink("/nowhere", site.root.join("dead"))?;
    std::os::unix::fs::symlink("/etc", site.root.join("outside"))?;
    write(&site.root, b"caf\xe9.txt", 2)?;
    let broken = site.publish(3, &["--no-delete"])?;
    ensure!(broken.number("files_broken") == 2, "{}", broken.last());
    ensure!(
        site.client.head("www/café.txt".as_bytes()).await?.bytes > 0,
        "a Latin-1 name is one in UTF-8"
    );
    site.publish(3, &[])?;
    ensure!(site.objects().await?.len() == 2);
    Ok(())
}

#[tokio::test]
async fn routes_decide_on_headers_and_other_headers_send_no_bytes() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    let routes = |age: u32| {
        site.routes(&format!(
            "[[route]]\nmatch = '*.css'\ncompress = 'gzip'\n[[route]]\nmatch = '*.bin'\nheaders = {{ cache-control = 'max-age={age}' }}\n\
             [[route]]\nmatch = 'd6/**'\npublish = false\n"
        ))
    };
    site.publish(0, &["--routes", &routes(60)?])?;
    let page = site.client.head(b"www/d1/file 1.html").await?;
    ensure!(page.headers.content_type.as_deref() == Some("text/html; charset=utf-8"));
    let style = site.client.get(b"www/d4/file 81.css", None, 1 << 20).await?;
    ensure!(style.meta.headers.content_encoding.as_deref() == Some("gzip") && style.bytes.starts_with(&[0x1f, 0x8b]));
    ensure!(site.client.head(b"www/d6/file 6.css").await.is_err());
    let other = site.publish(0, &["--routes", &routes(120)?])?;
    ensure!(
        other.number("objects_uploaded") == 0 && other.number("headers_changed") > 20,
        "{}",
        other.last()
    );
    let picture = site.client.head(b"www/d2/file 2.bin").await?;
    ensure!(
        picture.headers.cache_control.as_deref() == Some("max-age=120"),
        "{picture:?}"
    );
    Ok(())
}

#[tokio::test]
async fn pages_come_after_what_they_show_and_deletions_last() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    site.publish(0, &[])?;
    std::fs::remove_file(site.root.join("d0/file 0.css"))?;
    for number in 0..6 {
        write(&site.root, format!("a{number}.html").as_bytes(), number)?;
        write(&site.root, format!("z{number}.bin").as_bytes(), number)?;
    }
    let before = site.server.log()?.len();
    site.publish(0, &[])?;
    let log = site.server.log()?[before..].to_owned();
    let order: Vec<_> = log
        .lines()
        .filter(|line| !line.contains(".gridbackup-lock"))
        .filter_map(|line| match line {
            line if line.contains("POST /site?delete") => Some(2),
            line if line.contains("PUT ") && line.contains(".html") => Some(1),
            line if line.contains("PUT ") => Some(0),
            _ => None,
        })
        .collect();
    ensure!(order.len() == 13 && order.is_sorted(), "{order:?}");
    Ok(())
}

#[tokio::test]
async fn large_files_go_in_parts_and_one_more_byte_is_noticed() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let site = Site::start(kind, 1)?;
        let large = site.root.join("film.mp4");
        std::fs::write(&large, vec![7; 20 << 20])?;
        ensure!(site.publish(0, &[])?.number("objects_uploaded") == 2);
        site.assert_same().await?;
        ensure!(site.publish(0, &["--checksum"])?.number("objects_uploaded") == 0);
        std::fs::write(&large, vec![8; 20 << 20])?;
        ensure!(site.publish(0, &[])?.number("objects_uploaded") == 1);
        site.assert_same().await?;
    }
    Ok(())
}

#[tokio::test]
async fn ten_kills_send_nothing_twice_but_what_was_on_its_way() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let files = 600;
    let site = Site::start(Kind::Moto, files)?;
    for kill in 1..=10 {
        let mut child = site.begin("", &[])?;
        std::thread::sleep(Duration::from_millis(60 + 40 * kill % 150));
        child.kill()?;
        child.wait()?;
    }
    site.publish(0, &[])?;
    site.assert_same().await?;
    let puts = site
        .server
        .log()?
        .lines()
        .filter(|line| line.contains("\"PUT /site/www") && !line.contains(".gridbackup-lock"))
        .count();
    eprintln!("{puts} objects put for {files} files in eleven runs");
    // At most 64 are on their way at each kill.
    ensure!(puts <= files + 10 * 64, "{puts}");
    ensure!(site.publish(0, &["--verify"])?.number("drifted") == 0);
    Ok(())
}
