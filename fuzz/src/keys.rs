//! Keys that targets know: with them a record that was changed is signed again, so that what is behind a signature is reached.

use std::sync::OnceLock;

use ed25519_dalek::{Signer, SigningKey};
use proto::id::{AccountId, DeviceId};
use proto::keys::{AccountKeys, DeviceCert, power, words_key};
use proto::phrase::Seed;
use proto::wire::by_device::Speaker;

/// Bytes of an ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// An account with a device.
#[derive(Clone)]
pub struct Who {
    /// The key of its words.
    pub words: SigningKey,
    /// The device's.
    pub device: SigningKey,
    /// The words' certificate of the device.
    pub cert: DeviceCert,
    /// What the device knows.
    pub keys: std::sync::Arc<AccountKeys>,
}

impl Who {
    /// The account with this number and one of its devices.
    pub fn new(number: u8, device: u8) -> Self {
        let seed = Seed([number; 32]);
        let words = words_key(&seed);
        let device_key = SigningKey::from_bytes(&blake3::derive_key("gridbackup fuzz device", &[number, device]));
        let id = DeviceId(device_key.verifying_key().to_bytes());
        let cert = DeviceCert::sign(&words, id, power::ALL, "laptop", u64::from(device));
        Self {
            words,
            device: device_key,
            cert,
            keys: std::sync::Arc::new(AccountKeys::from_seed(&seed)),
        }
    }

    /// To sign with.
    pub fn speaker(&self) -> Speaker<'_> {
        Speaker {
            key: &self.device,
            cert: &self.cert,
        }
    }

    /// Its account.
    pub fn account(&self) -> AccountId {
        self.cert.account
    }
}

/// Those of the seeds, and those of proto's golden files.
fn known() -> &'static [([u8; 32], SigningKey)] {
    static KNOWN: OnceLock<Vec<([u8; 32], SigningKey)>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let pattern = |name: &str| {
            let mut key = [0; 32];
            let mut hasher = blake3::Hasher::new_derive_key("gridbackup test pattern");
            hasher.update(name.as_bytes()).finalize_xof().fill(&mut key);
            SigningKey::from_bytes(&key)
        };
        let golden = ["account", "device"].map(pattern);
        let plain = (1..10).map(|byte| SigningKey::from_bytes(&[byte; 32]));
        let own = (1..4).flat_map(|number| {
            let who = Who::new(number, 0);
            [who.words, who.device]
        });
        let all = golden.into_iter().chain(plain).chain(own);
        all.map(|key| (key.verifying_key().to_bytes(), key)).collect()
    })
}

/// `record` with its last 64 bytes replaced by signatures of all known keys that it names, each over `domain` and what is before.
pub fn signed_again(domain: &str, record: &[u8]) -> Vec<Vec<u8>> {
    let Some((body, _)) = record.split_last_chunk::<SIGNATURE_BYTES>() else {
        return Vec::new();
    };
    let names = |public: &[u8; 32]| body.windows(public.len()).any(|window| window == public);
    let message = [domain.as_bytes(), body].concat();
    let named = known().iter().filter(|(public, _)| names(public));
    named
        .map(|(_, key)| [body, &key.sign(&message).to_bytes()].concat())
        .collect()
}
