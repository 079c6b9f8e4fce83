//! The certificate with which a peer shows who it is over QUIC (the libp2p TLS specification): what must not be taken. Upstream's own
//! tests did not come with the copy in third-party/; these are in their place.

use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p_tls::certificate;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, ServerConnection};

use super::*;

/// The extension that names the peer.
const PEER: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];
/// Another one, which nobody knows.
const UNKNOWN: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 99];
const SIGNED: &[u8] = b"libp2p-tls-handshake:";

/// What goes into a certificate before it is signed.
struct Draft {
    key: KeyPair,
    params: CertificateParams,
}

impl Draft {
    /// A certificate that says nothing of who it is.
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Self {
            key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
            params,
        }
    }

    /// One that is as it should be.
    fn of(peer: &Keypair) -> Self {
        let mut draft = Self::new();
        let said = draft.said(&peer.public().encode_protobuf(), peer);
        draft.extend(&PEER, said, true);
        draft
    }

    /// That `public` owns the certificate's key, signed by `signer`.
    fn said(&self, public: &[u8], signer: &Keypair) -> Vec<u8> {
        let signature = signer.sign(&[SIGNED, &self.key.public_key_der()].concat()).unwrap();
        yasna::encode_der(&(public.to_vec(), signature))
    }

    fn extend(&mut self, id: &[u64], content: Vec<u8>, is_critical: bool) {
        let mut extension = CustomExtension::from_oid_content(id, content);
        extension.set_criticality(is_critical);
        self.params.custom_extensions.push(extension);
    }

    fn signed(self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let certificate = self.params.self_signed(&self.key).unwrap().into();
        (certificate, PrivatePkcs8KeyDer::from(self.key.serialize_der()).into())
    }
}

/// Certificates that nobody may take, each with what is wrong.
fn forged(eve: &Keypair, ada: &Keypair) -> Vec<(&'static str, CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::of(eve);
        change(&mut draft);
        draft.signed()
    };
    let own = |change: &dyn Fn(&Draft) -> Vec<u8>| {
        let mut draft = Draft::new();
        let said = change(&draft);
        draft.extend(&PEER, said, true);
        draft.signed()
    };
    let ada_public = ada.public().encode_protobuf();
    let ada_said = Draft::new().said(&ada_public, ada);
    let mut wrong_signature = with(&|_| ());
    let mut bytes = wrong_signature.0.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    wrong_signature.0 = bytes.into();
    let mut longer = with(&|_| ());
    longer.0 = longer.0[..longer.0.len() - 1].to_vec().into();
    let all = [
        (
            "expired",
            with(&|draft| draft.params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
        ),
        (
            "not valid yet",
            with(&|draft| draft.params.not_before = rcgen::date_time_ymd(4000, 1, 1)),
        ),
        ("nobody's", Draft::new().signed()),
        (
            "two people's",
            with(&|draft| {
                let said = draft.said(&ada_public, eve);
                draft.extend(&PEER, said, true);
            }),
        ),
        ("an extension that is none", own(&|_| b"no DER".to_vec())),
        (
            "an extension cut off",
            own(&|draft| {
                let said = draft.said(&eve.public().encode_protobuf(), eve);
                said[..said.len() - 1].to_vec()
            }),
        ),
        ("a key of no kind", own(&|draft| draft.said(b"\x08\x09\x12\x01x", eve))),
        (
            "another's, whose key is not there",
            own(&|draft| draft.said(&ada_public, eve)),
        ),
        ("another's, copied from its own", own(&|_| ada_said.clone())),
        (
            "an unknown extension that must be understood",
            with(&|draft| draft.extend(&UNKNOWN, vec![5, 0], true)),
        ),
        ("its own signature is wrong", wrong_signature),
        ("cut off", longer),
    ];
    all.into_iter()
        .map(|(what, (certificate, key))| (what, certificate, key))
        .collect()
}

