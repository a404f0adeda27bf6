//! The only unsafe code of the workspace, one file per subject, each behind a safe function.
#![allow(unsafe_code)]

pub(crate) mod arrival;
pub(crate) mod exec;
pub(crate) mod icmpv6_filter;
pub(crate) mod listeners;
pub(crate) mod pidfd;
pub(crate) mod readiness;
pub(crate) mod scheduling;
pub(crate) mod tcp_protection;
