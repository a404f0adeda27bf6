//! BGP roles (RFC 9234 §4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ParseError;

/// What one end of an external session is to the other; the value is that of the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// 0.
    Provider,
    /// 1: route server.
    Rs,
    /// 2.
    RsClient,
    /// 3.
    Customer,
    /// 4.
    Peer,
}

impl Role {
    /// All of them, in the order of their values.
    pub const ALL: [Role; 5] = [Role::Provider, Role::Rs, Role::RsClient, Role::Customer, Role::Peer];

    pub(crate) fn from_octet(octet: u8) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.octet() == octet)
    }

    pub(crate) fn octet(self) -> u8 {
        self as u8
    }

    /// What the other end has to be (RFC 9234 §4.2).
    pub fn counterpart(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::Rs => Role::RsClient,
            Role::RsClient => Role::Rs,
            Role::Customer => Role::Provider,
            Role::Peer => Role::Peer,
        }
    }

    /// Whether what we tell must not go up again from there, which the attribute Only to Customer says (RFC 9234 §5).
    pub fn tells_only_to_customer(self) -> bool {
        matches!(self, Role::Provider | Role::Rs | Role::Peer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Provider => "provider",
            Role::Rs => "rs",
            Role::RsClient => "rs-client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

impl FromStr for Role {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Role, ParseError> {
        Role::ALL
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or_else(|| ParseError::new("a role", text, "provider, rs, rs-client, customer or peer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9234 §4.2, table 2.
    #[test]
    fn roles_fit_in_five_pairs() {
        for role in Role::ALL {
            assert_eq!(role.counterpart().counterpart(), role);
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(Role::from_octet(role.octet()), Some(role));
        }
        assert_eq!(Role::Customer.counterpart(), Role::Provider);
        assert_eq!(Role::from_octet(5), None);
    }
}
