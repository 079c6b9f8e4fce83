//! `status` for whoever does not hold the home: another process works in it and answers nobody. What the catalog says can be
//! read beside it; peers are not asked.

use api::failure::{Exit, Failure};
use api::message::PathName;
use api::output::Sink;
use database::DbError;

use crate::config::last_good::InForce;
use crate::facts::Scene;
use crate::friends::{has_left, is_revoked};
use crate::home::HomePaths;
use crate::home::identity::Identity;
use crate::{failures, faults, file_status, kind, status};

/// Answers `status` by the catalog alone.
pub async fn onlook(home: HomePaths, paths: Vec<PathName>, sink: Sink) -> Result<Exit, Failure> {
    let cert = Identity::cert(&home)?;
    let own = cert.account;
    let InForce { config, fault } = InForce::read(&home.config(), &home.last_config());
    let mut peers = Vec::new();
    for kind in kind::kinds() {
        peers.extend(kind::known(kind, &home, &config, own)?);
    }
    let scene = Scene {
        config,
        config_fault: fault.map(|fault| fault.error),
        device: cert.device,
        peers,
        online: None,
        store_only: false,
        is_running: true,
        // The process that has the home has its disks, and commits what is written to them.
        disks_ahead: Vec::new(),
        disk_votes: Vec::new(),
        is_full: faults::is_full(home.state_dir()),
        is_revoked: is_revoked(&home, &cert),
        has_left: has_left(&home, &cert),
    };
    let catalog = home.catalog();
    if !paths.is_empty() {
        let looking = move || database::look::<_, Failure>(&catalog, |conn| file_status::look(conn, &scene, &paths));
        let answers = tokio::task::spawn_blocking(looking).await.map_err(failures::worker)??;
        return file_status::send(answers, &sink).await;
    }
    let looking = move || database::look::<_, DbError>(&catalog, |conn| status::look(conn, &scene));
    let (status, verdict) = tokio::task::spawn_blocking(looking).await.map_err(failures::worker)??;
    sink.send(status).await?;
    Ok(verdict.exit())
}
