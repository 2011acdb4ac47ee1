//! The part of every daemon that makes the kernel and the containers agree with what is wanted.

pub mod container;
