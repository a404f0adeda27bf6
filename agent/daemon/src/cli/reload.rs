//! `anyvip reload`

use anyvip_core::Reply;

use super::{DONE, Ended, Global, terminal};
use crate::complaint::Complaint;

pub(super) async fn run(global: &Global) -> Ended {
    let reply: Reply = global.client().post("/v1/reload", &serde_json::json!({})).await?;
    if !reply.done {
        return Err(Complaint::refused(reply.text));
    }
    terminal::say(&reply.text);
    DONE
}
