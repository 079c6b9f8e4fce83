//! Two friends in one local network, whose addresses change: they find each other by multicast DNS.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::grid::{Node, invite};
use tests::home::Home;
use tests::netns::Street;

use crate::two_nats::await_reach;

/// With mDNS on or off: both at other addresses than those that each knows of the other.
fn with_moved_friends(mdns: &str, then: impl FnOnce(&Home, &Home) -> Result<()>) -> Result<()> {
    let lan = match Street::lan() {
        Ok(lan) => lan,
        Err(reason) => {
            tests::left_out::say(&format!("network namespaces cannot be made here: {reason:#}"));
            return Ok(());
        }
    };
    let dir = tempfile::tempdir()?;
    let home = |name: &str, number: u8| -> Result<Home> {
        let home = Home::init(dir.path().join(name), name, 1)?.within(lan.host(number));
        home.ok(["config", "set", "listen", "/ip4/0.0.0.0/tcp/4250"])?;
        home.ok(["config", "set", "mdns", mdns])?;
        Ok(home)
    };
    let (anna, bert) = (home("anna", 1)?, home("bert", 2)?);
    let node = Node::start(&anna)?;
    bert.ok(["join", &invite(&anna)?])?;
    drop(node);
    // What each knows of the other leads nowhere from here on.
    lan.readdress(1, "192.168.7.121/24")?;
    lan.readdress(2, "192.168.7.122/24")?;
    let (_anna, _bert) = (Node::start(&anna)?, Node::start(&bert)?);
    then(&anna, &bert)
}

#[test]
fn friends_in_one_house_find_each_other_after_both_got_other_addresses() -> Result<()> {
    with_moved_friends("true", |anna, bert| {
        ensure!(await_reach(anna, "bert", &["direct"])? == "direct");
        ensure!(await_reach(bert, "anna", &["direct"])? == "direct");
        Ok(())
    })
}

/// A laptop that goes to other people's networks tells them nothing of who it is, if its owner says so.
#[test]
fn without_multicast_dns_nobody_in_the_network_hears_who_is_there() -> Result<()> {
    with_moved_friends("false", |anna, bert| {
        // Twice as long as they take with it.
        std::thread::sleep(Duration::from_secs(12));
        for (home, friend) in [(anna, "bert"), (bert, "anna")] {
            let shown = home.ok(["peer", "ls"])?.lines;
            let reach = shown
                .iter()
                .find(|line| line["name"] == friend)
                .map(|line| &line["reach"]);
            ensure!(reach.is_some_and(|reach| reach != "direct"), "{shown:?}");
        }
        Ok(())
    })
}
