//! Signed records: a CBOR body and the ed25519 signature over it (docs/format/keys.md §4). What is signed is a domain's
//! name and then exactly the stored bytes before the signature, so that checking needs no second encoding.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Bytes of an ed25519 signature (RFC 8032 §5.1.6), which ends every signed record.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Signs `body` for `domain`. A body starts with a CBOR array head, which no domain name contains: two domains can never
/// sign the same message.
pub(crate) fn sign(key: &SigningKey, domain: &str, body: &[u8]) -> [u8; SIGNATURE_BYTES] {
    key.sign(&message(domain, body)).to_bytes()
}

/// Whether `signature` is `public`'s over `body`. Strict: keys of small order and malleable signatures are refused.
pub(crate) fn verify(public: &[u8; 32], domain: &str, body: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    VerifyingKey::from_bytes(public).is_ok_and(|key| {
        key.verify_strict(&message(domain, body), &Signature::from_bytes(signature))
            .is_ok()
    })
}

fn message(domain: &str, body: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), body].concat()
}

/// Splits a stored record into body and signature; `None` if it is too short to have both.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], [u8; SIGNATURE_BYTES])> {
    let (body, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
    (!body.is_empty()).then_some((body, *signature))
}

/// Decodes a body and requires that it is the one encoding of what it says: no trailing bytes, unknown fields, longer
/// forms of integers or indefinite lengths.
pub(crate) fn decode_canonical<T>(body: &[u8]) -> Result<T, String>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    let value: T = minicbor::decode(body).map_err(|error| error.to_string())?;
    match encode(&value) == body {
        true => Ok(value),
        false => Err("The encoding is not the shortest one".to_owned()),
    }
}

/// The CBOR of `value`.
pub(crate) fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("Writing to memory cannot fail")
}

/// The version, which is the first field of every body.
pub(crate) fn version(body: &[u8]) -> Result<u16, String> {
    let mut decoder = minicbor::Decoder::new(body);
    decoder
        .array()
        .and_then(|_| decoder.u16())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_domain_body_and_key_only() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let other = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes();
        let signature = sign(&key, "domain", b"body");
        let public = key.verifying_key().to_bytes();
        assert!(verify(&public, "domain", b"body", &signature));
        assert!(!verify(&public, "domains", b"body", &signature));
        assert!(!verify(&public, "domain", b"bodies", &signature));
        assert!(!verify(&other, "domain", b"body", &signature));
    }

    #[test]
    fn a_public_key_of_small_order_signs_nothing() {
        // The neutral element as key and as R, with s = 0, passes the lax check for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(&neutral, "domain", b"body", &signature));
    }
}
