//! Memory that was freed, given back to the system. The allocator does so by itself, but only while its thread goes on
//! allocating: what reading a large configuration took would stay with a main thread that then has nothing to do for hours.

/// To be called by the thread that freed much and will not need it again.
#[expect(unsafe_code, reason = "the allocator's own call, for which there is no safe one")]
pub fn give_back() {
    // SAFETY: it takes no pointer, and any thread may call it at any time, whoever allocates.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
