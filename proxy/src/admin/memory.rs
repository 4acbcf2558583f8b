//! `/memory`: what the process takes, as `envoy.admin.v3.Memory`.

use serde_json::{Value, json};

/// As the kernel counts; 0 where it does not say.
pub(super) struct MemoryUse {
    /// What the allocator holds; how much of it is given out is not counted.
    pub(super) heap_bytes: u64,
    pub(super) resident_bytes: u64,
}

impl MemoryUse {
    /// proc_pid_status(5): in units of 1024 bytes.
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0) * 1024_u64
        };
        Self { heap_bytes: bytes("RssAnon"), resident_bytes: bytes("VmRSS") }
    }
}

pub(super) fn to_json() -> Value {
    let MemoryUse { heap_bytes, resident_bytes } = MemoryUse::now();
    json!({
        "allocated": heap_bytes.to_string(),
        "heap_size": heap_bytes.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident_bytes.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_memory_is_used() {
        let MemoryUse { heap_bytes, resident_bytes } = MemoryUse::now();
        assert!(heap_bytes > 0 && resident_bytes > heap_bytes);
    }
}
