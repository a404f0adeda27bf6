//! RFC 4861 §4.1.

use serde::{Deserialize, Serialize};

use super::{Options, SOLICITATION};
use crate::error::Discard;

/// "Which routers are on this link?"
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterSolicitation {
    pub options: Options,
}

impl RouterSolicitation {
    /// Octets before the options.
    pub(super) const FIXED: usize = 8;

    pub(super) fn decode(octets: &[u8]) -> Result<RouterSolicitation, Discard> {
        let options = octets.get(Self::FIXED..).unwrap_or_default();
        Ok(RouterSolicitation { options: Options::decode(options)? })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        self.options.encode(&mut out);
        out
    }
}
