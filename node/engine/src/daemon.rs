//! The daemon's life: store for friends, back up now and then, answer until told to stop.

use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Message, Ready};
use api::output::{Output, Sink, channel};
use api::request::RunOnce;

use crate::home::peer_id;
use crate::{Engine, Mode};

/// Shortest time between two backups, whatever the config says.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Engine {
    /// Sends `ready`, then events, until the sink's stop token is cancelled.
    pub async fn serve(&self, sink: Sink) -> Result<Exit, Failure> {
        let net = self.network().await?;
        self.say_ready(&sink).await?;
        let mut roster = net.roster_changes();
        let (engine, own) = (self.clone(), sink.clone());
        let backups = async move {
            match &engine.0.mode {
                Mode::Daemon(options) if !options.store_only => engine.back_up_for_ever(&own).await,
                _ => std::future::pending().await,
            }
        };
        let keeping = self.keep_for_ever(&sink);
        let (engine, own) = (self.clone(), sink.clone());
        let care = async move { engine.care_for_ever(&own).await };
        let passing = self.pass_on_for_ever();
        let watching = self.watch_for_ever(&sink);
        let mending = self.mend_config_for_ever(&sink);
        let room = self.room_again();
        tokio::pin!(backups, keeping, care, passing, watching, mending, room);
        self.refresh_peers();
        loop {
            tokio::select! {
                () = sink.stop().cancelled() => break,
                () = &mut backups => break,
                () = &mut keeping => break,
                () = self.keep_bandwidth() => break,
                () = &mut care => break,
                () = &mut passing => break,
                () = &mut watching => break,
                () = &mut mending => break,
                () = &mut room => break,
                () = net.stopped() => {
                    let error = "The network failed, and nothing goes in or out without it";
                    return Err(Failure::new(Exit::Failed, error).hint("start again; the log above says what happened"));
                }
                changed = roster.changed() => match changed {
                    Ok(()) => self.refresh_peers(),
                    Err(_closed) => break,
                },
            }
        }
        net.stop();
        Ok(Exit::Done)
    }

    async fn back_up_for_ever(&self, sink: &Sink) {
        loop {
            // By rules and folders that may not be those of today, nothing is backed up.
            let may = self.config_fault().is_none() && !self.only_serves();
            if may && !self.config().folders.is_empty() {
                self.back_up_once(sink).await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.config().interval.0.max(INTERVAL_MIN)) => {}
                () = self.0.back_up_now.notified() => {}
            }
        }
    }

    /// One backup whose answers become events; what fails is said and tried again next time.
    async fn back_up_once(&self, sink: &Sink) {
        let (answers, mut heard) = channel(sink.stop().child_token());
        let listen = async {
            while let Some(output) = heard.next().await {
                if let Output::Message(message) = output {
                    match message {
                        Message::Progress(_) => {}
                        message => {
                            let _nobody_reads = sink.send(message).await;
                        }
                    }
                }
            }
        };
        let run = async move {
            // The listener ends when the last answer's sender is gone.
            let answers = answers;
            let all = RunOnce {
                paths: Vec::new(),
                accept_emptied: false,
            };
            self.run_once(&all, &answers).await
        };
        if let (Err(failure), ()) = tokio::join!(run, listen) {
            tracing::error!(%failure, "backup failed");
            self.tell("backup_failed", failure.to_string(), sink).await;
        }
    }

    async fn say_ready(&self, sink: &Sink) -> Result<Exit, Failure> {
        let addresses = match self.0.net.get() {
            Some(net) => net.listen_addresses().iter().map(ToString::to_string).collect(),
            None => Vec::new(),
        };
        let api = match &self.0.mode {
            Mode::Daemon(options) => options.api.clone(),
            Mode::Command(_) => String::new(),
        };
        sink.send(Ready {
            peer_id: peer_id(&self.device()),
            addresses,
            api,
        })
        .await?;
        Ok(Exit::Done)
    }
}
