//! What an endpoint answers: listings, refusals and all else in XML; and locations, which users copy from somewhere.

use s3::fuzzing::{listing, others, refusal};
use s3::{BATCH_KEYS_MAX, ListOptions, Location};

use crate::engine::{Cost, Target};
use crate::heard::Heard;

/// The target.
pub const TARGET: Target = Target {
    name: "s3",
    run,
    seeds,
    golden: &[],
    words: &[
        b"<?xml version=\"1.0\"?>",
        b"<Contents><Key>p/x</Key><Size>1</Size></Contents>",
        b"<IsTruncated>true</IsTruncated>",
        b"<NextContinuationToken>t</NextContinuationToken>",
        b"<!DOCTYPE x [<!ENTITY a \"aaaa\">]>",
        b"&a;",
        b"&amp;",
        b"&#0;",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"<Error>",
        b"</Error>",
        b"%2F",
        b"%zz",
        b"s3://",
        b"?endpoint=",
        b"&region=",
    ],
    cost: Cost::SMALL,
};

fn seeds() -> Vec<Vec<u8>> {
    let contents = "<Contents><Key>p/a+b%FF</Key><Size>3</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
                    <ETag>&quot;e&quot;</ETag></Contents>";
    let texts = [
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>site</Name>\
             <EncodingType>url</EncodingType>{contents}<IsTruncated>true</IsTruncated>\
             <NextContinuationToken>t/1=</NextContinuationToken></ListBucketResult>"
        ),
        // What was not asked for, and the same batch again.
        "<ListBucketResult><Contents><Key>q/x</Key><Size>3</Size></Contents></ListBucketResult>".into(),
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
            .into(),
        "<Error><Code>SlowDown</Code><Message>Less</Message><Region>eu-west-3</Region></Error>".into(),
        "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>Y</Code></Error></ErrorResponse>".into(),
        "<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code><Message>No</Message></Error></DeleteResult>".into(),
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>".into(),
        "<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag></CompleteMultipartUploadResult>".into(),
        "<DistributionConfig><Origins><Quantity>1</Quantity><Items><Origin><DomainName>b.s3.amazonaws.com</DomainName>\
         <OriginPath>/p</OriginPath></Origin></Items></Origins></DistributionConfig>"
            .into(),
        "<Invalidation><Id>I1</Id><Status>InProgress</Status></Invalidation>".into(),
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode>\
         <Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
            .into(),
        "<ListVersionsResult><IsTruncated>false</IsTruncated><DeleteMarker><Key>k</Key><VersionId>v</VersionId>\
         <IsLatest>true</IsLatest></DeleteMarker></ListVersionsResult>"
            .into(),
        "s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=eu-west-3&path-style=true".into(),
    ];
    texts.map(String::into_bytes).to_vec()
}

fn run(input: &[u8], heard: &mut Heard) {
    let options = ListOptions {
        prefix: b"p/".to_vec(),
        start_after: Vec::new(),
        token: Some("t".to_owned()),
    };
    if let Some(batch) = heard.note("listing", listing(input, &options)) {
        assert!(batch.objects.len() <= BATCH_KEYS_MAX);
        let keys = batch.objects.iter().map(|object| &object.key);
        assert!(
            keys.into_iter().all(|key| key.starts_with(b"p/")),
            "only what was asked for"
        );
        assert_ne!(batch.next, options.token, "a listing goes on or ends");
        heard.count("objects", batch.objects.len());
    }
    for (what, read) in others(input) {
        heard.note(what, read);
    }
    for status in [403, 404, 503] {
        if let Some(error) = heard.some("refusal", refusal(status, input)) {
            heard.note("as error", Err::<(), _>(error));
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        heard.note("location", Location::parse(text));
        assert_eq!(s3::decode(&s3::encode(input)), input);
        heard.count("decoded", s3::decode(text).len());
    }
}
