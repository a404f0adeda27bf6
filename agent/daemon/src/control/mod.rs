//! The control socket: HTTP/1.1 and JSON over a unix socket, answered by the loop, never by touching the agent beside it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | the [`Status`](anyvip_core::status::Status) |
//! | `GET /v1/explain/SERVICE` | the [`Explanation`](anyvip_core::status::Explanation), 404 if there is no such service |
//! | `GET /v1/events[?follow][&kept=N]` | one JSON object per line: the last N kept entries and, with `follow`, all that come |
//! | `POST /v1/drain` `{"service": "dns"}` or `{"all": true}`, `"reason"` | `{"done": …, "text": …}`, 409 if refused |
//! | `POST /v1/undrain` | the same without `reason` |
//! | `POST /v1/reload` | the same, without a body |
//!
//! Whoever may open the socket (mode 0660) may read; only root and the agent's own user may change something.

pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod server;
#[cfg(test)]
mod tests;
