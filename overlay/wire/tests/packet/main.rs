//! The packets of the encrypted link: what is cut and merged is compared with packets that `model` writes
//! plainly, without the code under test.

#![allow(clippy::unwrap_used, reason = "tests")]

mod checksums;
mod claims;
mod cut;
mod examples;
mod merge;
mod model;
mod noise;
mod streams;
mod tunnel;
