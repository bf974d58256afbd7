//! System calls that the standard library does not offer.
#![allow(unsafe_code)] // The raw system calls, each with its proof.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn check(result: impl Into<i64>) -> Result<i64> {
    let result = result.into();
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::from(ErrorKind::InvalidInput))
}

/// mount(2)
pub fn mount(device: &str, place: &str, kind: &str, flags: u64, data: &str) -> Result<()> {
    let (device, place, kind, data) = (string(device)?, string(place)?, string(kind)?, string(data)?);
    // SAFETY: all pointers are to strings ended by zero that live until the call returns.
    check(unsafe { libc::mount(device.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) })
        .map(drop)
}

/// mknod(2) of a character device that only root opens.
pub fn character_device(place: &Path, number: u64) -> Result<()> {
    let place =
        CString::new(place.as_os_str().as_bytes()).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
    // SAFETY: the pointer is to a string ended by zero.
    check(unsafe { libc::mknod(place.as_ptr(), libc::S_IFCHR | 0o600, number) }).map(drop)
}

/// umount(2)
pub fn umount(place: &str) -> Result<()> {
    let place = string(place)?;
    // SAFETY: the pointer is to a string ended by zero.
    check(unsafe { libc::umount2(place.as_ptr(), 0) }).map(drop)
}

/// finit_module(2) without parameters.
pub fn load_module(file: &File) -> Result<()> {
    // SAFETY: the descriptor is open and the parameters are a string ended by zero.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) }).map(drop)
}

/// fallocate(2)
pub fn fallocate(file: &File, mode: i32, at: i64, len: i64) -> Result<()> {
    // SAFETY: touches no memory of ours.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, at, len) }).map(drop)
}

/// sync(2)
pub fn sync() {
    // SAFETY: touches no memory of ours.
    unsafe { libc::sync() }
}

/// syncfs(2)
pub fn syncfs(file: &File) -> Result<()> {
    // SAFETY: touches no memory of ours.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }).map(drop)
}

/// lsetxattr(2)
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    let (path, name) = (path_string(path)?, string(name)?);
    let (value, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: the strings are ended by zero, and `len` bytes of the value may be read.
    check(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value, len, 0) }).map(drop)
}

/// lremovexattr(2)
pub fn remove_xattr(path: &Path, name: &str) -> Result<()> {
    let (path, name) = (path_string(path)?, string(name)?);
    // SAFETY: the strings are ended by zero.
    check(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// llistxattr(2): the names, in no order.
pub fn list_xattrs(path: &Path) -> Result<Vec<String>> {
    let path = path_string(path)?;
    let list = filled(|room, len| {
        // SAFETY: the path is ended by zero, and the list has room for as many bytes as is said.
        unsafe { libc::llistxattr(path.as_ptr(), room.cast(), len) }
    })?;
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// lgetxattr(2)
pub fn get_xattr(path: &Path, name: &str) -> Result<Vec<u8>> {
    let (path, name) = (path_string(path)?, string(name)?);
    filled(|room, len| {
        // SAFETY: the strings are ended by zero, and the value has room for as many bytes as is said.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), room.cast(), len) }
    })
}

/// What a call fills a buffer with: asked for no bytes, it says how many there are.
fn filled(call: impl Fn(*mut u8, usize) -> isize) -> Result<Vec<u8>> {
    let len = check(call(std::ptr::null_mut(), 0) as i64)?;
    let mut bytes = vec![0_u8; len as usize];
    if !bytes.is_empty() {
        let len = check(call(bytes.as_mut_ptr(), bytes.len()) as i64)?;
        bytes.truncate(len as usize);
    }
    Ok(bytes)
}

fn path_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::from(ErrorKind::InvalidInput))
}

/// Lets this process use I/O ports.
pub fn allow_ports() -> Result<()> {
    // SAFETY: touches no memory of ours.
    check(unsafe { libc::iopl(3) }).map(drop)
}

/// Collects children that ended after their parents.
pub fn reap() {
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Whether this process goes before all others: SCHED_FIFO, which its children do not inherit.
pub fn come_first(first: bool) {
    let (policy, priority) = if first { (libc::SCHED_FIFO, 1) } else { (libc::SCHED_OTHER, 0) };
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter lives until the call returns. A kernel that refuses leaves everything as it was.
    unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &parameter) };
}

/// Kills every process but this one, which is init, and waits until they are gone.
pub fn end_all_others() {
    // SAFETY: touches no memory of ours; the kernel spares init and the caller.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

/// fork(2): the number of the child, 0 in the child itself.
pub fn fork() -> Result<i32> {
    // SAFETY: the agent has one thread whenever it does a command, so the child finds no lock held by a thread that it
    // does not have.
    check(unsafe { libc::fork() }).map(|id| id as i32)
}

/// Waits until this child has ended.
pub fn wait_for(child: i32) {
    // SAFETY: a null status pointer is allowed.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

/// Ends the calling thread, or the process if it is the only one, without any clearing up.
pub fn exit_thread() -> ! {
    loop {
        // SAFETY: exit(2) ends this thread alone; nothing of it is used any more.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// A page of zeros that children share.
pub fn shared_page() -> Result<usize> {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) };
    mapped(address)
}

/// Powers off; when the kernel cannot, waits for ever.
pub fn power_off() -> ! {
    loop {
        // SAFETY: touches no memory of ours; needs no sync, which is what the simulator wants.
        unsafe { libc::reboot(libc::RB_POWER_OFF) };
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// Address space with nothing in it.
pub fn reserve(len: usize) -> Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    mapped(address)
}

/// Maps a file over address space from [`reserve`], read and write. `flags` as for mmap(2), MAP_FIXED aside.
pub fn map_over(address: usize, len: usize, flags: i32, file: &File, at: i64) -> Result<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_FIXED;
    // SAFETY: the caller reserved the range, so that nothing else lies there.
    let address = unsafe { libc::mmap(address as *mut _, len, protection, flags, file.as_raw_fd(), at) };
    mapped(address)
}

/// Maps a whole file, shared, read-only, all pages present.
pub fn map_to_read(file: &File, len: usize) -> Result<usize> {
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
    mapped(address)
}

/// Memory whose pages are present and stay so: shared, so that no fork makes them copy-on-write.
pub fn resident(len: usize) -> Result<&'static mut [u8]> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
    let address = mapped(unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) })?;
    // SAFETY: `len` bytes are mapped there, are zero, are never unmapped, and only this slice refers to them.
    Ok(unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) })
}

/// munmap(2) of a range that came from [`reserve`] or [`map_to_read`].
pub fn unmap(address: usize, len: usize) -> Result<()> {
    // SAFETY: the range is one of the two kinds above; nothing of Rust's refers to it.
    check(unsafe { libc::munmap(address as *mut _, len) }).map(drop)
}

/// msync(2) with MS_SYNC.
pub fn msync(address: usize, len: usize) -> Result<()> {
    // SAFETY: changes no memory.
    check(unsafe { libc::msync(address as *mut _, len, libc::MS_SYNC) }).map(drop)
}

fn mapped(address: *mut libc::c_void) -> Result<usize> {
    if address == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(address as usize) }
}
