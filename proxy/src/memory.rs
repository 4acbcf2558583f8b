//! Memory that was freed, given back to the system. The allocator does so by itself, but only while its thread goes on
//! allocating: what reading a large configuration took would stay with a main thread that then has nothing to do for hours.

// It holds the function that is declared below.
use mimalloc as _;

/// To be called by the thread that freed much and will not need it again.
#[expect(unsafe_code, reason = "the allocator's own call, for which there is no safe one")]
pub fn give_back() {
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: declared as in mimalloc.h; it takes no pointer, and any thread may call it at any time, whoever allocates.
    unsafe { mi_collect(true) }
}
