//! Memory that is used again: a pool for tensors and every other large block of a process, and one for
//! what kernels need for the length of a call.
//!
//! A page that a process has never touched costs ten times what writing to it costs, and a training
//! step would touch some hundred thousand of them. What one part of a step frees another part needs:
//! the activations' memory becomes that of gradients. Only one pool for everything can see to that.

use std::alloc::{GlobalAlloc, Layout, System, handle_alloc_error};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A cache line, the unit of the pool.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(#[expect(dead_code, reason = "read through a pointer")] [f32; LINE]);

/// Floats on a cache line.
pub(crate) const LINE: usize = 16;

/// Least size of a chunk, 256 MiB. Pages of it that nobody has used yet are no memory.
const CHUNK_LINES: usize = 256 << 20 >> 6;

/// From this size on a block of the process comes from the pool: where the system's allocator would
/// map fresh pages for it, and unmap them when it is freed.
const LARGE: usize = 128 << 10;

/// The pool of a piece, by how long it is used. The two are apart so that a kernel's scratch leaves no holes between tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Longer than a call: tensors.
    Tensor,
    /// A call.
    Scratch,
}

/// Memory in chunks, each cut into pieces as they are asked for, from the lowest place that fits;
/// neighbours that come back grow together again. Nothing is given back to the system: the next step
/// needs it.
struct Pool {
    chunks: Vec<Chunk>,
}

struct Chunk {
    first: NonNull<Line>,
    lines: usize,
    /// Offset and length of every piece that nobody uses.
    free: BTreeMap<usize, usize>,
}

// SAFETY: a pointer is a number; whoever reads or writes there promises to be alone.
unsafe impl Send for Chunk {}

static TENSORS: Mutex<Pool> = Mutex::new(Pool { chunks: Vec::new() });
static SCRATCH: Mutex<Pool> = Mutex::new(Pool { chunks: Vec::new() });

impl Chunk {
    /// `None` when the system has no memory left.
    fn new(lines: usize) -> Option<Self> {
        let bytes = lines.checked_add(1)?.checked_mul(size_of::<Line>())?;
        // Zeroed, so that whatever is read from the pool is initialised. For the system that is no
        // work, but only at an alignment of its own: else every page would be written to.
        let layout = Layout::from_size_align(bytes, align_of::<u64>()).ok()?;
        // SAFETY: the size is not zero.
        let block = NonNull::new(unsafe { System.alloc_zeroed(layout) })?;
        #[cfg(target_os = "linux")]
        ask_for_large_pages(block, bytes);
        let skipped = block.align_offset(align_of::<Line>());
        // SAFETY: there is one line more than is needed.
        let first = unsafe { block.add(skipped) }.cast();
        Some(Self { first, lines, free: BTreeMap::from([(0, lines)]) })
    }

    fn take(&mut self, lines: usize) -> Option<NonNull<Line>> {
        let (&offset, &free) = self.free.iter().find(|(_, free)| **free >= lines)?;
        self.free.remove(&offset);
        if free > lines {
            self.free.insert(offset + lines, free - lines);
        }
        // SAFETY: the chunk is longer than that.
        Some(unsafe { self.first.add(offset) })
    }

    /// The offset of an address in this chunk.
    fn offset_of(&self, piece: NonNull<Line>) -> Option<usize> {
        let bytes = piece.addr().get().checked_sub(self.first.addr().get())?;
        let offset = bytes / size_of::<Line>();
        (offset < self.lines).then_some(offset)
    }

    fn put(&mut self, mut offset: usize, mut lines: usize) {
        if let Some(next) = self.free.remove(&(offset + lines)) {
            lines += next;
        }
        if let Some((&before, &length)) = self.free.range(..offset).next_back()
            && before + length == offset
        {
            (offset, lines) = (before, length + lines);
        }
        self.free.insert(offset, lines);
    }
}

