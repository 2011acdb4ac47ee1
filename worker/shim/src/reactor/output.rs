//! What the container says, and what is typed for it.

use std::os::fd::AsRawFd;

use super::Shim;
use crate::attach::{Attached, Fed};
use crate::status::Phase;
use crate::{log, sys};

/// One read of the container's output; a pipe holds 64 KiB.
const OUTPUT_BUFFER: usize = 16 << 10;
/// Reads of one stream before others get their turn.
const OUTPUT_READS: usize = 8;
/// The most a pipe can hold (the default of fs.pipe-max-size).
const MAX_PIPE: usize = 1 << 20;

impl Shim {
    /// Copies what the pipes hold now; at most a pipe's worth, so that clients are not starved.
    pub(super) fn copy_output(&mut self) {
        let mut buffer = [0u8; OUTPUT_BUFFER];
        for (stream, slot) in [(1u8, &mut self.ends.stdout), (2, &mut self.ends.stderr)] {
            for _ in 0..OUTPUT_READS {
                let Some(fd) = slot.as_ref() else { break };
                match sys::read_some(fd.as_raw_fd(), &mut buffer) {
                    Ok(Some(0)) | Err(_) => *slot = None,
                    Ok(Some(n)) => {
                        let (header, from) =
                            (log::header(sys::now_ns(), stream, &buffer[..n]), self.log.end());
                        self.log.record(&header, &buffer[..n]);
                        for attached in &mut self.attached {
                            attached.offer(from, self.log.end(), &header, &buffer[..n]);
                        }
                    }
                    Ok(None) => break,
                }
            }
        }
    }

    pub(super) fn drain_output(&mut self) {
        // With the first process of a pid namespace every other one is dead, so the pipes only hold
        // what was said; the bound is the pipe's size, against a writer outside of the namespace.
        for _ in 0..MAX_PIPE / (OUTPUT_BUFFER * OUTPUT_READS) {
            self.copy_output();
        }
    }

    /// Brings the attached clients what they are behind with, and their input to the first process.
    pub(super) fn serve_attached(&mut self, polled: &[libc::pollfd]) {
        let mut buffer = [0u8; OUTPUT_BUFFER];
        let mut ended = false;
        for (attached, polled) in self.attached.iter_mut().zip(polled) {
            attached.ready(polled.revents);
            attached.catch_up(&self.log, &mut buffer);
            let Some(stdin) = &self.ends.stdin else { continue };
            match attached.feed(stdin.as_raw_fd()) {
                Fed::Nothing => {}
                Fed::Ended => ended |= self.wants.once && !self.wants.terminal,
                Fed::Refused => ended = true,
            }
        }
        if ended {
            self.ends.stdin = None;
            self.attached.iter_mut().for_each(Attached::refuse_input);
        }
        let over = self.status.phase == Phase::Exited;
        self.attached.retain(|attached| !attached.is_done(&self.log, over));
    }
}
