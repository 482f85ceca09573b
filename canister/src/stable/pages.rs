//! Which pages are free. Kept on the heap only: made anew from what the records own.

use super::PAGE_BYTES;
use crate::limits::{STABLE_BYTES_MAX, STABLE_HEADROOM_BYTES, STABLE_IO_BYTES_MAX};
use crate::runtime;
use ic_stable_structures::Memory;
use onnx_canister_interface::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Runs of pages that one blob may be made of. Free space in more pieces than that is left for smaller blobs.
const EXTENTS_MAX: usize = 64;

/// A run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    pub first_page: u64,
    pub pages: u64,
}

impl Extent {
    /// The page after the last; `None` when that is no number.
    pub fn end(&self) -> Option<u64> {
        self.first_page.checked_add(self.pages)
    }
}

/// Calls `f` with address and length of each piece of stable memory that makes up `length` bytes from `offset` on of
/// `extents`, none longer than one system call may move. Bytes beyond the extents are left out.
pub fn for_each_run(extents: &[Extent], offset: u64, length: u64, mut f: impl FnMut(u64, usize)) {
    let (mut skip, mut left) = (offset, length);
    for extent in extents {
        let extent_bytes = extent.pages * PAGE_BYTES;
        if skip >= extent_bytes {
            skip -= extent_bytes;
            continue;
        }
        let mut address = extent.first_page * PAGE_BYTES + skip;
        let mut here = (extent_bytes - skip).min(left);
        left -= here;
        skip = 0;
        while here > 0 {
            let run = here.min(STABLE_IO_BYTES_MAX as u64);
            f(address, run as usize);
            address += run;
            here -= run;
        }
        if left == 0 {
            break;
        }
    }
}

/// Bytes of pages.
pub fn bytes_of(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.pages * PAGE_BYTES).sum()
}

/// How much of stable memory an allocation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All but what is kept for records.
    Data,
    /// All of it.
    Records,
}

/// The free pages, and where stable memory ends.
#[derive(Debug, Default)]
pub struct Pages {
    /// First page to number of pages; neighbours are always merged.
    free: BTreeMap<u64, u64>,
    end_page: u64,
    /// Pages whose owner is unknown are among those that nobody owns: nothing free may be used again.
    no_reuse: bool,
}

impl Pages {
    /// All pages from `first_page` to `end_page` that none of `used` has. Fails when two own a page, or one owns a page
    /// that isn't there.
    pub fn not_in(mut used: Vec<Extent>, first_page: u64, end_page: u64) -> Result<Self, String> {
        used.sort_unstable();
        let mut pages = Pages { free: BTreeMap::new(), end_page, no_reuse: false };
        let mut next = first_page;
        for extent in used.iter().filter(|extent| extent.pages > 0) {
            let end = extent.end().filter(|end| *end <= end_page);
            let (Some(end), true) = (end, extent.first_page >= next) else {
                return Err(format!(
                    "pages {} and {} more are owned twice, or beyond the {end_page} pages that there are",
                    extent.first_page,
                    extent.pages - 1
                ));
            };
            if extent.first_page > next {
                pages.free.insert(next, extent.first_page - next);
            }
            next = end;
        }
        if next < end_page {
            pages.free.insert(next, end_page - next);
        }
        Ok(pages)
    }

    /// From now on only grows.
    pub fn forbid_reuse(&mut self) {
        self.no_reuse = true;
    }

    /// Takes `wanted` pages, free ones at the lowest addresses first, so that the memory stays dense. Nothing changes
    /// when there aren't enough.
    pub fn allocate(&mut self, wanted: u64, room: Room) -> Result<Vec<Extent>, Error> {
        let mut left = wanted;
        let mut reused: Vec<(Extent, u64)> = Vec::new();
        for (&first_page, &free_pages) in self.free.iter().filter(|_| !self.no_reuse) {
            if left == 0 || reused.len() == EXTENTS_MAX - 1 {
                break;
            }
            let pages = free_pages.min(left);
            reused.push((Extent { first_page, pages }, free_pages));
            left -= pages;
        }
        let grown = match left {
            0 => None,
            pages => Some(self.grow(pages, wanted, room)?),
        };
        for (extent, free_pages) in &reused {
            self.free.remove(&extent.first_page);
            if extent.pages < *free_pages {
                self.free.insert(extent.first_page + extent.pages, free_pages - extent.pages);
            }
        }
        let mut extents: Vec<Extent> = Vec::new();
        for extent in reused.into_iter().map(|(extent, _)| extent).chain(grown) {
            match extents.last_mut() {
                Some(last) if last.first_page + last.pages == extent.first_page => last.pages += extent.pages,
                _ => extents.push(extent),
            }
        }
        Ok(extents)
    }