/// Asks for pages of 2 MiB, where the system gives them to who asks: touching 240 MB of weights for the first
/// time took a quarter of a second, and then a quarter of that. It may say no.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(block: NonNull<u8>, bytes: usize) {
    const PAGE: usize = 1 << 16;
    let skipped = block.align_offset(PAGE);
    if let Some(left) = bytes.checked_sub(skipped).filter(|left| *left >= PAGE) {
        // SAFETY: advice about whole pages of a block that was just allocated; it changes no content.
        unsafe {
            libc::madvise(block.add(skipped).as_ptr().cast(), left, libc::MADV_HUGEPAGE);
        }
    }
}

impl Pool {
    fn take(&mut self, lines: usize) -> Option<NonNull<Line>> {
        let taken = self.chunks.iter_mut().find_map(|chunk| chunk.take(lines));
        taken.or_else(|| {
            // A quarter of what there is, so that there are never many.
            let total: usize = self.chunks.iter().map(|chunk| chunk.lines).sum();
            let chunk = Chunk::new(lines.max(CHUNK_LINES).max(total / 4));
            // Where so much cannot even be promised, what is needed.
            let mut chunk = chunk.or_else(|| Chunk::new(lines))?;
            let taken = chunk.take(lines);
            self.chunks.push(chunk);
            taken
        })
    }

    fn put(&mut self, piece: NonNull<Line>, lines: usize) {
        let mut chunks = self.chunks.iter_mut();
        let home = chunks.find_map(|chunk| chunk.offset_of(piece).map(|offset| (chunk, offset)));
        match home {
            Some((chunk, offset)) => chunk.put(offset, lines),
            None => unreachable!("the piece was taken from the pool"),
        }
    }
}

fn pool(lifetime: Lifetime) -> MutexGuard<'static, Pool> {
    let pool = match lifetime {
        Lifetime::Tensor => &TENSORS,
        Lifetime::Scratch => &SCRATCH,
    };
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A piece of the pool, with any content; initialised.
pub(crate) fn take(lines: usize, lifetime: Lifetime) -> NonNull<Line> {
    // The lock is gone before an error is reported, which allocates.
    let taken = pool(lifetime).take(lines);
    taken.unwrap_or_else(|| match Layout::array::<Line>(lines) {
        Ok(layout) => handle_alloc_error(layout),
        Err(_) => unreachable!("no memory is that large"),
    })
}

/// Gives a piece back.
///
/// # Safety
/// It must be one that [`take`] gave for so many lines and that lifetime, and nobody may use it any
/// more.
pub(crate) unsafe fn put(piece: NonNull<Line>, lines: usize, lifetime: Lifetime) {
    pool(lifetime).put(piece, lines);
}

/// A global allocator whose large blocks come from the pool that the kernels' tensors are in; small
/// ones are the system's.
///
/// With it a program's other large blocks (parameters, the optimizer's moments, what Burn's own
/// operations allocate) and the kernels' use each other's memory.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: mixer_kernels::PoolAllocator = mixer_kernels::PoolAllocator;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolAllocator;

/// The lines that a block takes in the pool; `None` for the system's blocks.
fn pooled(layout: Layout) -> Option<usize> {
    let large = layout.size() >= LARGE && layout.align() <= align_of::<Line>();
    large.then(|| layout.size().div_ceil(size_of::<Line>()))
}

