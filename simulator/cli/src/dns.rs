//! The least of DNS: which server is this? (`hostname.bind. CH TXT`, RFC 4892), asked and answered.

/// Flags: a response, authoritative.
const RESPONSE: [u8; 2] = [0x84, 0x00];
const TXT: u16 = 16;
const CHAOS: u16 = 3;
const HEADER: usize = 12;

/// `hostname.bind. CH TXT`.
pub(crate) fn query(id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    // No flag set; one question.
    query.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend(b"\x08hostname\x04bind\x00");
    query.extend(TXT.to_be_bytes());
    query.extend(CHAOS.to_be_bytes());
    query
}

/// Any question is answered with the name: TXT as such, other types with an empty answer. `None` for what is no query.
pub(crate) fn answer(query: &[u8], name: &str) -> Option<Vec<u8>> {
    let header = query.get(..HEADER)?;
    let is_query = header[2] & 0x80 == 0 && header[4..6] == [0, 1];
    let end = HEADER + question_length(query.get(HEADER..)?).filter(|_| is_query)?;
    let question = query.get(HEADER..end)?;
    let [.., kind_high, kind_low, class_high, class_low] = *question else { return None };
    let told = u16::from_be_bytes([kind_high, kind_low]) == TXT;
    let mut answer = header[..2].to_vec();
    answer.extend(RESPONSE);
    answer.extend([0, 1, 0, u8::from(told), 0, 0, 0, 0]);
    answer.extend(question);
    if told {
        let length = u8::try_from(name.len()).ok()?;
        // The name of the question (RFC 1035 §4.1.4), its type and class, no caching.
        answer.extend([0xc0, HEADER as u8, kind_high, kind_low, class_high, class_low, 0, 0, 0, 0]);
        answer.extend([0, length + 1, length]);
        answer.extend(name.as_bytes());
    }
    Some(answer)
}

/// The name in an answer to the query with this id.
pub(crate) fn name_in(answer: &[u8], id: u16) -> Option<String> {
    let header = answer.get(..HEADER)?;
    if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 || header[6..8] != [0, 1] {
        return None;
    }
    let begin = HEADER + question_length(&answer[HEADER..])?;
    // Name, type, class, time to live, length; then the text with its own length.
    let text = answer.get(begin + 12..)?;
    let length = usize::from(*text.first()?);
    Some(String::from_utf8_lossy(text.get(1..=length)?).into_owned())
}

/// Octets of a name without compression, type and class.
pub(crate) fn question_length(question: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*question.get(at)?) {
            0 => return Some(at + 5).filter(|length| *length <= question.len()),
            length @ 1..=63 => at += length + 1,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_its_name_and_only_to_who_asked() {
        let answer = answer(&query(4711), "h1").unwrap();
        assert_eq!(name_in(&answer, 4711).as_deref(), Some("h1"));
        assert_eq!(name_in(&answer, 4712), None);
        assert_eq!(name_in(&query(4711), 4711), None, "a question is no answer");
    }

    #[test]
    fn another_type_gets_an_empty_answer_and_rubbish_none() {
        let mut other = query(1);
        let kind = other.len() - 3;
        other[kind] = 1;
        let said = answer(&other, "h1").unwrap();
        assert_eq!(said[6..8], [0, 0]);
        assert_eq!(name_in(&said, 1), None);
        let whole = query(1);
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], "h1"), None, "{length} octets");
        }
        assert_eq!(answer(&answer(&whole, "h1").unwrap(), "h1"), None, "an answer is not answered");
    }
}
