//! One way to sign a record: context, then the record's CBOR without its signature.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::Encode;

fn message<B: Encode<()>>(context: &str, body: &B) -> Vec<u8> {
    let mut message = context.as_bytes().to_vec();
    message.push(0);
    minicbor::encode(body, &mut message).expect("writing to memory does not fail");
    message
}

/// Signs `body` for one purpose, named by `context`.
pub fn sign<B: Encode<()>>(key: &SigningKey, context: &str, body: &B) -> [u8; 64] {
    key.sign(&message(context, body)).to_bytes()
}

/// Whether `signature` is `signer`'s over `body` for this purpose.
pub fn holds<B: Encode<()>>(signer: &[u8; 32], context: &str, body: &B, signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(signer).is_ok_and(|key| {
        key.verify_strict(&message(context, body), &Signature::from_bytes(signature))
            .is_ok()
    })
}
