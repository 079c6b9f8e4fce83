//! The client `s3` against real servers: everything it can ask for, and everything they answer differently.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::stream;
use s3::{Client, Condition, Error, Headers, ListOptions};
use tests::s3::{Kind, Server};

/// Characters that URLs, XML, shells and forms mean something by, one key outside of the first plane, and deep ones.
const KEYS_OF_KINDS: [&str; 8] = [
    "plain.html",
    "a b+c%20d.txt",
    "q?x=1&y=2#z",
    "Grüße/日本/𝄞.txt",
    "<&>'\".xml",
    "deep/er/est/x",
    "a-b",
    "a/b",
];

pub fn client(server: &Server) -> Result<Client> {
    server.client()
}

pub fn client_at(location: &str) -> Result<Client> {
    tests::s3::client_at(location)
}

async fn list_all(client: &Client, prefix: &str) -> Result<BTreeMap<Vec<u8>, (u64, String)>> {
    let mut options = ListOptions {
        prefix: prefix.into(),
        ..ListOptions::default()
    };
    let mut found = BTreeMap::new();
    loop {
        let batch = client.list(&options).await?;
        found.extend(
            batch
                .objects
                .into_iter()
                .map(|object| (object.key, (object.bytes, object.etag))),
        );
        match batch.next {
            Some(token) => options.token = Some(token),
            None => return Ok(found),
        }
    }
}

#[tokio::test]
async fn objects_go_there_and_back_on_every_server() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let dir = tempfile::tempdir()?;
        let server = Server::start(kind, dir.path())?;
        let client = client(&server)?;
        round_trip(&client)
            .await
            .with_context(|| format!("{kind:?}: {}", server.log().unwrap_or_default()))?;
    }
    Ok(())
}

async fn round_trip(client: &Client) -> Result<()> {
    let headers = Headers {
        content_type: Some("text/plain; charset=utf-8".into()),
        metadata: [("mtime".to_owned(), "17.25".to_owned())].into(),
        ..Headers::default()
    };
    for key in KEYS_OF_KINDS {
        let stored = client
            .put(key.as_bytes(), Bytes::from(key), &headers, &Condition::Always)
            .await?;
        ensure!(stored.etag.len() == 32, "{key}: {}", stored.etag);
        let object = client.get(key.as_bytes(), None, 1000).await?;
        ensure!(object.bytes == key, "{key}");
        ensure!(
            object.meta.headers.metadata == headers.metadata,
            "{key}: {:?}",
            object.meta
        );
    }
    let listed = list_all(client, "").await?;
    let mut expected: Vec<_> = KEYS_OF_KINDS.iter().map(|key| key.as_bytes().to_vec()).collect();
    expected.sort();
    ensure!(listed.keys().eq(&expected), "{listed:?}");
    let part = client.get(b"plain.html", Some(2..5), 3).await?;
    ensure!((&part.bytes[..], part.meta.bytes) == (b"ain", 10), "{part:?}");
    ensure!(matches!(client.head(b"nothing").await, Err(Error::NotFound(_))));
    let failed = client.delete(&expected).await?;
    ensure!(failed.is_empty(), "{failed:?}");
    ensure!(list_all(client, "").await?.is_empty());
    parts(client).await
}

async fn parts(client: &Client) -> Result<()> {
    let piece = Bytes::from(vec![7; s3::PART_BYTES_MIN as usize]);
    let begun = client.begin_parts(b"big", &Headers::default()).await?;
    let pieces = stream::iter([Ok(piece.clone()), Ok(piece.clone()), Ok(Bytes::from_static(b"end"))]);
    let sent = client.put_parts(&begun, pieces, 3).await?;
    let stored = client.complete_parts(&begun, &sent, &Condition::Always).await?;
    let mut download = client.download(b"big").await?;
    let (mut bytes, mut last) = (0, 0);
    while let Some(some) = download.next().await? {
        bytes += some.len() as u64;
        last = some.last().copied().unwrap_or(last);
    }
    ensure!((bytes, last) == (2 * s3::PART_BYTES_MIN + 3, b'd'), "{stored:?}");
    let begun = client.begin_parts(b"given up", &Headers::default()).await?;
    client.abort_parts(&begun).await?;
    client.abort_parts(&begun).await?;
    ensure!(matches!(client.head(b"given up").await, Err(Error::NotFound(_))));
    Ok(())
}

#[tokio::test]
async fn two_writers_cannot_overwrite_each_other_unknowingly() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let dir = tempfile::tempdir()?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let client = client(&server)?;
    let put = async |text: &'static str, condition: Condition| {
        client
            .put(b"lock", Bytes::from(text), &Headers::default(), &condition)
            .await
    };
    let first = put("one", Condition::Absent).await?;
    ensure!(matches!(put("two", Condition::Absent).await, Err(Error::Changed(_))));
    let second = put("three", Condition::Is(first.etag.clone())).await?;
    ensure!(matches!(
        put("four", Condition::Is(first.etag)).await,
        Err(Error::Changed(_))
    ));
    let held = client.get(b"lock", None, 100).await?;
    ensure!((held.bytes, held.meta.etag) == (Bytes::from("three"), second.etag));
    Ok(())
}

#[tokio::test]
async fn headers_change_without_sending_the_bytes_again_and_batches_follow_each_other() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let dir = tempfile::tempdir()?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let client = client(&server)?;
    let stored = client
        .put(b"x", Bytes::from("bytes"), &Headers::default(), &Condition::Always)
        .await?;
    let headers = Headers {
        cache_control: Some("max-age=60".into()),
        acl: Some("public-read".into()),
        ..Headers::default()
    };
    let copied = client.copy(b"x", b"x", &headers, Some(&stored.etag)).await?;
    ensure!(copied.etag == stored.etag);
    ensure!(client.head(b"x").await?.headers.cache_control == headers.cache_control);
    for number in 0..1005 {
        client
            .put(
                format!("many/{number:04}").as_bytes(),
                Bytes::new(),
                &Headers::default(),
                &Condition::Always,
            )
            .await?;
    }
    let many = list_all(&client, "many/").await?;
    ensure!(many.len() == 1005);
    let before = server.requests()?;
    ensure!(client.delete(&many.into_keys().collect::<Vec<_>>()).await?.is_empty());
    ensure!(server.requests()? - before == 2, "1,005 keys take two batches");
    Ok(())
}
