//! Keys in wrong hands, and people who come and go: real thieves, real friends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node, invite};
use tests::home::{Home, path_str};

use crate::healing::wait_until;
use crate::keep::{days_later, delete_everything, insist, snapshot_ids};

/// Longer than news take to friends who are there.
const HEARD: Duration = Duration::from_secs(5);

/// The devices of an account, as a home shows them: name, and whether it is revoked.
fn devices(home: &Home) -> Result<Vec<(String, bool)>> {
    let shown = home.ok(["device", "ls"])?.lines;
    let device = |line: &Value| Some((line["name"].as_str()?.to_owned(), line["is_revoked"].as_bool()?));
    shown
        .iter()
        .map(|line| device(line).with_context(|| line.to_string()))
        .collect()
}

/// The names of the members that a home knows, without itself.
fn friends(home: &Home) -> Result<Vec<String>> {
    let shown = home.ok(["peer", "ls"])?.lines;
    let friends = shown.iter().filter(|line| line["kind"] == "friend");
    let mut names: Vec<String> = friends.map(|line| line["name"].to_string()).collect();
    names.sort_unstable();
    Ok(names)
}

fn has_friend(home: &Home, name: &str) -> Result<bool> {
    Ok(friends(home)?.iter().any(|friend| friend.contains(name)))
}

/// A folder of files like people have, all below `dir/source`.
fn source(dir: &Path) -> Result<std::path::PathBuf> {
    let source = dir.join("source");
    fs::create_dir(&source)?;
    for (name, bytes) in [("letter", 60_000), ("film", 5 << 20), ("photo", 2 << 20)] {
        fs::write(source.join(name), noise(bytes, bytes as u64))?;
    }
    Ok(source)
}

/// What is restored from a home's newest snapshot, or from this one, is as the source.
fn restores(home: &Home, snapshot: &str, source: &Path, target: &Path) -> Result<()> {
    home.ok(["restore", snapshot, "--target", path_str(target)?])?;
    assert_same(source, &target.join(source.strip_prefix("/")?))
}

/// The laptop is stolen with its disk unlocked. The thief gives everything up, posts his own, asks for the owner's words in vain,
/// and would throw others out. The owner has 24 words and a blank machine.
#[test]
fn with_the_words_a_stolen_laptop_is_shut_out_and_what_it_gave_up_comes_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let grid = Grid::start(dir.path(), 4, 1)?;
    let owner = &grid.owner;
    owner.ok(["run", "--once", path_str(&source)?])?;

    // The thief, with every key that the laptop holds.
    let ids = owner.ok(["snapshots"])?.lines;
    let ids: Vec<&str> = ids.iter().filter_map(|line| line["id"].as_str()).collect();
    let mut forget = vec!["forget", "--prune", "--allow-empty-group"];
    forget.extend(&ids);
    ensure!(owner.ok(forget)?.number("shares_discarded") > 0);
    let garbage = dir.path().join("garbage");
    fs::create_dir(&garbage)?;
    fs::write(garbage.join("mine"), noise(100_000, 666))?;
    owner.ok(["run", "--once", path_str(&garbage)?])?;
    let invented = dir.path().join("invented.words");
    fs::copy(grid.nodes[0].home.words(), &invented)?;
    owner.exits(12, ["leave", "--phrase-file", path_str(&invented)?])?;
    let said = owner.ok(["peer", "rm", "node2", "--force"])?;
    ensure!(said.text("action") == "voted out", "one vote of many: {said:?}");
    ensure!(has_friend(&grid.nodes[2].home, "node2")?, "one member removes nobody");

    // The owner, on a blank machine.
    let blank = Home::new(dir.path().join("blank"));
    let (words, via) = (owner.words(), grid.nodes[0].address()?);
    let (words, via) = (path_str(&words)?, via.as_str());
    blank.ok(["recover", "--name", "blank", "--phrase-file", words, "--via", via])?;
    ensure!(
        devices(&blank)?.iter().filter(|(_, revoked)| !revoked).count() == 2,
        "{:?}",
        devices(&blank)?
    );
    let laptop = blank.ok(["device", "ls"])?.lines;
    let laptop = laptop
        .iter()
        .find(|line| line["is_this"] == false)
        .context("the laptop")?;
    let laptop = laptop["id"].as_str().context("an id")?.to_owned();
    let revoked = blank.ok(["device", "revoke", &laptop[..12], "--phrase-file", words])?;
    ensure!(
        format!("{:?}", revoked.lines).contains("had voted against: node2"),
        "what the thief had said is told: {revoked:?}"
    );
    blank.ok(["device", "revoke", &laptop[..12], "--phrase-file", words])?;
    ensure!(devices(&blank)?.iter().filter(|(_, revoked)| *revoked).count() == 1);
    blank.ok(["undelete"])?;
    let all = blank.ok(["snapshots"])?.lines;
    ensure!(all.iter().any(|line| line["id"] == ids[0]), "{all:?}");
    restores(&blank, ids[0], &source, &dir.path().join("restored"))?;

    // The thief is out, at everybody.
    wait_until("the friends refuse the laptop", || {
        Ok(owner.say(["run", "--once", path_str(&garbage)?])?.code != Some(0))
    })?;
    owner.exits(
        13,
        ["restore", "latest", "--target", path_str(&dir.path().join("stolen"))?],
    )?;
    // The machine hears what happened to it.
    let shown = owner.say(["status"])?;
    ensure!(
        shown.code == Some(4) && shown.last().to_string().contains("has revoked this machine"),
        "{shown:?}"
    );
    ensure!(devices(owner)?.iter().any(|(_, revoked)| *revoked));
    owner.exits(1, ["invite"])?;
    owner.exits(1, ["leave", "--phrase-file", words])?;
    // And backups go on.
    fs::write(source.join("new"), noise(80_000, 7))?;
    blank.ok(["run", "--once", path_str(&source)?])?;
    restores(&blank, "latest", &source, &dir.path().join("again"))?;
    ensure!(blank.ok(["check"])?.last()["ok"] == true);
    Ok(())
}

