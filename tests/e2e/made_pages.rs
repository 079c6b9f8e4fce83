//! What has no file: pages of folders and redirects; and large files that are compressed on the way.

use std::io::Read;

use anyhow::{Result, ensure};
use tests::s3::Kind;
use tests::site::{Site, write};

fn html(bytes: &[u8]) -> Result<String> {
    Ok(String::from_utf8(bytes.to_vec())?)
}

#[tokio::test]
async fn folders_get_pages_that_follow_what_is_in_them() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let site = Site::start(kind, 0)?;
        for (number, name) in ["a/b/one.bin", "a/two.css", "three.bin", ".git/x", "real/index.html"]
            .into_iter()
            .enumerate()
        {
            write(&site.root, name.as_bytes(), number)?;
        }
        let pages = async || -> Result<Vec<String>> {
            let names = site.objects().await?.into_keys().map(String::from_utf8);
            let names = names.collect::<Result<Vec<_>, _>>()?;
            Ok(names.into_iter().filter(|name| name.ends_with("index.html")).collect())
        };
        let first = site.publish(0, &["--index-pages"])?;
        ensure!(
            (first.number("files"), first.number("objects_uploaded")) == (5, 8),
            "{}",
            first.last()
        );
        ensure!(pages().await? == ["a/b/index.html", "a/index.html", "index.html", "real/index.html"]);
        let page = site.client.get(b"www/a/index.html", None, 1 << 20).await?;
        ensure!(page.meta.headers.content_type.as_deref() == Some("text/html; charset=utf-8"));
        // rclone keeps no metadata but times.
        ensure!(
            kind == Kind::Rclone
                || page
                    .meta
                    .headers
                    .metadata
                    .get("generated")
                    .is_some_and(|text| text == "true")
        );
        let text = html(&page.bytes)?;
        ensure!(
            text.contains("b/index.html") && text.contains("two.css") && text.contains("<title>www/a/</title>"),
            "{text}"
        );
        std::thread::sleep(std::time::Duration::from_millis(2100));
        site.publish(0, &["--index-pages"])?;
        let same = site.publish(0, &["--index-pages"])?;
        ensure!(
            (same.number("requests"), same.number("files_unchanged")) == (0, 5),
            "{}",
            same.last()
        );
        ensure!(site.publish(0, &["--index-pages", "--verify"])?.number("drifted") == 0);

        // A change in a folder changes its page and no other; a real page takes the place of a made one, and a folder that goes
        // takes its page with it.
        write(&site.root, b"a/four.bin", 4)?;
        ensure!(
            site.publish(0, &["--index-pages"])?.number("objects_uploaded") == 2,
            "the file and one page"
        );
        write(&site.root, b"a/index.html", 5)?;
        std::fs::remove_dir_all(site.root.join("a/b"))?;
        let real = site.publish(0, &["--index-pages"])?;
        ensure!(
            (real.number("objects_uploaded"), real.number("objects_deleted")) == (1, 2),
            "{}",
            real.last()
        );
        let page = site.client.get(b"www/a/index.html", None, 1 << 20).await?;
        ensure!(page.bytes == "5 ".repeat(6) && !page.meta.headers.metadata.contains_key("generated"));
        std::fs::remove_file(site.root.join("a/index.html"))?;
        ensure!(
            site.publish(0, &["--index-pages"])?.number("objects_uploaded") == 1,
            "made again"
        );
        ensure!(pages().await? == ["a/index.html", "index.html", "real/index.html"]);
        // Without the option they go, and nothing else does.
        ensure!(site.publish(0, &[])?.number("objects_deleted") == 2);
        site.assert_same().await?;
    }
    Ok(())
}

#[tokio::test]
async fn pages_look_as_the_user_wants() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 0)?;
    write(&site.root, b"a/x.bin", 1)?;
    let template = site.dir.path().join("list.html");
    let routes = site.routes("[index-pages]\nname = 'Mine'\ntemplate = 'list.html'\nstylesheet = '/s.css'")?;
    std::fs::write(&template, "<ul>{{breadcrumbs}}|{{style}}|{{rows}}|{{count}}</ul>")?;
    let args = ["--routes", &routes];
    site.publish(0, &args)?;
    let page = site.client.get(b"www/a/index.html", None, 1 << 20).await?.bytes;
    let text = html(&page)?;
    let start = "<ul><a href=\"../index.html\">Mine</a> / <b>a</b>|<link rel=\"stylesheet\" href=\"/s.css\">|<tr>";
    ensure!(
        text.starts_with(start) && text.ends_with("|0 folders, 1 file, 4 B</ul>"),
        "{text}"
    );
    std::fs::write(&template, "<ol>{{rows}}</ol>")?;
    ensure!(
        site.publish(0, &args)?.number("objects_uploaded") == 2,
        "both pages, and not the file"
    );
    std::fs::write(&template, "{{rwos}}")?;
    ensure!(site.publish(2, &args)?.stderr.contains("{{rwos}}"));
    Ok(())
}

