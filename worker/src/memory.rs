//! How much memory the daemon keeps that it does not use.

/// Heaps of the C library's allocator. By default there may be eight for each processor, and each
/// keeps what was once freed in it; the daemon's few threads do not contend enough to need them.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Bounds the allocator. To be called before the first thread is started; later it still bounds those
/// heaps that do not exist yet.
#[allow(unsafe_code, reason = "the allocator has no other interface")]
pub fn bound_heaps() {
    // SAFETY: mallopt only sets a number, under the allocator's own lock, and takes no pointer.
    // One that does not know the setting says so, and works as before.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}