/// The laptop, the only machine of the account, is stolen. For three weeks the thief signs heads with its key: all snapshots forgotten,
/// everything given up, files of his own. The owner comes back from a journey with the 24 words.
#[test]
fn what_a_thief_signs_for_weeks_hides_nothing_from_the_owner_who_revokes_his_machine() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let mut grid = Grid::start(dir.path(), 3, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    days_later(&mut grid, 2)?;
    fs::write(source.join("letter"), noise(70_000, 70_000))?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let true_ones = snapshot_ids(&grid.owner)?;
    ensure!(true_ones.len() == 2);

    let garbage = dir.path().join("garbage");
    fs::create_dir(&garbage)?;
    for day in 0..4_u64 {
        days_later(&mut grid, 1 + 6 * u64::from(day > 0))?;
        delete_everything(&grid.owner)?;
        fs::write(garbage.join("mine"), noise(50_000 + day as usize, day))?;
        grid.owner.ok(["run", "--once", path_str(&garbage)?])?;
    }

    let blank = Home::new(dir.path().join("blank"));
    let (words, via) = (grid.owner.words(), grid.nodes[0].address()?);
    let words = path_str(&words)?;
    blank.ok(["recover", "--name", "blank", "--phrase-file", words, "--via", &via])?;
    let found = snapshot_ids(&blank)?;
    ensure!(
        !true_ones.iter().any(|id| found.contains(id)),
        "what the thief says: {found:?}"
    );
    let laptop = blank.ok(["device", "ls"])?.lines;
    let laptop = laptop
        .iter()
        .find(|line| line["is_this"] == false)
        .context("the laptop")?;
    let laptop = laptop["id"].as_str().context("an id")?.to_owned();
    blank.ok(["device", "revoke", &laptop[..12], "--phrase-file", words])?;

    // Now the owner's word is heard: all states of the laptop are here that friends still have.
    let said = blank.ok(["recover"])?;
    let revoked = &said.last()["revoked"];
    let states = revoked[0]["states"].as_array().map_or(0, Vec::len);
    ensure!(revoked[0]["device"] == "owner" && states >= 3, "{}", said.last());
    let found = snapshot_ids(&blank)?;
    ensure!(
        true_ones.iter().all(|id| found.contains(id)),
        "{found:?} lacks some of {true_ones:?}"
    );
    insist(&blank, &["undelete"], &["undelete"], "shares_recalled")?;
    restores(&blank, &true_ones[1], &source, &dir.path().join("restored"))?;
    fs::write(source.join("new"), noise(80_000, 7))?;
    blank.ok(["run", "--once", path_str(&source)?])?;
    restores(&blank, "latest", &source, &dir.path().join("again"))?;
    ensure!(blank.ok(["check"])?.last()["ok"] == true);
    // Nothing that is posted from now on needs the laptop's heads.
    let third = Home::new(dir.path().join("third"));
    third.ok(["recover", "--name", "third", "--phrase-file", words, "--via", &via])?;
    let found = snapshot_ids(&third)?;
    ensure!(true_ones.iter().all(|id| found.contains(id)), "{found:?}");
    Ok(())
}

