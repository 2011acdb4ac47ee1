//! Memory that an input may cost: counted, so that a length that nobody has checked is found though the
//! machine has room for it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What any input may cost, in bytes: buffers of a fixed size, and the values of a template.
const BASE: usize = 512 << 20;
/// What each of its bytes may cost besides.
const EACH: usize = 4_096;
/// Where the process ends, before the machine suffers.
const END: usize = 1 << 30;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(live, Relaxed);
    if live > END {
        // libFuzzer keeps the input of a process that aborts.
        std::process::abort();
    }
}

// SAFETY: all is the system's; only sizes are counted besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are those that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does something with an input of this many bytes, and sees what it cost at most.
pub fn bounded(bytes: usize, act: impl FnOnce()) {
    let before = LIVE.load(Relaxed);
    MOST.store(before, Relaxed);
    act();
    let cost = MOST.load(Relaxed).saturating_sub(before);
    assert!(cost <= BASE + EACH * bytes, "{cost} bytes of memory for {bytes} of input");
}
