use serde::{Deserialize, Serialize};

use super::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, write_attribute};

/// An attribute kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnknownAttribute {
    /// Flags octet.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Vec<u8>,
}

impl UnknownAttribute {
    /// Passing on what we do not understand sets the Partial bit (RFC 4271 §5). A non-transitive attribute is not
    /// passed on.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if self.flags & TRANSITIVE != 0 {
            write_attribute(OPTIONAL | TRANSITIVE | PARTIAL, self.code, &self.value, out);
        }
    }

    /// RFC 4271 §4.3: the lower four bits mean nothing, and the extended length says nothing about the value.
    pub(super) fn received(flags: u8, code: u8, value: &[u8]) -> UnknownAttribute {
        UnknownAttribute { flags: flags & !EXTENDED_LENGTH & 0xf0, code, value: value.to_vec() }
    }
}
