//! ROUTE-REFRESH (RFC 2918) with the subtypes of RFC 7313.

use super::octets::Octets;
use super::{AfiSafi, Message, Notification};

pub(super) fn encode(family: AfiSafi, subtype: u8) -> [u8; 4] {
    let [high, low] = family.afi.to_be_bytes();
    [high, low, subtype, family.safi]
}

pub(super) fn decode(message: &[u8], body: &[u8]) -> Result<Message, Notification> {
    let mut octets = Octets::new(body);
    let (Some(afi), Some(subtype), Some(safi)) = (octets.u16(), octets.u8(), octets.u8()) else {
        return Err(Notification::bad_message_length(u16::try_from(message.len()).unwrap_or(u16::MAX)));
    };
    // RFC 7313 §5: a marker of the wrong length is an error with the whole message as its data. What follows a plain
    // request would be filters (RFC 5291), which we never negotiate: the request stands without them.
    if matches!(subtype, 1 | 2) && !octets.is_empty() {
        return Err(Notification::route_refresh_error(1, message));
    }
    Ok(Message::RouteRefresh { family: AfiSafi { afi, safi }, subtype })
}
