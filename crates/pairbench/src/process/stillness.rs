//! Whether an arm stood still while it had to wait, by the processor time that it used in the other's turns.

use super::Process;

/// Processor time that a frozen arm may appear to use in all turns of a run: the kernel's accounting of its stops.
const ALLOWED_MS: f64 = 2.0;
/// The same as a share of the time in turns.
const ALLOWED_SHARE: f64 = 0.001;
/// Time that the kernel may charge late, once in a run: a frozen member's last stretch is charged when it leaves its
/// processor, which on a busy machine is up to a timer tick (4 ms at 250 Hz) after it counts as frozen. This seldom
/// affects more than one turn of a run; a process that works a little in every turn is not forgiven.
const CHARGED_LATE_MS: f64 = 4.0;

/// Processor time of one arm in the turns of the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stillness {
    total_ms: f64,
    largest_ms: f64,
    is_held_by_kernel: bool,
}

impl Stillness {
    /// Adds a turn of the other, before which the waiting arm had used `before_ns`.
    pub(crate) fn add_turn(&mut self, waiting: &Process, before_ns: u64) {
        self.is_held_by_kernel = waiting.is_held_by_kernel();
        self.add(waiting.cpu_ns().saturating_sub(before_ns) as f64 / 1e6);
    }

    fn add(&mut self, used_ms: f64) {
        self.total_ms += used_ms;
        self.largest_ms = self.largest_ms.max(used_ms);
    }

    /// What it did, if it used more than is allowed in `turns_ms` of turns.
    pub(crate) fn breach(&self, turns_ms: f64) -> Option<String> {
        let late_ms = if self.is_held_by_kernel { self.largest_ms.min(CHARGED_LATE_MS) } else { 0.0 };
        let allowed_ms = ALLOWED_MS.max(turns_ms * ALLOWED_SHARE);
        (self.total_ms - late_ms > allowed_ms)
            .then(|| format!("used {:.1} ms of the processor while it was to wait", self.total_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(turns: &[f64], is_held_by_kernel: bool) -> bool {
        let mut stillness = Stillness { is_held_by_kernel, ..Stillness::default() };
        for used_ms in turns {
            stillness.add(*used_ms);
        }
        stillness.breach(1_000.0).is_some()
    }

    #[test]
    fn a_late_charge_is_forgiven_once_and_where_the_kernel_holds_all() {
        let one_of = |used_ms: f64| [&[0.01; 40][..], &[used_ms]].concat();
        assert!(!breaches(&one_of(4.0), true) && breaches(&one_of(4.0), false));
        assert!(breaches(&one_of(6.5), true));
        assert!(breaches(&[&one_of(4.0)[..], &[4.0]].concat(), true));
        // A little in each turn of the other.
        assert!(breaches(&[0.2; 40], true));
        assert!(!breaches(&[0.04; 40], false));
    }
}
