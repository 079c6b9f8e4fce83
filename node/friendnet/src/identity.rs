//! A device's key is its libp2p identity: the two names of a device, and the way between them.

use ed25519_dalek::SigningKey;
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use proto::id::DeviceId;

/// The libp2p name of a device; `None` for 32 bytes that are no ed25519 key.
pub fn peer_id(device: DeviceId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&device.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The device that a libp2p name stands for; `None` for identities of other kinds of keys, which never are devices.
pub fn device_id(peer: PeerId) -> Option<DeviceId> {
    // An identity multihash: the digest is the key itself, in protobuf.
    let multihash = peer.as_ref();
    if multihash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest())
        .ok()?
        .try_into_ed25519()
        .ok()?;
    Some(DeviceId(key.to_bytes()))
}

/// The device of a signing key.
pub fn device_of(key: &SigningKey) -> DeviceId {
    DeviceId(key.verifying_key().to_bytes())
}

/// The key as libp2p wants it.
pub fn keypair(key: &SigningKey) -> Keypair {
    let mut secret = key.to_bytes();
    Keypair::ed25519_from_bytes(&mut secret).expect("32 bytes are an ed25519 secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_and_its_peer_id_name_each_other() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let device = device_of(&key);
        let peer = keypair(&key).public().to_peer_id();
        assert_eq!(peer_id(device), Some(peer));
        assert_eq!(device_id(peer), Some(device));
    }

    #[test]
    fn an_identity_of_another_kind_is_no_device() {
        assert_eq!(
            device_id(PeerId::from_multihash(libp2p::multihash::Multihash::wrap(0x12, &[1; 32]).unwrap()).unwrap()),
            None
        );
    }
}
