//! The container runtime against the real kernel. Every test has its own directories and ids, and
//! removes what it made also when it fails. Root file systems are made of /bin/busybox.

mod adopt;
mod ask;
mod attach;
mod confine;
mod crash;
mod exec;
mod files;
mod lab;
mod life;
mod ports;
mod speed;
