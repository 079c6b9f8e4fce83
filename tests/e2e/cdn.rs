//! CloudFront (moto's) and a command hear of what was changed, whatever happens in between.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::home::{Said, said};
use tests::s3::Kind;
use tests::site::{Site, name, wait_until, write};

/// What stands between two marks, as often as it does.
fn between(text: &str, start: &str, end: &str) -> Vec<String> {
    let parts = text.split(start).skip(1);
    parts
        .filter_map(|part| Some(part.split_once(end)?.0.to_owned()))
        .collect()
}

/// A distribution that shows what lies below `path` of the bucket.
fn distribution(site: &Site, path: &str) -> Result<String> {
    let config = format!(
        "<DistributionConfig xmlns=\"http://cloudfront.amazonaws.com/doc/2020-05-31/\"><CallerReference>test</CallerReference>\
         <Origins><Quantity>1</Quantity><Items><Origin><Id>o</Id><DomainName>site.s3.amazonaws.com</DomainName>\
         <OriginPath>{path}</OriginPath><S3OriginConfig><OriginAccessIdentity></OriginAccessIdentity></S3OriginConfig></Origin></Items>\
         </Origins><DefaultCacheBehavior><TargetOriginId>o</TargetOriginId><ViewerProtocolPolicy>allow-all</ViewerProtocolPolicy>\
         </DefaultCacheBehavior><Comment></Comment><Enabled>true</Enabled></DistributionConfig>"
    );
    let answer = site
        .server
        .raw("POST", "/2020-05-31/distribution", "cloudfront", &config)?;
    between(&answer, "<Id>", "</Id>")
        .into_iter()
        .next()
        .with_context(|| format!("no distribution: {answer}"))
}

/// The paths of each invalidation so far, sorted.
fn invalidated(site: &Site, id: &str) -> Result<Vec<Vec<String>>> {
    let path = format!("/2020-05-31/distribution/{id}/invalidation");
    let list = site.server.raw("GET", &path, "cloudfront", "")?;
    let ids = between(&list, "<Id>", "</Id>");
    let mut all = Vec::new();
    for invalidation in ids {
        let answer = site
            .server
            .raw("GET", &format!("{path}/{invalidation}"), "cloudfront", "")?;
        all.push(between(&answer, "<Path>", "</Path>"));
    }
    Ok(all)
}

fn command(site: &Site, cloudfront: &str, args: &[&str]) -> Result<Command> {
    let mut command = site.command("", args)?;
    command.env("AWS_ENDPOINT_URL_CLOUDFRONT", cloudfront);
    Ok(command)
}

fn publish(site: &Site, args: &[&str]) -> Result<Said> {
    let said = said(command(site, &format!("http://{}", site.server.at), args)?.output()?)?;
    ensure!(said.code == Some(0), "{:?}: {} {}", said.code, said.last(), said.stderr);
    Ok(said)
}

#[tokio::test]
async fn updated_and_deleted_paths_are_forgotten_and_added_ones_are_not() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 30)?;
    let id = distribution(&site, "/www")?;
    publish(&site, &["--cloudfront", &id])?;
    ensure!(invalidated(&site, &id)?.is_empty(), "everything is new");
    write(&site.root, b"new.txt", 1)?;
    write(&site.root, b"d1/index.html", 2)?;
    write(&site.root, b"d0/file 0.css", 77)?;
    std::fs::remove_file(site.root.join("d1/file 1.html"))?;
    publish(&site, &["--cloudfront", &id])?;
    ensure!(
        invalidated(&site, &id)? == [["/d0/file%200.css", "/d1/file%201.html"]],
        "{:?}",
        invalidated(&site, &id)?
    );
    publish(&site, &["--cloudfront", &id])?;
    ensure!(invalidated(&site, &id)?.len() == 1, "nothing changed, nothing is told");

    // Many changes become folders; a page stands for its folder; the origin's path can be said instead of asked for.
    for number in 0..30 {
        write(&site.root, name(number).as_bytes(), 99)?;
    }
    write(&site.root, b"d1/index.html", 3)?;
    publish(&site, &["--cloudfront", &id, "--cloudfront-paths", "7"])?;
    let folders: Vec<_> = (0..7).map(|number| format!("/d{number}/*")).collect();
    ensure!(
        invalidated(&site, &id)?.contains(&folders),
        "{:?}",
        invalidated(&site, &id)?
    );
    write(&site.root, b"d1/index.html", 4)?;
    publish(&site, &["--cloudfront", &format!("{id}:/")])?;
    let named = vec!["/www/d1/index.html".to_owned(), "/www/d1/".to_owned()];
    ensure!(
        invalidated(&site, &id)?.contains(&named),
        "{:?}",
        invalidated(&site, &id)?
    );
    Ok(())
}

