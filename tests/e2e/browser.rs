//! A browser loads what was published: types, encodings, and what is seen.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::browser::{rendered, text_of};
use tests::s3::Kind;
use tests::site::{Site, write};

/// One black pixel.
const PNG: [u8; 70] = *b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\x0dIDATx\xdacd\xf8\xcfP\x0f\x00\x03\x86\x01\x80Z4}k\x00\x00\x00\x00IEND\xaeB`\x82";

const PAGE: &str = r#"<!doctype html><html><head><meta charset="utf-8"><title>Grüße</title>
<link rel="stylesheet" href="style.css"><script src="app.js" defer></script></head>
<body><h1>Grüße</h1><img id="logo" src="logo.svg"><img id="picture" src="img/picture.png"><pre id="result">nothing</pre></body></html>"#;

const STYLE: &str = "body { color: rgb(1, 2, 3) }\n/* long enough to be worth compressing */\n";

/// Loads everything again to see its headers, and follows all links of the made page.
const SCRIPT: &str = r#"
async function look(url) {
  const answer = await fetch(url);
  const bytes = (await answer.arrayBuffer()).byteLength;
  const header = name => answer.headers.get(name);
  return { status: answer.status, type: header('content-type'), encoding: header('content-encoding'), cache: header('cache-control'), bytes };
}
async function check() {
  const seen = { files: {}, links: {} };
  for (const url of ['index.html', 'style.css', 'app.js', 'logo.svg', 'font.ttf', 'img/picture.png', 'odd/index.html'])
    seen.files[url] = await look(url);
  seen.title = document.title;
  seen.color = getComputedStyle(document.body).color;
  seen.logo = document.getElementById('logo').naturalWidth;
  seen.picture = document.getElementById('picture').naturalWidth;
  const face = await new FontFace('Test', 'url(font.ttf)').load();
  seen.font = face.status;
  const page = new URL('odd/index.html', location);
  const made = new DOMParser().parseFromString(await (await fetch(page)).text(), 'text/html');
  for (const link of made.querySelectorAll('td a')) {
    const answer = await fetch(new URL(link.getAttribute('href'), page));
    seen.links[link.textContent] = [answer.status, await answer.text()];
  }
  return seen;
}
addEventListener('load', async () => {
  const result = document.getElementById('result');
  try { result.textContent = JSON.stringify(await check()); } catch (error) { result.textContent = 'failed: ' + error; }
});
"#;

const ROUTES: &str = r#"
[index-pages]
name = "My <site>"
[[redirect]]
from = "old.html"
to = "/index.html"
[[route]]
match = "*"
headers = { acl = "public-read" }
[[route]]
regex = '\.(html|css|js)$'
compress = "gzip"
headers = { cache-control = "max-age=60" }
[[route]]
regex = '\.(svg|ttf)$'
compress = "brotli"
"#;

/// Names that HTML and URLs mean something by; each file has its name for contents.
const ODD: [&str; 8] = [
    "a b+c.txt",
    "q?x=1&y=2#z.txt",
    "100%25.txt",
    "<img src=x onerror=alert(1)>.txt",
    "\"quotes\" and 'more'.txt",
    "Grüße 日本.txt",
    "javascript:alert(1)",
    "&amp;.txt",
];

/// Shown with a picture of the character that nobody would see.
const TAB: &str = "tab\tinside.txt";

/// A font that the system has.
fn font() -> Result<Vec<u8>> {
    let mut folders = vec![Path::new("/usr/share/fonts").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "ttf") {
                return Ok(std::fs::read(path)?);
            }
        }
    }
    anyhow::bail!("no TrueType font below /usr/share/fonts: install Debian's package fonts-dejavu-core")
}

fn make(site: &Site) -> Result<()> {
    let script = format!("{SCRIPT}// {}\n", "x".repeat(1000));
    let logo = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"30\" height=\"20\"><!-- {} --><rect width=\"30\" height=\"20\"/></svg>",
        "long enough ".repeat(50)
    );
    std::fs::create_dir_all(site.root.join("img"))?;
    std::fs::write(site.root.join("index.html"), PAGE)?;
    std::fs::write(site.root.join("style.css"), STYLE.repeat(10))?;
    std::fs::write(site.root.join("app.js"), script)?;
    std::fs::write(site.root.join("logo.svg"), logo)?;
    std::fs::write(site.root.join("font.ttf"), font()?)?;
    std::fs::write(site.root.join("img/picture.png"), PNG)?;
    write(&site.root, b"odd/sub/x.bin", 1)?;
    write(&site.root, b"odd/.hidden", 1)?;
    for name in ODD {
        std::fs::write(site.root.join("odd").join(name), name)?;
    }
    Ok(std::fs::write(site.root.join("odd").join(TAB), TAB)?)
}

#[tokio::test]
async fn a_browser_shows_the_site_and_follows_the_links_of_made_pages() -> Result<()> {
    tests::needs!(tests::s3::missing());
    tests::needs!(tests::browser::missing());
    tests::needs!(font().err().map(|reason| reason.to_string()));
    let site = Site::start(Kind::Moto, 0)?;
    make(&site)?;
    site.publish(0, &["--routes", &site.routes(ROUTES)?])?;
    let html = rendered(
        &format!("http://{}/site/www/index.html", site.server.at),
        site.dir.path(),
    )?;
    let result = text_of(&html, "result")?;
    let seen: Value = serde_json::from_str(&result).with_context(|| format!("the script says: {result}"))?;

    let about = |url: &str, field: &str| seen["files"][url][field].clone();
    let expected = [
        ("index.html", "text/html; charset=utf-8", "gzip"),
        ("style.css", "text/css; charset=utf-8", "gzip"),
        ("app.js", "text/javascript; charset=utf-8", "gzip"),
        ("logo.svg", "image/svg+xml", "br"),
        ("font.ttf", "font/ttf", "br"),
        ("img/picture.png", "image/png", ""),
        ("odd/index.html", "text/html; charset=utf-8", "gzip"),
    ];
    for (url, kind, encoding) in expected {
        ensure!(about(url, "status") == 200, "{url}: {seen}");
        ensure!(about(url, "type") == kind, "{url}: {}", about(url, "type"));
        ensure!(
            about(url, "encoding").as_str().unwrap_or_default() == encoding,
            "{url}: {}",
            about(url, "encoding")
        );
    }
    ensure!(about("style.css", "cache") == "max-age=60" && about("logo.svg", "cache").is_null());
    ensure!(about("font.ttf", "bytes") == font()?.len(), "the browser unpacked it");
    ensure!(
        (&seen["title"], &seen["color"]) == (&"Grüße".into(), &"rgb(1, 2, 3)".into()),
        "{seen}"
    );
    ensure!(
        (&seen["logo"], &seen["picture"], &seen["font"]) == (&30.into(), &1.into(), &"loaded".into()),
        "{seen}"
    );

    let links = seen["links"].as_object().context("links")?;
    for name in ODD {
        ensure!(
            links.get(name) == Some(&serde_json::json!([200, name])),
            "{name}: {links:?}"
        );
    }
    ensure!(
        links.get("tab\u{2409}inside.txt") == Some(&serde_json::json!([200, TAB])),
        "{links:?}"
    );
    ensure!(links["sub/"][0] == 200 && links["../"][0] == 200, "{links:?}");
    ensure!(links.len() == ODD.len() + 3, "nothing hidden, nothing twice: {links:?}");

    let made = rendered(
        &format!("http://{}/site/www/odd/index.html", site.server.at),
        site.dir.path(),
    )?;
    ensure!(
        made.contains("<a href=\"../index.html\">My &lt;site&gt;</a> / <b>odd</b>"),
        "{made}"
    );
    ensure!(!made.contains("<img"), "a name became an element: {made}");
    let old = site.client.head(b"www/old.html").await?;
    ensure!(
        old.headers.redirect.as_deref() == Some("/index.html") && old.bytes == 0,
        "{old:?}"
    );
    Ok(())
}
