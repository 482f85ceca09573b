//! Accounts of the ledgers (ICRC-1), and the identifiers that the ICP ledger knows them by.

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha224};

pub const SUBACCOUNT_BYTES: usize = 32;

/// A principal's account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, CandidType)]
pub struct Account {
    pub owner: Principal,
    pub subaccount: Option<ByteBuf>,
}

/// CRC-32 and SHA-224 of an account: how the ICP ledger names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountIdentifier(pub [u8; 32]);

impl Account {
    /// The principal's default account.
    pub fn of(owner: Principal) -> Account {
        Account { owner, subaccount: None }
    }

    /// The account with its subaccount in the one form that names it: the default one is none.
    pub fn new(owner: Principal, subaccount: Option<ByteBuf>) -> Account {
        Account { owner, subaccount: subaccount.filter(|bytes| bytes.iter().any(|byte| *byte != 0)) }
    }

    /// The account of `owner` that the cycles minting canister keeps for `user`.
    pub fn for_user(owner: Principal, user: &Principal) -> Account {
        let id = user.as_slice();
        let mut subaccount = [0; SUBACCOUNT_BYTES];
        subaccount[0] = id.len() as u8;
        subaccount[1..=id.len()].copy_from_slice(id);
        Account::new(owner, Some(ByteBuf::from(subaccount.to_vec())))
    }

    pub fn normalised(self) -> Account {
        Account::new(self.owner, self.subaccount)
    }

    pub fn identifier(&self) -> AccountIdentifier {
        let mut subaccount = [0; SUBACCOUNT_BYTES];
        if let Some(bytes) = &self.subaccount {
            let len = bytes.len().min(SUBACCOUNT_BYTES);
            subaccount[..len].copy_from_slice(&bytes[..len]);
        }
        let hash = Sha224::new()
            .chain_update(b"\x0Aaccount-id")
            .chain_update(self.owner.as_slice())
            .chain_update(subaccount)
            .finalize();
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&crc32fast::hash(&hash).to_be_bytes());
        bytes[4..].copy_from_slice(&hash);
        AccountIdentifier(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the ICP ledger's documentation: the anonymous principal's account.
    #[test]
    fn identifiers_are_those_of_the_ledger() {
        let anonymous = Account::of(Principal::anonymous());
        assert_eq!(
            hex::encode(anonymous.identifier().0),
            "1c7a48ba6a562aa9eaa2481a9049cdf0433b9738c992d698c31d8abf89cadc79"
        );
        let zero = Account::new(Principal::anonymous(), Some(ByteBuf::from(vec![0; 32])));
        assert_eq!(zero, anonymous);
    }
}
