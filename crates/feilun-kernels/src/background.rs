//! Work that gives way: threads that compute only while nobody else wants the processor, and reach
//! for the disk only while nobody else does.

use std::io;

/// Puts the calling thread at idle priority, and so every thread that it makes from now on.
///
/// # Errors
/// If the system refuses. It never has to: giving up priority needs no right.
#[cfg(target_os = "linux")]
pub fn enter() -> io::Result<()> {
    // <linux/ioprio.h>: the class is above the 13 bits of the level.
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const IOPRIO_IDLE: libc::c_long = 3 << 13;
    // SAFETY: all zeros is a valid `sched_param`: it is made of integers. Idle has priority 0.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is the calling thread; the pointer is to a live `sched_param`, which is read.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: three integers, of which 0 is the calling thread; nothing is read or written.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere there is no such priority that all systems have.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn enter() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn threads_that_are_made_later_give_way_too() {
        // A thread of its own: no other test is to become slow.
        let policy = std::thread::spawn(|| {
            super::enter().unwrap();
            // SAFETY: 0 is the calling thread.
            std::thread::spawn(|| unsafe { libc::sched_getscheduler(0) }).join().unwrap()
        });
        assert_eq!(policy.join().unwrap(), libc::SCHED_IDLE);
    }
}
