//! Independent jobs on one thread per core, with a progress line on standard error. Results come in the order of the
//! jobs, so the number of threads changes nothing but the time.

use std::io::{IsTerminal as _, Write as _};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The cores of this machine.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on every job by `threads` threads and returns the results in the order of the jobs.
pub fn run<J: Sync, R: Send>(
    label: &str,
    threads: usize,
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let worker = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return results };
            results.push((index, work(job)));
            show(label, done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
        }
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.clamp(1, jobs.len().max(1))).map(|_| scope.spawn(worker)).collect();
        // A panic of a job is the caller's panic.
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// One line that is rewritten on a terminal; in a log one line per tenth.
fn show(label: &str, done: usize, all: usize) {
    let mut stderr = std::io::stderr();
    let line = if stderr.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        format!("\r{label}: {done}/{all}{end}")
    } else if done * 10 / all > (done - 1) * 10 / all {
        format!("{label}: {done}/{all}\n")
    } else {
        return;
    };
    // Progress that cannot be shown is no reason to stop.
    let _ = stderr.write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_jobs() {
        let jobs: Vec<usize> = (0..100).collect();
        let squares: Vec<usize> = jobs.iter().map(|job| job * job).collect();
        assert_eq!(run("squares", 4, &jobs, |job| job * job), squares);
        assert_eq!(run("squares", 1, &jobs, |job| job * job), squares);
        assert!(run("nothing", 4, &Vec::<usize>::new(), |job| *job).is_empty());
    }
}