/// Shows one certificate, or several, to whoever asks.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Arc<Self> {
        let key = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
        Arc::new(Self(Arc::new(CertifiedKey::new(chain, key))))
    }
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A handshake in memory: what each end thinks of the other.
fn handshake(client: rustls::ClientConfig, server: rustls::ServerConfig) -> [Result<(), rustls::Error>; 2] {
    let name = "l".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut outcome = [Ok(()), Ok(())];
    for _ in 0..6 {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
        let mut there = &there[..];
        while !there.is_empty() {
            server.read_tls(&mut there).unwrap();
            outcome[1] = outcome[1].clone().and(server.process_new_packets().map(drop));
        }
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        let mut back = &back[..];
        while !back.is_empty() {
            client.read_tls(&mut back).unwrap();
            outcome[0] = outcome[0].clone().and(client.process_new_packets().map(drop));
        }
    }
    assert!(outcome.iter().any(Result::is_err) || !(client.is_handshaking() || server.is_handshaking()));
    outcome
}

/// What the honest end thinks of `shown`, once as the one who was dialed and once as the one who dialed.
fn judged(shown: &Arc<Shows>, dialed: Option<PeerId>) -> [Result<(), rustls::Error>; 2] {
    let (eve, ada) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut client = libp2p_tls::make_client_config(&eve, None).unwrap();
    client.client_auth_cert_resolver = shown.clone();
    let [_, by_server] = handshake(client, libp2p_tls::make_server_config(&ada).unwrap());
    let mut server = libp2p_tls::make_server_config(&eve).unwrap();
    server.cert_resolver = shown.clone();
    let [by_client, _] = handshake(libp2p_tls::make_client_config(&ada, dialed).unwrap(), server);
    [by_server, by_client]
}

#[test]
fn only_a_certificate_that_says_who_it_is_opens_a_connection() {
    let (eve, ada) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (good, key) = Draft::of(&eve).signed();
    assert_eq!(certificate::parse(&good).unwrap().peer_id(), eve.public().to_peer_id());
    let shown = Shows::new(vec![good.clone()], &key);
    let dialed = |peer: &Keypair| Some(peer.public().to_peer_id());
    assert_eq!(judged(&shown, dialed(&eve)), [Ok(()), Ok(())]);
    let [_, by_client] = judged(&shown, dialed(&ada));
    assert!(by_client.is_err(), "another was dialed");
    // What need not be understood is passed over.
    let mut more = Draft::of(&eve);
    more.extend(&UNKNOWN, vec![5, 0], false);
    let (more, more_key) = more.signed();
    assert_eq!(judged(&Shows::new(vec![more], &more_key), None), [Ok(()), Ok(())]);
    for (what, certificate, key) in forged(&eve, &ada) {
        assert!(certificate::parse(&certificate).is_err(), "{what}");
        for (outcome, end) in judged(&Shows::new(vec![certificate], &key), None)
            .iter()
            .zip(["dialed", "dialing"])
        {
            assert!(outcome.is_err(), "{what}, {end}");
        }
    }
    let two = Shows::new(vec![good.clone(), good], &key);
    assert!(judged(&two, None).iter().all(Result::is_err), "a chain");
}

/// A certificate is public: who has only that, and not its key, is nobody.
#[test]
fn a_certificate_without_its_key_opens_nothing() {
    let ada = Keypair::generate_ed25519();
    let (certificate, _) = Draft::of(&ada).signed();
    let (_, other_key) = Draft::of(&ada).signed();
    assert!(
        judged(&Shows::new(vec![certificate], &other_key), None)
            .iter()
            .all(Result::is_err)
    );
}

#[test]
fn who_shows_no_certificate_is_not_let_in() {
    let ada = Keypair::generate_ed25519();
    let mut client = libp2p_tls::make_client_config(&ada, None).unwrap();
    client.client_auth_cert_resolver = Arc::new(Nothing);
    let [_, by_server] = handshake(client, libp2p_tls::make_server_config(&ada).unwrap());
    assert!(by_server.is_err());
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
