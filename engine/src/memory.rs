//! Whether a model fits into the memory that this process may use, judged before anything is allocated: in a
//! container the alternative is to be killed together with the sidecar. Pure; must not know where the texts and
//! sizes come from.

/// What is needed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// All tensors.
    pub weights: u64,
    /// Keys and values of all slots.
    pub context: u64,
}

/// The memory limit in bytes: the smaller of the control group's and the machine's. `None` if neither is known.
/// `cgroup` is the text of `memory.max`, `meminfo` that of `/proc/meminfo`.
pub fn limit(cgroup: Option<&str>, meminfo: Option<&str>) -> Option<u64> {
    // `max` means unlimited and is no number.
    let cgroup = cgroup.and_then(|text| text.trim().parse().ok());
    let machine = meminfo.and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        kibibytes.checked_mul(1024)
    });
    [cgroup, machine].into_iter().flatten().min()
}

/// `Err` with a sentence for people if the demand exceeds the limit.
pub fn check(demand: Demand, limit: Option<u64>) -> Result<(), String> {
    let Some(limit) = limit else { return Ok(()) };
    if demand.weights.saturating_add(demand.context) <= limit {
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(format!(
        "weights of {} MiB and a context of {} MiB for all slots exceed the memory limit of {} MiB",
        mebibytes(demand.weights),
        mebibytes(demand.context),
        limit >> 20
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts_and_unlimited_is_none() {
        let meminfo = "MemTotal:       1024 kB\nMemFree: 5 kB\n";
        assert_eq!(limit(Some("4096\n"), Some(meminfo)), Some(4096));
        assert_eq!(limit(Some("max\n"), Some(meminfo)), Some(1 << 20));
        assert_eq!(limit(None, None), None);
    }

    #[test]
    fn what_does_not_fit_is_said_in_numbers() {
        let demand = Demand { weights: 3 << 20, context: 5 << 20 };
        assert_eq!(check(demand, Some(8 << 20)), Ok(()));
        let message = check(demand, Some(7 << 20)).unwrap_err();
        assert!(
            message.contains("3 MiB") && message.contains("5 MiB") && message.contains("7 MiB"),
            "{message}"
        );
        assert!(check(Demand { weights: u64::MAX, context: 1 }, Some(u64::MAX - 1)).is_err());
        assert_eq!(check(demand, None), Ok(()));
    }
}