/// The founder's laptop is stolen with its disk unlocked. The thief lets inventions in, who outvote a friend, and throws out another in
/// the founder's name. The owner has 24 words and a blank machine.
#[test]
fn a_stolen_machine_of_the_founder_takes_no_grid_over() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let grid = Grid::start(dir.path(), 4, 1)?;
    let laptop = &grid.nodes[0].home;
    laptop.ok(["run", "--once", path_str(&source)?])?;

    let mut inventions = Vec::new();
    for number in 0..5 {
        let name = format!("invention{number}");
        let invention = Home::init(dir.path().join(&name), &name, 1)?;
        invention.ok(["join", &invite(laptop)?])?;
        invention.exits(1, ["peer", "rm", "node1", "--force"])?;
        invention.ok(["peer", "rm", "node2", "--force"])?;
        inventions.push(name);
    }
    laptop.ok(["peer", "rm", "node3", "--force"])?;
    wait_until("two friends are out", || {
        Ok(!has_friend(&grid.nodes[3].home, "node2")? && !has_friend(&grid.nodes[3].home, "node3")?)
    })?;

    let blank = Home::new(dir.path().join("blank"));
    let (words, via) = (laptop.words(), grid.nodes[3].address()?);
    let words = path_str(&words)?;
    // Of those who keep its shares enough may be friends still, or not.
    let said = blank.say(["recover", "--name", "blank", "--phrase-file", words, "--via", &via])?;
    ensure!(matches!(said.code, Some(0 | 13)), "{said:?}");
    let devices = blank.ok(["device", "ls"])?.lines;
    let stolen = devices.iter().find(|line| line["is_this"] == false);
    let stolen = stolen.and_then(|line| line["id"].as_str()).context("the laptop")?;
    let revoke = ["device", "revoke", stolen, "--phrase-file", words, "--take-back", "all"];
    blank.exits(2, [&revoke[..], &["--put-out", "node9"]].concat())?;
    let mut put_out = revoke.to_vec();
    for name in &inventions {
        put_out.extend(["--put-out", name]);
    }
    let said = format!("{:?}", blank.ok(put_out)?.lines);
    ensure!(said.contains("Out of the grid with it: "), "{said}");
    for node in &grid.nodes[1..] {
        wait_until("the inventions are out", || Ok(!has_friend(&node.home, "invention")?))?;
    }
    // Whom the thief had thrown out is invited.
    blank.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let blank = Node::start(&blank)?;
    for friend in &grid.nodes[1..3] {
        friend.home.ok(["join", &invite(&blank.home)?])?;
    }
    wait_until("all are back", || Ok(friends(&blank.home)?.len() == 4))?;
    let blank = &blank.kill_9();
    blank.ok(["recover"])?;
    restores(blank, "latest", &source, &dir.path().join("restored"))?;
    fs::write(source.join("new"), noise(80_000, 7))?;
    blank.ok(["run", "--once", path_str(&source)?])?;
    restores(blank, "latest", &source, &dir.path().join("again"))
}