#[tokio::test]
async fn redirects_are_objects_of_their_own() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    let lead =
        |to: &str, also: &str| site.routes(&format!("[[redirect]]\nfrom = 'old/page.html'\nto = '{to}'\n{also}"));
    let args = ["--routes", &lead("/new.html", "")?];
    let first = site.publish(0, &args)?;
    ensure!(
        (first.number("files"), first.number("objects_uploaded")) == (3, 4),
        "{}",
        first.last()
    );
    let to = async || -> Result<Option<String>> {
        let meta = site.client.head(b"www/old/page.html").await?;
        ensure!(meta.bytes == 0);
        Ok(meta.headers.redirect)
    };
    ensure!(to().await?.as_deref() == Some("/new.html"));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    site.publish(0, &args)?;
    ensure!(site.publish(0, &args)?.number("requests") == 0);
    ensure!(site.publish(0, &["--verify", args[0], args[1]])?.number("drifted") == 0);
    lead("https://example.org/", "")?;
    // Two for the lock.
    ensure!(site.publish(0, &args)?.number("requests") == 3);
    ensure!(to().await?.as_deref() == Some("https://example.org/"));
    // A file of the same name wins, and the redirect is named.
    lead("/x", "[[redirect]]\nfrom = 'file'\nto = '/y'")?;
    write(&site.root, b"file", 1)?;
    let double = site.publish(3, &args)?;
    ensure!(
        double.number("files_broken") == 1 && format!("{:?}", double.lines).contains("same key"),
        "{:?}",
        double.lines
    );
    ensure!(site.client.head(b"www/file").await?.bytes > 0);
    site.routes("")?;
    ensure!(site.publish(0, &args)?.number("objects_deleted") == 1);
    site.assert_same().await
}

#[tokio::test]
async fn large_text_is_sent_compressed_and_large_noise_as_it_is() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 0)?;
    let routes = site
        .routes("[[route]]\nmatch = '*.csv'\ncompress = 'gzip'\n[[route]]\nmatch = '*.json'\ncompress = 'brotli'\n")?;
    let args = ["--routes", &routes];
    let line = |number: u64| {
        format!(
            "{number},{},some text that repeats\n",
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
    };
    // Nine megabytes that become less than eight, noise that does not, and 60 that stay over eight.
    let text: String = (0..200_000).map(line).collect();
    let noise: Vec<u8> = (0..(10u64 << 20) / 8)
        .flat_map(|number| {
            number
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                .to_le_bytes()
        })
        .collect();
    let large: String = (0..1_300_000).map(line).collect();
    ensure!(text.len() > 9 << 20, "{}", text.len());
    std::fs::write(site.root.join("text.csv"), &text)?;
    std::fs::write(site.root.join("text.json"), &text)?;
    std::fs::write(site.root.join("noise.csv"), &noise)?;
    std::fs::write(site.root.join("large.csv"), &large)?;
    let first = site.publish(0, &args)?;
    eprintln!("{}", first.last());
    let got = async |key: &str| site.client.get(key.as_bytes(), None, 128 << 20).await;
    for (key, whole) in [("www/text.csv", &text), ("www/large.csv", &large)] {
        let object = got(key).await?;
        ensure!(
            object.meta.headers.content_encoding.as_deref() == Some("gzip"),
            "{key}: {:?}",
            object.meta
        );
        ensure!(
            (object.bytes.len() > 8 << 20) == (key == "www/large.csv"),
            "{key}: {}",
            object.bytes.len()
        );
        let mut back = String::new();
        flate2::read::MultiGzDecoder::new(&object.bytes[..]).read_to_string(&mut back)?;
        ensure!(back == **whole, "{key}");
    }
    let brotli = got("www/text.json").await?;
    ensure!(brotli.meta.headers.content_encoding.as_deref() == Some("br") && brotli.bytes.len() < text.len() / 2);
    let plain = got("www/noise.csv").await?;
    ensure!(plain.meta.headers.content_encoding.is_none() && plain.bytes == noise);
    // Nothing is left in the folder of the index, and nothing is sent again: neither later, nor by --checksum, nor without an index.
    let kept = std::fs::read_dir(site.home.dir.join("publish"))?.count();
    ensure!(kept <= 4, "{kept} files beside the index");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    site.publish(0, &args)?;
    ensure!(site.publish(0, &args)?.number("requests") == 0);
    ensure!(site.publish(0, &["--checksum", args[0], args[1]])?.number("requests") == 0);
    std::fs::remove_dir_all(site.home.dir.join("publish"))?;
    let lost = site.publish(0, &args)?;
    ensure!(
        (lost.number("bytes_sent"), lost.number("headers_changed")) == (0, 4),
        "{}",
        lost.last()
    );
    Ok(())
}
