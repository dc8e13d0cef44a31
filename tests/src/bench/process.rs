//! Child processes and what they cost, read from `/proc`.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Length of a clock tick in `/proc/*/stat`: `USER_HZ` is 100 on every Linux that runs Kubernetes.
const TICK: Duration = Duration::from_millis(10);

/// A process with all its children: one process group, killed as one.
#[derive(Debug)]
pub struct Group {
    leader: Child,
}

impl Group {
    /// Starts `command` in a group of its own; what it prints goes to `log`.
    ///
    /// # Errors
    /// The program does not start, or the log cannot be written.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let output = File::create(log).with_context(|| format!("{}", log.display()))?;
        let errors = output.try_clone()?;
        let command = command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let leader = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        Ok(Self { leader })
    }

    /// The leader's process id.
    pub fn id(&self) -> u32 {
        self.leader.id()
    }

    /// Whether the leader has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.leader.try_wait(), Ok(None))
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> Duration {
        self.stats().iter().map(|stat| stat.cpu).sum()
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.stats().iter().map(|stat| resident_kib(stat.pid)).sum()
    }

    fn stats(&self) -> Vec<Stat> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: u32| Stat::read(&format!("/proc/{pid}/stat")))
            .filter(|stat| stat.group == self.leader.id())
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.leader.id())]).status();
        let _ = self.leader.wait();
    }
}

/// What a part of the benchmark has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    at: Instant,
    router: Duration,
    load: Duration,
    stubs: Duration,
}

/// Cores used between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cores {
    /// By the router.
    pub router: f64,
    /// By the load generator.
    pub load: f64,
    /// By the backends.
    pub stubs: f64,
}

impl Clocks {
    /// Reads the clocks of a router, of the backends and of this process, which makes the load.
    pub fn read(router: &Group, stubs: &Group) -> Self {
        let load = Stat::read("/proc/self/stat").map(|stat| stat.cpu).unwrap_or_default();
        Self { at: Instant::now(), router: router.cpu(), load, stubs: stubs.cpu() }
    }

    /// Cores used since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Cores {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        let cores = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / seconds;
        Cores {
            router: cores(self.router, earlier.router),
            load: cores(self.load, earlier.load),
            stubs: cores(self.stubs, earlier.stubs),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    group: u32,
    cpu: Duration,
}

impl Stat {
    fn read(path: &str) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// `pid (name) state ppid pgrp …`, where the name may hold blanks and brackets; user and system time are the
    /// fields 14 and 15 counted from 1.
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
        let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
        Some(Self { pid: pid.parse().ok()?, group: fields.get(2)?.parse().ok()?, cpu: TICK * ticks })
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_a_strange_name() {
        let line = "71 (a) b (c) S 1 70 70 0 -1 4194304 1 0 0 0 150 25 0 0 20 0 4 0 100 0 0";
        let expected = Stat { pid: 71, group: 70, cpu: Duration::from_millis(1750) };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_group_is_measured_and_ends_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & echo ready; wait"]);
        let log = folder.path().join("log");
        let mut group = Group::start(&mut shell, &log).unwrap();
        while std::fs::read_to_string(&log).unwrap().is_empty() {
            std::thread::yield_now();
        }
        assert!(!group.has_ended() && group.resident_kib() > 0);
        let pids: Vec<u32> = group.stats().iter().map(|stat| stat.pid).collect();
        assert_eq!(pids.len(), 2, "the shell and its child: {pids:?}");
        let id = group.id();
        drop(group);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
