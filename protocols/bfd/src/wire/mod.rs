//! RFC 5880 §4: what is on the wire.

mod authentication;
mod control_packet;

pub use authentication::{AuthenticationKind, AuthenticationSection};
pub(crate) use control_packet::MANDATORY_LEN;
pub use control_packet::{ControlPacket, Diagnostic, Discriminator, State};
