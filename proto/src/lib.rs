//! The wire: the schema of `weft/v1/*.proto` as Rust types, what connections are secured with, and
//! the conversions between wire and model. Only this crate names prost types' definitions.

/// The generated types of package `weft.v1`.
#[allow(clippy::doc_markdown)]
pub mod v1 {
    tonic::include_proto!("weft.v1");

    /// The schema as a serialised `FileDescriptorSet`, for the reflection service.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weft.v1.bin"));
}

/// The well-known types that the schema uses.
pub mod well_known {
    pub use prost_types::{Duration, Timestamp};
}

/// What every message of the schema can do: be turned into bytes and back.
pub use prost::Message;

pub mod convert;
pub mod tls;
