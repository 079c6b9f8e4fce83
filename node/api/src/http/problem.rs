//! Refusals as problem documents (RFC 9457): the failure's own fields beside a type, a title and a status.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::failure::{Exit, Failure, Kind};

/// Its media type.
const MEDIA_TYPE: &str = "application/problem+json";
/// Seconds after which it may go.
const RETRY_AFTER: &str = "1";

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    failure: &'a Failure,
}

/// The answer to what is not done.
pub fn refuse(failure: &Failure) -> Response {
    let status = status(failure);
    let problem = Problem {
        kind: format!("/problems/{}", failure.kind.name()),
        title: title(failure.kind),
        status: status.as_u16(),
        detail: &failure.error,
        failure,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        || failure.exit == Exit::HomeBusy
    {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    (status, headers, Json(problem)).into_response()
}

/// What a type of problem is, for whoever follows its link.
pub fn describe(name: &str) -> Result<String, Failure> {
    let kind = name.parse::<Kind>().map_err(|_none| {
        Failure::new(Exit::Failed, format!("There is no type of problem `{name}`")).kind(Kind::NotFound)
    })?;
    Ok(format!("{}\n", title(kind)))
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => "It failed",
        Kind::NotFound => "What was named is not there",
        Kind::Conflict => "It contradicts what is there",
        Kind::TooMany => "Too much is being done at once",
        Kind::WrongMethod => "The link is for another method",
        Kind::NotAcceptable => "No accepted form can be given",
        Kind::WrongType => "The body is not JSON",
        Kind::TooLarge => "The body is too large",
        Kind::TooLong => "The address is too long",
    }
}

/// By the kind, and where that says nothing by the exit code.
fn status(failure: &Failure) -> StatusCode {
    match (failure.kind, failure.exit) {
        (Kind::NotFound, _) => StatusCode::NOT_FOUND,
        (Kind::Conflict, _) => StatusCode::CONFLICT,
        (Kind::TooMany, _) => StatusCode::TOO_MANY_REQUESTS,
        (Kind::WrongMethod, _) => StatusCode::METHOD_NOT_ALLOWED,
        (Kind::NotAcceptable, _) => StatusCode::NOT_ACCEPTABLE,
        (Kind::WrongType, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (Kind::TooLarge, _) => StatusCode::PAYLOAD_TOO_LARGE,
        (Kind::TooLong, _) => StatusCode::URI_TOO_LONG,
        (Kind::Plain, Exit::Usage) => StatusCode::BAD_REQUEST,
        (Kind::Plain, Exit::NoAccount) => StatusCode::NOT_FOUND,
        (Kind::Plain, Exit::HomeBusy) => StatusCode::CONFLICT,
        (Kind::Plain, Exit::WrongPhrase) => StatusCode::FORBIDDEN,
        (Kind::Plain, Exit::TooFewShares | Exit::Interrupted) => StatusCode::SERVICE_UNAVAILABLE,
        (Kind::Plain, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
