//! Who uses the processors during an arm's turns.
//!
//! This shows a trainer that disturbs the other through a process that the loop cannot see (started through a service,
//! say): the machine is busier in the other's turns than in its own.

use std::{fs::File, ops::AddAssign, sync::LazyLock};

use crate::process::{Process, cgroup::read_counters};

/// Kept open, because it is read twice in every turn.
static STAT: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/stat").ok());

/// Length of a tick of `/proc/stat`, whatever the kernel's own tick is.
const TICK_MS: f64 = 10.0;

/// Processor time over some turns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuUsage {
    foreign_ms: f64,
    turns_ms: f64,
}

/// The counters before a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    busy_ms: Option<f64>,
    own_ns: u64,
}

impl CpuUsage {
    /// Reads the counters.
    pub(crate) fn now(process: &Process) -> Before {
        Before { busy_ms: busy_ms(), own_ns: process.cpu_ns() }
    }

    /// How much of one processor others used during the arm's turns: 0 is none, 1 is all of it.
    pub(crate) fn foreign_share(&self) -> f64 {
        if self.turns_ms > 0.0 { (self.foreign_ms / self.turns_ms).max(0.0) } else { 0.0 }
    }
}

impl Before {
    /// The use since then, in a turn of `turn_ms`.
    pub(crate) fn until(self, process: &Process, turn_ms: f64) -> CpuUsage {
        let own_ms = process.cpu_ns().saturating_sub(self.own_ns) as f64 / 1e6;
        let foreign_ms = match (self.busy_ms, busy_ms()) {
            (Some(before), Some(after)) => after - before - own_ms,
            _ => 0.0,
        };
        CpuUsage { foreign_ms, turns_ms: turn_ms }
    }
}

impl AddAssign for CpuUsage {
    fn add_assign(&mut self, more: CpuUsage) {
        self.foreign_ms += more.foreign_ms;
        self.turns_ms += more.turns_ms;
    }
}

/// Busy time of all processors together since boot.
fn busy_ms() -> Option<f64> {
    let stat = read_counters(STAT.as_ref()?).ok()?;
    let ticks: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|field| ticks.get(*field)).sum::<u64>();
    Some(busy as f64 * TICK_MS)
}
