//! Placeholder until the first test lands.
#![forbid(unsafe_code)]