/// Whom a machine had let in is known to friends: revoked from a home that knows nobody who answers, its friends would be out with it.
/// And a home that lost its catalog still says who belongs.
#[test]
fn nothing_is_revoked_while_no_friend_answers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut grid = Grid::start(dir.path(), 2, 1)?;
    let (owner, words) = (grid.owner.clone(), grid.owner.words());
    let revoke = ["device", "revoke", &"7".repeat(64), "--phrase-file", path_str(&words)?].map(str::to_owned);
    let down: Vec<Home> = grid.nodes.drain(..).map(Node::kill_9).collect();
    let refused = owner.exits(1, &revoke)?;
    ensure!(refused.stderr.contains("No friend of the grid answers"), "{refused:?}");
    ensure!(devices(&owner)?.iter().all(|(_, revoked)| !revoked));
    // A recovery that found nobody has a grid of its own: whom it let in would stand in the way of the true one.
    let blank = Home::new(dir.path().join("blank"));
    let via = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWE38TSER7dREXigsNnCUiC4ZZkLEYTWmGWYYmf5YxejCJ";
    let lost = blank.say(["recover", "--phrase-file", path_str(&words)?, "--via", via])?;
    ensure!(lost.code != Some(0), "{lost:?}");
    let refused = blank.exits(1, ["invite"])?;
    ensure!(refused.stderr.contains("recover --via"), "{refused:?}");
    fs::remove_file(owner.dir.join("catalog.db"))?;
    ensure!(devices(&owner)?.len() == 1 && friends(&owner)?.len() == 2);
    owner.exits(1, ["snapshots"])?;
    let up = Node::start(&down[0])?;
    owner.ok(&revoke)?;
    ensure!(devices(&owner)?.iter().filter(|(_, revoked)| *revoked).count() == 1);
    ensure!(
        !owner.dir.join("catalog.db").exists(),
        "an empty one would hide what there was"
    );
    // Where all friends are gone it is said all the same.
    down.iter().try_for_each(|home| fs::remove_dir_all(&home.dir))?;
    drop(up);
    let other = [
        "device",
        "revoke",
        &"8".repeat(64),
        "--unheard",
        "--phrase-file",
        path_str(&words)?,
    ]
    .map(str::to_owned);
    owner.ok(&other)?;
    ensure!(devices(&owner)?.iter().filter(|(_, revoked)| *revoked).count() == 2);
    Ok(())
}

/// A machine on which nothing was recovered does not know what the account has revoked: the word that it brings with a ticket would bring a
/// thief back.
#[test]
fn a_word_that_forgets_a_revocation_is_refused_and_the_next_one_is_not() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let grid = Grid::start(dir.path(), 2, 1)?;
    let (words, lost) = (grid.owner.words(), "7".repeat(64));
    let words = path_str(&words)?;
    grid.owner.ok(["device", "revoke", &lost, "--phrase-file", words])?;
    let blank = Home::new(dir.path().join("blank"));
    let via = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWE38TSER7dREXigsNnCUiC4ZZkLEYTWmGWYYmf5YxejCJ";
    let nobody = blank.say(["recover", "--phrase-file", words, "--via", via])?;
    ensure!(nobody.code != Some(0), "{nobody:?}");
    blank.exits(1, ["join", &invite(&grid.nodes[0].home)?, "--phrase-file", words])?;
    blank.ok(["join", &invite(&grid.nodes[0].home)?, "--phrase-file", words])?;
    let revoked = blank.ok(["device", "ls"])?.lines;
    ensure!(
        revoked
            .iter()
            .any(|line| line["id"] == lost.as_str() && line["is_revoked"] == true),
        "{revoked:?}"
    );
    ensure!(friends(&blank)?.len() == 2);
    Ok(())
}

/// The founder's house burns. Those whom it had admitted admit a new friend, and remove one by vote; the grid goes on.
#[test]
fn a_grid_outlives_its_founder() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let mut grid = Grid::start(dir.path(), 5, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let founder = grid.nodes.remove(0).kill_9();
    fs::remove_dir_all(&founder.dir)?;

    let new = Home::init(dir.path().join("new"), "newcomer", 1)?;
    new.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    new.ok(["join", &invite(&grid.nodes[0].home)?])?;
    let new = Node::start(&new)?;
    for member in grid.nodes.iter().map(|node| &node.home) {
        wait_until("everybody knows the newcomer", || has_friend(member, "newcomer"))?;
    }
    // Electors: the founder, node2 to node5, the owner. A removal takes more than half of those but the removed one: three of five.
    let removed = grid.nodes.pop().context("node5")?.kill_9();
    let voters: Vec<Home> = grid.nodes.iter().map(|node| node.home.clone()).collect();
    for (number, voter) in voters.iter().enumerate() {
        let said = voter.ok(["peer", "rm", "node5", "--force"])?;
        let action = said.text("action").to_owned();
        ensure!(
            action == if number < 2 { "voted out" } else { "removed" },
            "{number}: {said:?}"
        );
        // The next one must have heard of this vote.
        std::thread::sleep(HEARD);
    }
    wait_until("the owner hears of it", || {
        grid.owner.say(["run", "--once", path_str(&source)?])?;
        Ok(!has_friend(&grid.owner, "node5")?)
    })?;
    fs::remove_dir_all(&removed.dir)?;
    grid.owner.say(["repair"])?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    restores(&grid.owner, "latest", &source, &dir.path().join("restored"))?;
    // A blank machine finds its way by whoever is left, the newcomer too.
    let blank = Home::new(dir.path().join("blank"));
    let words = grid.owner.words();
    blank.ok(["recover", "--phrase-file", path_str(&words)?, "--via", &new.address()?])?;
    restores(&blank, "latest", &source, &dir.path().join("recovered"))
}

