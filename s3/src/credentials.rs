//! The usual chain: environment, profile, single sign-on, web identity, process, container, instance.
//!
//! The chain is reqsign's; what it may touch (environment, files, programs, HTTP) is given to it here.

use bytes::Bytes;
use hyper::{Request, Response};
use reqsign_aws_core::{Credential, DefaultCredentialProvider, StaticCredentialProvider};
use reqsign_core::{CommandOutput, Context, OsEnv, ProvideCredential, SigningCredential};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::transport::Transport;

/// Longest file of credentials or tokens that is read, in bytes: real ones have a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest answer of a token service, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Where the credentials of a client come from; they are kept until they expire.
#[derive(Debug)]
pub(crate) struct Credentials {
    source: Source,
    kept: Mutex<Option<Credential>>,
}

#[derive(Debug)]
enum Source {
    Chain {
        provider: Box<DefaultCredentialProvider>,
        context: Box<Context>,
    },
    Given(StaticCredentialProvider),
}

impl Credentials {
    /// The chain; asks nothing yet.
    pub fn chain(transport: Transport) -> Self {
        let context = Context::new()
            .with_env(OsEnv)
            .with_file_read(Files)
            .with_command_execute(Commands)
            .with_http_send(Http(transport));
        let provider = Box::new(DefaultCredentialProvider::new());
        Self {
            source: Source::Chain {
                provider,
                context: Box::new(context),
            },
            kept: Mutex::default(),
        }
    }

    /// These and no others.
    pub fn given(access_key: &str, secret_key: &str) -> Self {
        let provider = StaticCredentialProvider::new(access_key, secret_key);
        Self {
            source: Source::Given(provider),
            kept: Mutex::default(),
        }
    }

    /// Credentials that hold for two more minutes, or those that still hold if no newer ones can be had.
    pub async fn current(&self) -> Result<Credential, Error> {
        let mut kept = self.kept.lock().await;
        if let Some(credential) = kept.as_ref().filter(|credential| credential.is_valid()) {
            return Ok(credential.clone());
        }
        let loaded = match &self.source {
            Source::Chain { provider, context } => provider.provide_credential(context).await,
            Source::Given(provider) => provider.provide_credential(&Context::new()).await,
        };
        let still = kept
            .take()
            .filter(|old| old.is_valid_at(reqsign_core::time::Timestamp::now()));
        match loaded {
            Ok(Some(credential)) => *kept = Some(credential),
            Ok(None) => *kept = Some(still.ok_or(Error::NoCredentials)?),
            Err(error) => *kept = Some(still.ok_or(Error::Credentials(error))?),
        }
        kept.clone().ok_or(Error::NoCredentials)
    }

    /// The endpoint says that they have expired.
    pub async fn forget(&self) {
        *self.kept.lock().await = None;
    }
}

#[derive(Debug)]
struct Files;

impl reqsign_core::FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let failed = |error: std::io::Error| {
            reqsign_core::Error::config_invalid(format!("`{path}` cannot be read")).with_source(error)
        };
        let meta = tokio::fs::metadata(path).await.map_err(failed)?;
        if meta.len() > FILE_BYTES_MAX {
            return Err(reqsign_core::Error::config_invalid(format!(
                "`{path}` is too long for credentials"
            )));
        }
        tokio::fs::read(path).await.map_err(failed)
    }
}

#[derive(Debug)]
struct Commands;

impl reqsign_core::CommandExecute for Commands {
    async fn command_execute(&self, program: &str, args: &[&str]) -> reqsign_core::Result<CommandOutput> {
        let mut command = tokio::process::Command::new(program);
        let output = command.args(args).stdin(std::process::Stdio::null()).output().await;
        let output = output.map_err(|error| {
            reqsign_core::Error::config_invalid(format!("`{program}` cannot be started")).with_source(error)
        })?;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

#[derive(Debug)]
struct Http(Transport);

impl reqsign_core::HttpSend for Http {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let target = request.uri().host().unwrap_or_default().to_owned();
        let answer = async {
            let answer = self.0.send(request, &target).await?;
            let (parts, body) = answer.into_parts();
            Ok(Response::from_parts(parts, body.all(ANSWER_BYTES_MAX).await?))
        };
        answer.await.map_err(|error: Error| {
            reqsign_core::Error::unexpected(format!("{target} gave no credentials")).with_source(error)
        })
    }
}