    fn grow(&mut self, pages: u64, wanted: u64, room: Room) -> Result<Extent, Error> {
        let kept_bytes = match room {
            Room::Data => STABLE_HEADROOM_BYTES,
            Room::Records => 0,
        };
        let limit_pages = (STABLE_BYTES_MAX - kept_bytes) / PAGE_BYTES;
        let growable = limit_pages.saturating_sub(self.end_page);
        let free = |growable: u64| match self.no_reuse {
            true => growable * PAGE_BYTES,
            false => self.free_bytes() + growable * PAGE_BYTES,
        };
        let needed_bytes = wanted.saturating_mul(PAGE_BYTES);
        if pages > growable {
            return Err(Error::StableMemoryFull { needed_bytes, free_bytes: free(growable) });
        }
        // The network may refuse although there is room here: the subnet is full, or the canister has a smaller limit.
        match u64::try_from(runtime::stable_memory().grow(pages)) {
            Ok(first_page) => {
                self.end_page = first_page + pages;
                Ok(Extent { first_page, pages })
            }
            Err(_) => Err(Error::StableMemoryFull { needed_bytes, free_bytes: free(0) }),
        }
    }

    /// Gives pages back.
    pub fn free(&mut self, extents: &[Extent]) {
        for extent in extents.iter().filter(|extent| extent.pages > 0) {
            let (mut first_page, mut pages) = (extent.first_page, extent.pages);
            if let Some(next_pages) = self.free.remove(&(first_page + pages)) {
                pages += next_pages;
            }
            let before = self.free.range(..first_page).next_back().map(|(first, pages)| (*first, *pages));
            if let Some((before_first, before_pages)) = before
                && before_first + before_pages == first_page
            {
                self.free.remove(&before_first);
                first_page = before_first;
                pages += before_pages;
            }
            self.free.insert(first_page, pages);
        }
    }

    /// Bytes that are free without growing.
    pub fn free_bytes(&self) -> u64 {
        self.free.values().map(|pages| pages * PAGE_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first_page: u64, pages: u64) -> Extent {
        Extent { first_page, pages }
    }

    fn free_list(pages: &Pages) -> Vec<(u64, u64)> {
        pages.free.iter().map(|(first, pages)| (*first, *pages)).collect()
    }

    #[test]
    fn what_nobody_owns_is_free() {
        let pages = Pages::not_in(vec![extent(6, 2), extent(3, 1), extent(4, 0)], 2, 10).expect("they are apart");
        assert_eq!(free_list(&pages), [(2, 1), (4, 2), (8, 2)]);
        for bad in [vec![extent(3, 2), extent(4, 1)], vec![extent(9, 2)], vec![extent(1, 1)], vec![extent(u64::MAX, 2)]]
        {
            assert!(Pages::not_in(bad.clone(), 2, 10).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn freed_neighbours_become_one_and_are_used_again() {
        runtime::stable_memory().grow(8);
        let mut pages = Pages::not_in(vec![extent(2, 6)], 2, 8).expect("they are apart");
        pages.free(&[extent(3, 1), extent(5, 1)]);
        assert_eq!(free_list(&pages), [(3, 1), (5, 1)]);
        pages.free(&[extent(4, 1)]);
        assert_eq!(free_list(&pages), [(3, 3)]);
        assert_eq!(pages.free_bytes(), 3 * PAGE_BYTES);
        assert_eq!(pages.allocate(2, Room::Data), Ok(vec![extent(3, 2)]));
        assert_eq!(free_list(&pages), [(5, 1)]);
        assert_eq!(runtime::stable_memory().size(), 8, "nothing was grown");
        assert_eq!(pages.allocate(3, Room::Data), Ok(vec![extent(5, 1), extent(8, 2)]));
        assert_eq!(runtime::stable_memory().size(), 10);
    }

    #[test]
    fn too_large_is_an_error_that_changes_nothing() {
        runtime::stable_memory().grow(4);
        let mut pages = Pages::not_in(vec![], 2, 4).expect("nothing is owned");
        match pages.allocate(STABLE_BYTES_MAX / PAGE_BYTES, Room::Data) {
            Err(Error::StableMemoryFull { needed_bytes, free_bytes }) => {
                assert_eq!(needed_bytes, STABLE_BYTES_MAX);
                assert_eq!(free_bytes, STABLE_BYTES_MAX - STABLE_HEADROOM_BYTES - 2 * PAGE_BYTES);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(free_list(&pages), [(2, 2)]);
        pages.forbid_reuse();
        assert_eq!(pages.allocate(1, Room::Data), Ok(vec![extent(4, 1)]));
    }
}
