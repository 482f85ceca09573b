//! Reserved address space whose pages come into being when they are touched.

use std::io;

/// What may be done with a range of a [`Mapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    None,
    Read,
    ReadWrite,
}

impl Protection {
    fn flags(self) -> libc::c_int {
        match self {
            Protection::None => libc::PROT_NONE,
            Protection::Read => libc::PROT_READ,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// An anonymous private mapping. Only pages that were written take memory.
pub(super) struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping is owned memory; it is tied to no thread. Who may access its bytes is up to the owner.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods that take `&self` only change page tables, which the kernel serialises.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes (rounded up to the OS page) that read as zero, with `protection` on all of them.
    pub(super) fn new(len: usize, protection: Protection) -> io::Result<Self> {
        let len = len.max(1).next_multiple_of(os_page_bytes());
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                Protection::ReadWrite.flags(),
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping { base: base.cast(), len };
        if protection != Protection::ReadWrite {
            // Linux merges neighbouring areas only when they share their reverse-mapping object, which an area gets
            // with its first page. Touching one page while the mapping is still a single area gives every later
            // piece of it the same object, so areas that protection split apart merge again.
            // SAFETY: the first byte was just mapped readable and writable.
            unsafe { mapping.base.write_volatile(0) };
            mapping.discard(0, os_page_bytes())?;
            mapping.protect(0, len, protection)?;
        }
        Ok(mapping)
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    /// Changes what may be done with a range; both ends are multiples of the OS page. Async-signal-safe.
    pub(super) fn protect(&self, offset: usize, len: usize, protection: Protection) -> io::Result<()> {
        self.check(offset, len)?;
        // SAFETY: the range lies inside of the mapping; the caller decides who still needs access to it.
        let result = unsafe { libc::mprotect(self.base.add(offset).cast(), len, protection.flags()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Gives the memory of a range back; it reads as zero afterwards, its protection stays.
    pub(super) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.check(offset, len)?;
        #[cfg(target_os = "linux")]
        {
            // SAFETY: the range lies inside of the mapping; on a private anonymous mapping of Linux this call
            // replaces its pages by zero pages.
            let result = unsafe { libc::madvise(self.base.add(offset).cast(), len, libc::MADV_DONTNEED) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
        #[cfg(not(target_os = "linux"))]
        {
            // Elsewhere the advice does not promise zeros: overwrite, which only ever happens to readable and
            // writable ranges.
            // SAFETY: the range lies inside of the mapping.
            unsafe { std::ptr::write_bytes(self.base.add(offset), 0, len) };
            Ok(())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Size of the OS's pages in bytes.
pub(super) fn os_page_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4_096)
}
