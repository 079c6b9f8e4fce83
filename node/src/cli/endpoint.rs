//! How an S3 endpoint is reached, as users of other tools type it: beside the `s3://` URL instead of in it.

use api::failure::{Exit, Failure};
use engine::config::PeerUrl;
use s3::{Location, encode};

/// Arguments of every command that takes an `s3://` URL. They win over what the URL says.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EndpointArgs {
    /// S3 endpoint if not Amazon's
    #[arg(long, value_name = "URL", visible_alias = "endpoint-url")]
    pub endpoint: Option<String>,
    /// S3 region
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
}

impl EndpointArgs {
    /// The location as typed, reached as typed.
    pub fn location(&self, text: &str) -> Result<Location, Failure> {
        let mut location = Location::parse(text).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
        location.endpoint = self.endpoint.clone().or(location.endpoint);
        location.region = self.region.clone().or(location.region);
        Ok(location)
    }

    /// The same as one URL; what is none of S3 stays as it is.
    pub fn url(&self, text: String) -> String {
        if PeerUrl::of(&text).and_then(PeerUrl::bucket).is_none() {
            return text;
        }
        let options = [("endpoint", &self.endpoint), ("region", &self.region)];
        let options = options.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        options.fold(text, |url, (name, value)| {
            let mark = if url.contains('?') { '&' } else { '?' };
            format!("{url}{mark}{name}={}", encode(value.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_beside_the_url_wins() {
        let args = EndpointArgs {
            endpoint: Some("http://127.0.0.1:9000/a?b&c".to_owned()),
            region: Some("eu-1".to_owned()),
        };
        for text in ["s3://site/www", "s3://site/www?region=us-1&endpoint=http://x"] {
            let location = args.location(text).unwrap();
            assert_eq!(Location::parse(&args.url(text.to_owned())).unwrap(), location);
            assert_eq!(
                (location.endpoint, location.region),
                (args.endpoint.clone(), args.region.clone())
            );
        }
        assert_eq!(args.url("dir:/x".to_owned()), "dir:/x");
        assert_eq!(EndpointArgs::default().url("s3://site".to_owned()), "s3://site");
    }
}
