//! Arrays of the probes' that are mapped into this process: reading one takes no system call.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use aya::Pod;
use aya::maps::{Array, IterableMap as _, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An array map (`BPF_F_MMAPABLE`) in this process's memory.
///
/// The probes may write to it at any time, so it is only ever copied from and to, never lent but for
/// single words.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    start: NonNull<T>,
    len: u32,
    values: PhantomData<T>,
}

// SAFETY: the memory belongs to no thread.
unsafe impl<T: Send> Send for Mapped<T> {}

// SAFETY: what one thread reads another cannot write through this at the same time, but for words,
// which are atomic.
unsafe impl<T: Send> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Maps all of `array`. The map itself lives on while it is mapped.
    pub(super) fn new(array: &Array<MapData, T>) -> io::Result<Self> {
        Self::of_values(array.map().fd().as_fd(), array.len())
    }

    /// Maps the values of an array, of which there are `len`.
    pub(super) fn of_values(array: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        // The kernel's arrays have elements of a multiple of eight bytes.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let start = map(array, size_of::<T>() * len as usize)?;
        Ok(Self { start: start.cast(), len, values: PhantomData })
    }

    /// Memory of this process alone, all zero.
    #[cfg(test)]
    pub(super) fn of_nobody(len: u32) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let bytes = size_of::<T>() * len as usize;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE)
        }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("no memory"))?;
        Ok(Self { start, len, values: PhantomData })
    }

    /// The same memory once more, for a test that does not let it outlive this.
    #[cfg(test)]
    pub(super) fn again(&self) -> std::mem::ManuallyDrop<Self> {
        std::mem::ManuallyDrop::new(Self { start: self.start, len: self.len, values: PhantomData })
    }

    /// The value at `index` now; `None` behind the end.
    pub(super) fn get(&self, index: u32) -> Option<T> {
        // SAFETY: inside, and any bytes are a value.
        self.place(index).map(|place| unsafe { place.read_volatile() })
    }

    /// Sets the value at `index`; false behind the end.
    pub(super) fn set(&mut self, index: u32, value: T) -> bool {
        // SAFETY: inside, and mapped for writing.
        self.place(index).map(|place| unsafe { place.write_volatile(value) }).is_some()
    }

    /// How many values there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The word that begins `offset` bytes into the value at `index`; `None` behind the end of
    /// either. For words that the probes read and write as such.
    pub(super) fn word(&self, index: u32, offset: usize) -> Option<&AtomicU64> {
        const { assert!(align_of::<T>() >= align_of::<AtomicU64>()) };
        if !offset.is_multiple_of(8) || offset + 8 > size_of::<T>() {
            return None;
        }
        let place = self.place(index)?.as_ptr().wrapping_byte_add(offset);
        // SAFETY: inside the value, and aligned; the memory lives as long as this.
        Some(unsafe { AtomicU64::from_ptr(place.cast()) })
    }

    fn place(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: the index is inside.
        (index < self.len).then(|| unsafe { self.start.add(index as usize) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = size_of::<T>() * self.len as usize;
        if bytes > 0 {
            // SAFETY: mapped by `new()` with this size, and nobody has a pointer into it who
            // outlives this.
            let _unmapped = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
        }
    }
}

fn map(map: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let start = unsafe { mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, map, 0) }?;
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
}
