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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, Family, Kind, frame};

    fn read(body: &[u8]) -> Result<Message, Notification> {
        Message::decode(&frame(Kind::RouteRefresh, body), &Codec::before_open())
    }

    /// RFC 7313 §5, RFC 5291.
    #[test]
    fn what_follows_is_an_error_only_with_the_subtypes_that_say_so() {
        let plain = Message::RouteRefresh { family: Family::Ipv6.into(), subtype: 0 };
        assert_eq!(read(&[0, 2, 0, 1]), Ok(plain.clone()));
        assert_eq!(read(&[0, 2, 0, 1, 1, 64, 0, 0]), Ok(plain));
        for subtype in [1, 2] {
            let long = frame(Kind::RouteRefresh, &[0, 2, subtype, 1, 9]);
            assert_eq!(read(&[0, 2, subtype, 1, 9]), Err(Notification { code: 7, subcode: 1, data: long }));
        }
        assert_eq!(read(&[0, 2, 0]), Err(Notification { code: 1, subcode: 2, data: vec![0, 22] }));
    }
}