#[tokio::test]
async fn a_kill_between_sending_and_telling_loses_no_path() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 9)?;
    let id = distribution(&site, "/www")?;
    publish(&site, &["--cloudfront", &id])?;
    write(&site.root, b"d0/file 0.css", 50)?;
    std::fs::remove_file(site.root.join("d1/file 1.html"))?;
    // Takes requests and answers none.
    let deaf = TcpListener::bind(("127.0.0.1", 0))?;
    let mut child = command(&site, &format!("http://{}", deaf.local_addr()?), &["--cloudfront", &id])?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let (_stream, _) = deaf.accept()?;
    child.kill()?;
    child.wait()?;
    ensure!(site.objects().await?.len() == 8, "all was done but telling");
    let next = publish(&site, &["--cloudfront", &id])?;
    ensure!(
        next.number("objects_uploaded") + next.number("objects_deleted") == 0,
        "{}",
        next.last()
    );
    let told = invalidated(&site, &id)?;
    ensure!(told == [["/d0/file%200.css", "/d1/file%201.html"]], "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_hears_of_every_change_until_it_succeeds() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    let heard = site.dir.path().join("heard");
    let take = |path: &Path| -> Result<String> {
        let text = std::fs::read_to_string(path)?;
        std::fs::remove_file(path)?;
        Ok(text)
    };
    let hook = format!(
        "echo $GRIDBACKUP_BUCKET $GRIDBACKUP_PREFIX > {0}; cat >> {0}; echo said",
        heard.display()
    );
    let first = site.publish(0, &["--hook", &hook])?;
    ensure!(
        first.stderr.contains("said"),
        "its output is not ours: {}",
        first.stderr
    );
    ensure!(
        take(&heard)? == "site www/\nwww/d0/file 0.css\nwww/d1/file 1.html\nwww/d2/file 2.bin\n",
        "everything is new"
    );
    std::thread::sleep(Duration::from_millis(2100));
    site.publish(0, &["--hook", &hook])?;
    ensure!(!heard.exists(), "nothing changed");

    write(&site.root, b"d0/file 0.css", 7)?;
    std::fs::remove_file(site.root.join("d2/file 2.bin"))?;
    let failed = site.publish(1, &["--hook", "exit 3"])?;
    ensure!(
        format!("{:?}", failed.lines).contains("it ended with exit status: 3; the next run runs it again"),
        "{:?}",
        failed.lines
    );
    write(&site.root, b"new", 7)?;
    site.publish(0, &["--hook", &hook, "--hook-format", "json"])?;
    let expected = "site www/\n{\"change\":\"updated\",\"key\":\"www/d0/file 0.css\"}\n{\"change\":\"deleted\",\"key\":\"www/d2/file 2.bin\"}\n\
                    {\"change\":\"added\",\"key\":\"www/new\"}\n";
    let told = take(&heard)?;
    ensure!(told == expected, "{told}");
    site.publish(0, &["--hook", &hook])?;
    ensure!(!heard.exists(), "it was told once");

    // Killed while it runs: told again.
    write(&site.root, b"new", 8)?;
    let begun = site.dir.path().join("begun");
    let mut child = site
        .command("", &["--hook", &format!("touch {}; exec sleep 3", begun.display())])?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    wait_until("the hook begins", || Ok(begun.exists()))?;
    child.kill()?;
    child.wait()?;
    site.publish(0, &["--hook", &hook, "--hook-format", "nul"])?;
    ensure!(take(&heard)? == "site www/\nwww/new\0");
    Ok(())
}
