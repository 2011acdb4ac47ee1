//! (tests come here)
