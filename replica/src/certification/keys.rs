//! The subnet's BLS key, whose public half every client pins, and the node's Ed25519 key, which signs queries.

use candid::Principal;
use ed25519_dalek::Signer;
use sha2::{Digest as _, Sha256};

/// Domain separation tag of the signature scheme: BLS12-381, signatures in G1, public keys in G2
/// (Interface Specification, "Certification").
const SIGNATURE_SCHEME: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// DER of an algorithm identifier for BLS12-381 keys, up to the 96 bytes of the key itself.
const BLS_DER_PREFIX: &[u8; 37] = b"\x30\x81\x82\x30\x1d\x06\x0d\x2b\x06\x01\x04\x01\x82\xdc\x7c\x05\x03\x01\x02\x01\
    \x06\x0c\x2b\x06\x01\x04\x01\x82\xdc\x7c\x05\x03\x02\x01\x03\x61\x00";

/// DER of the algorithm identifier for Ed25519 keys (RFC 8410), up to the 32 bytes of the key itself.
const ED25519_DER_PREFIX: &[u8; 12] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// What a certificate's signature covers before the root digest.
const STATE_ROOT_DOMAIN: &[u8] = b"\x0Dic-state-root";

/// The subnet's key; its public half is the root key every client pins.
#[derive(Clone)]
pub struct RootKey {
    secret: blst::min_sig::SecretKey,
    der: Vec<u8>,
}

impl RootKey {
    /// The key that this seed always gives.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        // Key generation refuses only input material below 32 bytes.
        let secret = blst::min_sig::SecretKey::key_gen(seed, &[]).expect("32 bytes are enough for a key");
        let der = [BLS_DER_PREFIX.as_slice(), &secret.sk_to_pk().compress()].concat();
        RootKey { secret, der }
    }

    /// DER form, 133 bytes.
    pub fn der(&self) -> Vec<u8> {
        self.der.clone()
    }

    /// Self-authenticating principal of the key: the id of a subnet that has no delegation.
    pub fn subnet_id(&self) -> Principal {
        Principal::self_authenticating(&self.der)
    }

    /// The 48-byte signature of a state tree's root digest.
    pub fn sign_state_root(&self, root: &super::Digest) -> Vec<u8> {
        self.secret.sign(&[STATE_ROOT_DOMAIN, root].concat(), SIGNATURE_SCHEME, &[]).compress().to_vec()
    }
}

/// The one node's key: it signs answers to queries, and the state tree shows its public half.
#[derive(Clone)]
pub struct NodeKey {
    secret: ed25519_dalek::SigningKey,
}

impl NodeKey {
    /// The key that this seed (the root key's own) always gives.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        // Hashed under a domain of its own, so that the two secrets tell nothing of each other.
        let secret: [u8; 32] = Sha256::new().chain_update(b"replica-node-key").chain_update(seed).finalize().into();
        NodeKey { secret: ed25519_dalek::SigningKey::from_bytes(&secret) }
    }

    /// DER form of the public key, 44 bytes, as it stands at `/subnet/<subnet>/node/<node>/public_key`.
    pub fn der(&self) -> Vec<u8> {
        [ED25519_DER_PREFIX.as_slice(), self.secret.verifying_key().as_bytes()].concat()
    }

    /// Self-authenticating principal of the key.
    pub fn node_id(&self) -> Principal {
        Principal::self_authenticating(self.der())
    }

    /// The 64-byte signature of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.secret.sign(message).to_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_both_keys() {
        let (a, b) = (RootKey::from_seed(&[7; 32]), RootKey::from_seed(&[7; 32]));
        assert_eq!(a.der(), b.der());
        assert_ne!(a.der(), RootKey::from_seed(&[8; 32]).der());
        assert_eq!(a.der().len(), 133);
        assert_eq!(a.subnet_id().as_slice().len(), 29);
        assert_eq!(NodeKey::from_seed(&[7; 32]).der(), NodeKey::from_seed(&[7; 32]).der());
        assert_ne!(NodeKey::from_seed(&[7; 32]).node_id(), NodeKey::from_seed(&[8; 32]).node_id());
    }

    #[test]
    fn an_independent_verifier_accepts_the_signature_and_no_other() {
        let key = RootKey::from_seed(&[1; 32]);
        let signature = key.sign_state_root(&[5; 32]);
        let public = &key.der()[BLS_DER_PREFIX.len()..];
        let message = [STATE_ROOT_DOMAIN, &[5; 32]].concat();
        assert!(ic_verify_bls_signature::verify_bls_signature(&signature, &message, public).is_ok());
        let other = [STATE_ROOT_DOMAIN, &[6; 32]].concat();
        assert!(ic_verify_bls_signature::verify_bls_signature(&signature, &other, public).is_err());
    }

    #[test]
    fn node_signatures_verify() {
        let key = NodeKey::from_seed(&[3; 32]);
        let public: [u8; 32] = key.der()[ED25519_DER_PREFIX.len()..].try_into().unwrap();
        let verifier = ed25519_dalek::VerifyingKey::from_bytes(&public).unwrap();
        let signature = ed25519_dalek::Signature::from_slice(&key.sign(b"answer")).unwrap();
        assert!(verifier.verify_strict(b"answer", &signature).is_ok());
        assert!(verifier.verify_strict(b"other", &signature).is_err());
    }
}
