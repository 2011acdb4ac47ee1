//! The local engine: what it keeps, and what it does over a kernel and a runtime in memory.

mod log;