/// Leaving was folklore: whoever left could only move files about.
#[test]
fn a_member_leaves_with_its_words_and_comes_back_with_a_ticket_and_its_words() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let grid = Grid::start(dir.path(), 3, 1)?;
    let words = grid.owner.words();
    let words = path_str(&words)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    // With a daemon at work, whom friends answer who have not heard of it yet.
    grid.owner.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let daemon = Node::start(&grid.owner)?;
    grid.owner.ok(["leave", "--phrase-file", words])?;
    std::thread::sleep(HEARD);
    ensure!(friends(&grid.owner)?.is_empty(), "{:?}", friends(&grid.owner)?);
    ensure!(devices(&grid.owner)?.len() == 1, "it has a grid of its own");
    drop(daemon);
    ensure!(friends(&grid.owner)?.is_empty(), "{:?}", friends(&grid.owner)?);
    for node in &grid.nodes {
        wait_until("everybody hears of it", || Ok(!has_friend(&node.home, "owner")?))?;
    }
    let ticket = invite(&grid.nodes[1].home)?;
    grid.owner.exits(1, ["join", &ticket])?;
    grid.owner
        .ok(["join", &invite(&grid.nodes[1].home)?, "--phrase-file", words])?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    restores(&grid.owner, "latest", &source, &dir.path().join("restored"))
}

/// Names are chosen by who bears them: a namesake gets nothing of what was meant for another.
#[test]
fn a_namesake_gets_neither_the_quota_nor_the_order_of_another() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let grid = Grid::start(dir.path(), 2, 1)?;
    let owner = &grid.owner;
    owner.ok(["peer", "set", "node1", "--quota", "5000000"])?;
    owner.ok(["config", "set", "steward", "node1"])?;
    let of = |home: &Home| -> Result<Vec<Value>> {
        let peers = home.ok(["peer", "ls"])?.lines;
        Ok(peers
            .into_iter()
            .filter(|line| line["name"].to_string().to_lowercase().contains("node1"))
            .collect())
    };
    let true_one = of(owner)?.pop().context("node1")?;
    ensure!(true_one["name"] == "node1" && true_one["quota"] == 5_000_000 && true_one["is_steward"] == true);

    let second = Home::init(dir.path().join("second"), "Node1", 1)?;
    second.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    second.ok(["join", &invite(&grid.nodes[1].home)?])?;
    let _second = Node::start(&second)?;
    wait_until("the owner hears of the namesake", || {
        owner.say(["check"])?;
        Ok(of(owner)?.len() == 2)
    })?;
    for shown in of(owner)? {
        let is_true_one = shown["peer_id"] == true_one["peer_id"];
        let name = shown["name"].as_str().context("a name")?;
        ensure!(name.contains("ode1~"), "both are marked: {shown}");
        ensure!((shown["quota"] == 5_000_000) == is_true_one, "{shown}");
        ensure!((shown["is_steward"] == true) == is_true_one, "{shown}");
        owner.ok([
            "peer",
            "set",
            name,
            "--quota",
            if is_true_one { "6000000" } else { "7000000" },
        ])?;
    }
    for shown in of(owner)? {
        let is_true_one = shown["peer_id"] == true_one["peer_id"];
        ensure!(
            shown["quota"] == if is_true_one { 6_000_000 } else { 7_000_000 },
            "{shown}"
        );
    }
    Ok(())
}
