//! Signatures by the key types that identities of the official clients have: Ed25519, and ECDSA on secp256k1 and
//! P-256 (Interface Specification, "Signatures").

use ed25519_dalek::Verifier;
use k256::pkcs8::DecodePublicKey;

/// A public key in DER form that can check a signature.
#[derive(Debug)]
pub enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    Secp256k1(k256::ecdsa::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
}

/// DER algorithm identifier of Ed25519 keys (RFC 8410), up to the 32 bytes of the key.
const ED25519_DER_PREFIX: &[u8; 12] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Object identifier 1.3.6.1.4.1.56387.1.2 in DER: keys whose signatures a canister makes.
const CANISTER_SIGNATURE_OID: &[u8; 12] = b"\x06\x0a\x2b\x06\x01\x04\x01\x83\xb8\x43\x01\x02";

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`; the error is a sentence for the client.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        if let Some(raw) = der.strip_prefix(ED25519_DER_PREFIX) {
            let raw: &[u8; 32] =
                raw.try_into().map_err(|_| format!("an Ed25519 public key of {} bytes instead of 32", raw.len()))?;
            return ed25519_dalek::VerifyingKey::from_bytes(raw)
                .map(PublicKey::Ed25519)
                .map_err(|_| "the Ed25519 public key is not a point of the curve".into());
        }
        if let Ok(key) = k256::ecdsa::VerifyingKey::from_public_key_der(der) {
            return Ok(PublicKey::Secp256k1(key));
        }
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(der) {
            return Ok(PublicKey::P256(key));
        }
        Err(if der.windows(CANISTER_SIGNATURE_OID.len()).any(|window| window == CANISTER_SIGNATURE_OID) {
            "the public key is for canister signatures, which this replica does not check".into()
        } else {
            "the public key is not Ed25519, secp256k1 or P-256 in DER form".into()
        })
    }

    /// Whether `signature` (64 bytes; r and s for ECDSA with SHA-256, high s allowed) is this key's on `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            PublicKey::Secp256k1(key) => k256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                let signature = signature.normalize_s().unwrap_or(signature);
                key.verify(message, &signature).is_ok()
            }),
            PublicKey::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::signature::Signer;
    use k256::pkcs8::EncodePublicKey;

    /// Every key type accepts its own signature and neither a changed message nor a changed or shortened signature.
    #[test]
    fn each_key_type_verifies_its_own_signatures_only() {
        let ed25519 = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let secp256k1 = k256::ecdsa::SigningKey::from_slice(&[6; 32]).unwrap();
        let p256 = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let message = b"\x0Aic-request and its id";
        let secp256k1_signature: k256::ecdsa::Signature = secp256k1.sign(message);
        let p256_signature: p256::ecdsa::Signature = p256.sign(message);
        let cases = [
            (
                [ED25519_DER_PREFIX.as_slice(), ed25519.verifying_key().as_bytes()].concat(),
                ed25519_dalek::Signer::sign(&ed25519, message).to_vec(),
            ),
            (
                secp256k1.verifying_key().to_public_key_der().unwrap().into_vec(),
                secp256k1_signature.to_bytes().to_vec(),
            ),
            (p256.verifying_key().to_public_key_der().unwrap().into_vec(), p256_signature.to_bytes().to_vec()),
        ];
        for (i, (der, signature)) in cases.iter().enumerate() {
            let key = PublicKey::from_der(der).unwrap();
            assert!(key.verifies(message, signature), "key {i}");
            assert!(!key.verifies(b"another message", signature), "key {i}");
            assert!(!key.verifies(message, &signature[..63]), "key {i}");
            let mut changed = signature.clone();
            changed[10] ^= 1;
            assert!(!key.verifies(message, &changed), "key {i}");
            for (j, (_, other)) in cases.iter().enumerate() {
                assert_eq!(key.verifies(message, other), i == j, "key {i}, signature {j}");
            }
        }
    }

    #[test]
    fn an_ecdsa_signature_with_high_s_is_as_good() {
        let key = k256::ecdsa::SigningKey::from_slice(&[6; 32]).unwrap();
        let low: k256::ecdsa::Signature = key.sign(b"m");
        let (r, s) = low.split_scalars();
        let high = k256::ecdsa::Signature::from_scalars(r, -s).unwrap();
        assert!(high.normalize_s().is_some(), "not a high s");
        let public = PublicKey::from_der(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap();
        assert!(public.verifies(b"m", &high.to_bytes()));
    }

    #[test]
    fn other_keys_are_refused_by_name() {
        assert!(PublicKey::from_der(b"").unwrap_err().contains("not Ed25519"));
        let short = [ED25519_DER_PREFIX.as_slice(), &[0; 31]].concat();
        assert!(PublicKey::from_der(&short).unwrap_err().contains("31 bytes"));
        let canister = [b"\x30\x0c".as_slice(), CANISTER_SIGNATURE_OID].concat();
        assert!(PublicKey::from_der(&canister).unwrap_err().contains("canister signatures"));
    }
}
