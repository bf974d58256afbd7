//! CPU time, which the host's other work disturbs least.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// One tick of the times in /proc/PID/stat: USER_HZ is 100 everywhere (proc(5)).
const TICK: Duration = Duration::from_millis(10);
/// Fields of /proc/PID/stat behind the name: state is the first, utime and stime follow at these places.
const UTIME: usize = 11;
const STIME: usize = 12;

/// Time that this thread has been on a processor.
pub fn of_this_thread() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("/proc/thread-self/schedstat begins with no number")?))
}

/// Time that all threads of a process have been on a processor, to 10 ms.
pub fn of_process(id: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name stands in parentheses and may hold anything.
    let behind_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u32>().ok());
    let all = ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| user + system);
    Ok(TICK * all.with_context(|| format!("{path} has no times"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_on_both_clocks() {
        let id = std::process::id();
        let (thread, process) = (of_this_thread().unwrap(), of_process(id).unwrap());
        let mut word = 1u64;
        while of_this_thread().unwrap() - thread < Duration::from_millis(40) {
            word = std::hint::black_box(word.wrapping_mul(3));
        }
        assert!(of_process(id).unwrap() > process);
    }
}
