//! Who a home is: the account's keys, this device's key and certificate, in three files that only the user can read.

use std::fs;
use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use durable::state_file::set_aside;
use ed25519_dalek::SigningKey;
use friendnet::roster::Roster;
use proto::id::DeviceId;
use proto::keys::locked::KeyFile;
use proto::keys::{AccountKeys, DeviceCert, power, words_key};
use proto::phrase::Seed;
use zeroize::Zeroizing;

use super::key_file::{damaged, fill_random, read_if_there, read_private, replace_private, write_private};
use super::passphrase::Opener;
use super::{HomePaths, passphrase};

/// Who a home is.
pub struct Identity {
    /// The account's keys.
    pub account: AccountKeys,
    /// This device's key.
    pub device: SigningKey,
    /// The account's word for this device.
    pub cert: DeviceCert,
}

/// First line of a device key file; the key's 64 hexadecimal digits are the second.
const DEVICE_KEY_MAGIC: &str = "gridbackup device key 1";

/// Longest device name that a certificate takes, in bytes of UTF-8 (docs/format/keys.md).
pub const DEVICE_NAME_BYTES_MAX: usize = 64;

impl Identity {
    /// The account of `seed` on this device: a new one, or the one whose key a making that was cut off left in the home. The
    /// device's files are written; it is `finish` that makes the home one with an account. The words' key is used here, to
    /// certify the device, and is kept nowhere.
    pub fn begin(paths: &HomePaths, seed: &Seed, name: &str, now_secs: u64) -> Result<Self, Failure> {
        Self::begin_with(paths, seed, name, now_secs, power::ALL)
    }

    /// The same for a device with these powers, which gets no secret that they do not need.
    pub fn begin_with(paths: &HomePaths, seed: &Seed, name: &str, now_secs: u64, powers: u8) -> Result<Self, Failure> {
        let account = AccountKeys::from_seed(seed).for_powers(powers);
        let device = match left_device(paths)? {
            Some(device) => device,
            None => new_device(paths)?,
        };
        let id = DeviceId(device.verifying_key().to_bytes());
        let is_ours =
            |cert: &DeviceCert| (cert.account, cert.device, cert.powers) == (account.account_id(), id, powers);
        let left = left_cert(paths)?.filter(is_ours);
        let cert = match left {
            Some(cert) => cert,
            None => {
                let cert = DeviceCert::sign(&words_key(seed), id, powers, name, now_secs);
                replace_private(&second_cert(paths), &cert.encode())?;
                replace_private(&paths.device_cert(), &cert.encode())?;
                cert
            }
        };
        Ok(Self { account, device, cert })
    }

    /// Writes the account's key, after which the home has an account.
    pub fn finish(&self, paths: &HomePaths) -> Result<(), Failure> {
        write_private(&paths.account_key(), &self.account.encode())?;
        passphrase::lock_new(paths)
    }

    /// Reads the three files; what is locked, with the passphrase.
    pub fn read(paths: &HomePaths) -> Result<Self, Failure> {
        let mut opener = Opener::new(paths);
        let account_path = paths.account_key();
        let account = opener.open(KeyFile::Account, &account_path, read_private(&account_path)?)?;
        let account = AccountKeys::decode(&account).map_err(|error| damaged(&account_path, &error.to_string()))?;
        let device_path = paths.device_key();
        let device = opener.open(KeyFile::Device, &device_path, read_private(&device_path)?)?;
        let device = decode_device_key(&device).ok_or_else(|| damaged(&device_path, "not a device key"))?;
        let cert_path = paths.device_cert();
        let read = fs::read(&cert_path).map_err(|error| error.to_string());
        let cert = match read.and_then(|bytes| DeviceCert::decode(&bytes).map_err(|error| error.to_string())) {
            Ok(cert) => cert,
            Err(reason) => find_again(paths, &reason, &account, &device)?,
        };
        if cert.account != account.account_id() || cert.device.0 != device.verifying_key().to_bytes() {
            return Err(damaged(&cert_path, "it does not belong to account.key and device.key"));
        }
        Ok(Self { account, device, cert })
    }

    /// The device's certificate alone, which needs no passphrase.
    pub fn cert(paths: &HomePaths) -> Result<DeviceCert, Failure> {
        match left_cert(paths)? {
            Some(cert) => Ok(cert),
            None => Self::read(paths).map(|identity| identity.cert),
        }
    }

    /// This device as a libp2p peer id.
    pub fn peer_id(&self) -> String {
        peer_id(&self.cert.device)
    }
}

/// The certificate in a home without an account, left by a making that was cut off, if it is one.
pub fn left_cert(paths: &HomePaths) -> Result<Option<DeviceCert>, Failure> {
    Ok(read_if_there(&paths.device_cert())?.and_then(|cert| DeviceCert::decode(&cert).ok()))
}

