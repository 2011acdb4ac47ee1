//! The command line of Weft.
