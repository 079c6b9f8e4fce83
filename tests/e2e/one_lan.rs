//! Two friends in one local network, whose addresses change: they find each other by multicast DNS.

use anyhow::{Result, ensure};
use tests::grid::{Node, invite};
use tests::home::Home;
use tests::netns::Street;

use crate::two_nats::await_reach;

#[test]
fn friends_in_one_house_find_each_other_after_both_got_other_addresses() -> Result<()> {
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
        home.ok(["config", "set", "mdns", "true"])?;
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
    ensure!(await_reach(&anna, "bert", &["direct"])? == "direct");
    ensure!(await_reach(&bert, "anna", &["direct"])? == "direct");
    Ok(())
}