fn left_device(paths: &HomePaths) -> Result<Option<SigningKey>, Failure> {
    let path = paths.device_key();
    let Some(key) = read_if_there(&path)? else {
        return Ok(None);
    };
    Ok(decode_device_key(&Opener::new(paths).open(
        KeyFile::Device,
        &path,
        key,
    )?))
}

fn new_device(paths: &HomePaths) -> Result<SigningKey, Failure> {
    let mut secret = Zeroizing::new([0; 32]);
    fill_random(secret.as_mut())?;
    let device = SigningKey::from_bytes(&secret);
    let hex = Zeroizing::new(data_encoding::HEXLOWER.encode(device.as_bytes()));
    let text = Zeroizing::new(format!("{DEVICE_KEY_MAGIC}\n{}\n", *hex));
    replace_private(&paths.device_key(), text.as_bytes())?;
    Ok(device)
}

/// Where the certificate lies a second time: only the words can make another.
fn second_cert(paths: &HomePaths) -> PathBuf {
    paths.device_cert().with_extension("cert.before")
}

/// The certificate is the one key file that is elsewhere, too: beside it, and in the roster, which others have.
fn find_again(
    paths: &HomePaths,
    reason: &str,
    account: &AccountKeys,
    device: &SigningKey,
) -> Result<DeviceCert, Failure> {
    let (path, id) = (paths.device_cert(), DeviceId(device.verifying_key().to_bytes()));
    let is_ours = |cert: &DeviceCert| cert.account == account.account_id() && cert.device == id;
    let beside = fs::read(second_cert(paths))
        .ok()
        .and_then(|bytes| DeviceCert::decode(&bytes).ok());
    let in_roster = || {
        Roster::load(&paths.roster())?
            .device(id)
            .map(|known| known.cert.clone())
    };
    let Some(cert) = beside.filter(is_ours).or_else(|| in_roster().filter(is_ours)) else {
        return Err(damaged(&path, reason));
    };
    let aside = set_aside(&path);
    let written = write_private(&path, &cert.encode());
    tracing::warn!("{} cannot be read: {reason}; its copy is in its place", path.display());
    if let (Err(failure), Some(_)) = (written, aside) {
        tracing::warn!("{failure}");
    }
    Ok(cert)
}

/// A device as a libp2p peer id; its id in hexadecimal if it is no point of the curve.
pub fn peer_id(device: &DeviceId) -> String {
    friendnet::identity::peer_id(*device).map_or_else(|| device.to_string(), |peer| peer.to_string())
}

fn decode_device_key(content: &[u8]) -> Option<SigningKey> {
    let text = std::str::from_utf8(content).ok()?;
    let (magic, hex) = text.split_once('\n')?;
    let secret = Zeroizing::new(data_encoding::HEXLOWER.decode(hex.trim_end().as_bytes()).ok()?);
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(secret.as_slice().try_into().ok()?);
    (magic == DEVICE_KEY_MAGIC).then(|| SigningKey::from_bytes(&secret))
}

/// The random password in a file, in hexadecimal; made when it is first asked for, and anew when the file cannot be used.
pub fn secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let is_secret = |text: String| text.trim().len() >= SECRET_DIGITS_MIN;
    if path.exists() && !fs::read_to_string(path).is_ok_and(is_secret) {
        let aside = set_aside(path);
        tracing::warn!("{} holds no secret; a new one is made", path.display());
        if let Some(aside) = aside {
            tracing::warn!("What was there is {} now", aside.display());
        }
    }
    if !path.exists() {
        let mut random = Zeroizing::new([0; 32]);
        fill_random(random.as_mut())?;
        let secret = Zeroizing::new(data_encoding::HEXLOWER.encode(random.as_ref()));
        write_private(path, secret.as_bytes())?;
    }
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::context(format!("`{}` cannot be read: {error}", path.display()), &error))?;
    let secret = Zeroizing::new(text.trim().to_owned());
    if secret.len() < SECRET_DIGITS_MIN {
        return Err(
            Failure::new(Exit::Failed, format!("`{}` holds no secret", path.display()))
                .hint("remove the file: a new one is made"),
        );
    }
    Ok(secret)
}

/// A shorter secret was not made by us, and could be guessed.
const SECRET_DIGITS_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_is_read_back_and_a_damaged_one_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let text = format!(
            "{DEVICE_KEY_MAGIC}\n{}\n",
            data_encoding::HEXLOWER.encode(key.as_bytes())
        );
        assert_eq!(decode_device_key(text.as_bytes()).unwrap().as_bytes(), key.as_bytes());
        assert!(decode_device_key(&text.as_bytes()[..60]).is_none());
        assert!(decode_device_key(b"something else").is_none());
    }
}
