//! RFC 4861 §4.6: type, length in units of eight octets, value.

use serde::{Deserialize, Serialize};

use crate::error::Discard;

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// The options of a message. Their lengths are right; only one of them is of interest here, the others are kept as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// Reads all options. RFC 4861 §4.6: unknown ones are read over, one without a length spoils the message.
    pub(super) fn decode(mut octets: &[u8]) -> Result<Options, Discard> {
        let mut found = Vec::new();
        while !octets.is_empty() {
            let bad = |length: usize| Discard::Option { length, octets: octets.len() };
            let Some([kind, units]) = octets.first_chunk::<2>() else { return Err(bad(0)) };
            let length = usize::from(*units) * 8;
            let (Some(value), Some(rest)) = (octets.get(2..length), octets.get(length..)) else {
                return Err(bad(length));
            };
            found.push((*kind, value.to_vec()));
            octets = rest;
        }
        Ok(Options(found))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (kind, value) in &self.0 {
            let units = u8::try_from((value.len() + 2) / 8).unwrap_or_default();
            out.extend([*kind, units]);
            out.extend(value);
        }
    }

    /// Whether the sender tells its link-layer address.
    pub fn tells_link_layer_address(&self) -> bool {
        self.0.iter().any(|(kind, _)| *kind == SOURCE_LINK_LAYER_ADDRESS)
    }
}
