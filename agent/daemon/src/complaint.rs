//! Why a command did not do what it was asked to, and how the process ends then.

use std::fmt;

use crate::control::client::ClientError;

/// Exit codes; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Refused = 1,
    NoDaemon = 3,
    Conflict = 4,
    TimedOut = 5,
}

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) exit: Exit,
    text: String,
    remedy: Option<String>,
}

impl Complaint {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Complaint {
        Complaint { exit, text: text.into(), remedy: None }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Complaint {
        Complaint::new(Exit::Refused, text)
    }

    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Complaint {
        Complaint { remedy: Some(remedy.into()), ..self }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What `validate` prints stands by itself.
        if self.text.contains('\n') {
            f.write_str(self.text.trim_end())?;
        } else {
            write!(f, "anyvip: {}", self.text)?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n        {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<ClientError> for Complaint {
    fn from(error: ClientError) -> Complaint {
        let text = error.to_string();
        match error {
            ClientError::NoDaemon(_) => Complaint::new(Exit::NoDaemon, text)
                .remedy("start it with `systemctl start anyvip`, or name its socket with --socket"),
            ClientError::Socket(_, error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Complaint::refused(text).remedy("run this as root, or as a member of the socket's group")
            }
            ClientError::Refused { status, .. } if status == hyper::StatusCode::FORBIDDEN => {
                Complaint::refused(text).remedy("run this as root")
            }
            ClientError::TimedOut => Complaint::new(Exit::TimedOut, text)
                .remedy("is it stopped or starved? See `systemctl status anyvip`"),
            ClientError::Socket(..)
            | ClientError::Refused { .. }
            | ClientError::Garbled(_)
            | ClientError::Cut(_) => Complaint::refused(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_says_what_is_wrong_and_then_what_to_do() {
        let complaint = Complaint::refused("cannot read x").remedy("make x readable");
        assert_eq!(complaint.to_string(), "anyvip: cannot read x\n        make x readable");
    }

    #[test]
    fn no_agent_and_no_answer_have_exit_codes_of_their_own() {
        assert_eq!(Complaint::from(ClientError::NoDaemon("/run/x".into())).exit as u8, 3);
        assert_eq!(Complaint::from(ClientError::TimedOut).exit as u8, 5);
        assert_eq!(Complaint::from(ClientError::Garbled("x".to_owned())).exit as u8, 1);
    }
}