// SAFETY: blocks are disjoint, large enough and aligned; which of the two allocators has a block follows
// from its layout alone. Chunks and the lists of pieces are the system's: the pool never asks itself.
unsafe impl GlobalAlloc for PoolAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match pooled(layout) {
            Some(lines) => {
                let taken = pool(Lifetime::Tensor).take(lines);
                taken.map_or(std::ptr::null_mut(), |piece| piece.as_ptr().cast())
            }
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match (pooled(layout), NonNull::new(block)) {
            (Some(lines), Some(block)) => pool(Lifetime::Tensor).put(block.cast(), lines),
            // SAFETY: the caller's promise; a block that is not of the pool is the system's.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match pooled(layout) {
            // SAFETY: the caller's promise; the block has the layout's size.
            Some(_) => unsafe {
                let block = self.alloc(layout);
                if !block.is_null() {
                    block.write_bytes(0, layout.size());
                }
                block
            },
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if pooled(layout).is_none() && pooled(new_layout).is_none() {
            // SAFETY: the caller's promise; the block is the system's.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller's promise; both blocks have what is copied, and are two.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(lines: usize) -> Chunk {
        Chunk::new(lines).unwrap()
    }

    #[test]
    fn the_lowest_piece_that_fits_is_taken_and_neighbours_grow_together() {
        let mut chunk = chunk(100);
        let pieces = [30, 20, 10].map(|lines| chunk.take(lines).unwrap());
        assert_eq!(pieces.map(|piece| chunk.offset_of(piece).unwrap()), [0, 30, 50]);
        assert!(chunk.take(41).is_none());
        chunk.put(0, 30);
        // The lowest, not the one that fits best.
        let lowest = chunk.take(5).unwrap();
        assert_eq!(chunk.offset_of(lowest), Some(0));
        chunk.put(30, 20);
        chunk.put(50, 10);
        assert_eq!(chunk.free, BTreeMap::from([(5, 95)]));
        chunk.put(0, 5);
        assert_eq!(chunk.free, BTreeMap::from([(0, 100)]));
    }

    #[test]
    fn pieces_never_overlap_and_everything_comes_back() {
        let mut chunk = chunk(1 << 12);
        let mut owner = vec![0u32; 1 << 12];
        let mut held: Vec<(usize, usize, u32)> = Vec::new();
        let mut state = 7u64;
        for name in 1..5000u32 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let lines = 1 + (state >> 40) as usize % 300;
            match chunk.take(lines) {
                Some(piece) => {
                    let offset = chunk.offset_of(piece).unwrap();
                    assert!(owner[offset..offset + lines].iter().all(|owner| *owner == 0));
                    owner[offset..offset + lines].fill(name);
                    held.push((offset, lines, name));
                }
                None => {
                    let (offset, lines, name) =
                        held.swap_remove((state >> 8) as usize % held.len());
                    assert!(owner[offset..offset + lines].iter().all(|owner| *owner == name));
                    owner[offset..offset + lines].fill(0);
                    chunk.put(offset, lines);
                }
            }
        }
        for (offset, lines, _) in held {
            chunk.put(offset, lines);
        }
        assert_eq!(chunk.free, BTreeMap::from([(0, 1 << 12)]));
    }

    #[test]
    fn allocator_keeps_content_through_growth_and_clears_what_must_be_zero() {
        let allocator = PoolAllocator;
        let layout = |size| Layout::from_size_align(size, 16).unwrap();
        // Across the limit between the two allocators, there and back.
        let sizes = [100, LARGE - 1, LARGE, 3 * LARGE, LARGE + 5, 200];
        // SAFETY: every block is used within its size and freed once.
        unsafe {
            let mut block = allocator.alloc_zeroed(layout(64));
            let mut size = 64;
            block.write_bytes(0xab, size);
            for new_size in sizes {
                block = allocator.realloc(block, layout(size), new_size);
                assert_eq!(block.addr() % 16, 0);
                let kept = std::slice::from_raw_parts(block, size.min(new_size).min(64));
                assert!(kept.iter().all(|byte| *byte == 0xab));
                block.write_bytes(0xab, new_size);
                size = new_size;
            }
            allocator.dealloc(block, layout(size));
            let dirty = allocator.alloc(layout(LARGE));
            dirty.write_bytes(0xff, LARGE);
            allocator.dealloc(dirty, layout(LARGE));
            let clean = allocator.alloc_zeroed(layout(LARGE));
            assert!(std::slice::from_raw_parts(clean, LARGE).iter().all(|byte| *byte == 0));
            allocator.dealloc(clean, layout(LARGE));
        }
    }
}
