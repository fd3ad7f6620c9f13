//! The formats of `/proc` and `/sys` (proc(5), cgroups). Text in another form is `None`, never a panic.

/// Ticks of all processors together since the system began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTicks {
    /// Computing for this system.
    pub(super) busy: u64,
    /// Ready, while the host computed for another guest.
    pub(super) steal: u64,
    pub(super) total: u64,
}

/// The first line of `/proc/stat`.
pub(super) fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    // user nice system idle iowait irq softirq steal; the guests' time after them is in user and nice.
    let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else { return None };
    let sum = |ticks: &[u64]| ticks.iter().try_fold(0u64, |sum, ticks| sum.checked_add(*ticks));
    Some(CpuTicks { busy: sum(&[user, nice, system, irq, softirq])?, steal, total: sum(&ticks)? })
}

/// Name and ticks of a process, from `/proc/<pid>/stat`. The name may hold anything, brackets too.
pub(super) fn process_ticks(stat: &str) -> Option<(String, u64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let sum = ticks()?.checked_add(ticks()?)?;
    Some((name.chars().map(|c| if c.is_control() { '?' } else { c }).take(32).collect(), sum))
}

/// The value of a line `key value` or `key: value kB`, as it stands.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()?.trim_end_matches(':') == key).then(|| words.next()?.parse().ok())?
    })
}

/// Bytes of a line of `/proc/meminfo`.
pub(super) fn memory_bytes(meminfo: &str, key: &str) -> Option<u64> {
    value(meminfo, key)?.checked_mul(1024)
}

/// Per cent of the last 10 s in which some task waited, from `/proc/pressure/*`.
pub(super) fn pressure_pct(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok().filter(|pct: &f64| (0.0..=100.0).contains(pct))
}

/// Processors that `cpu.max` allows; none where it says `max`.
pub(super) fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    processors(quota, period)
}

/// Processors that a quota and its period allow; none without a limit, which is `max` or -1.
pub(super) fn processors(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// How many numbers a list such as `0-3,8` holds.
pub(super) fn list_len(list: &str) -> Option<u64> {
    list.split(',').try_fold(0u64, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_of_the_kernel_are_read() {
        let stat = "cpu  100 10 20 1000 5 1 2 7 50 0\ncpu0 1 2 3\nbtime 5\n";
        assert_eq!(cpu_ticks(stat), Some(CpuTicks { busy: 133, steal: 7, total: 1145 }));
        let process = "42 (a) b (c\n) S 1 42 42 0 -1 4194560 10 0 0 0 120 30 0 0 20 0 1 0 5 0";
        assert_eq!(process_ticks(process), Some(("a) b (c?".to_owned(), 150)));
        assert_eq!(memory_bytes("MemTotal:  24 kB\nMemAvailable: 3 kB\n", "MemAvailable"), Some(3072));
        assert_eq!(value("pswpin 4\npswpout 9", "pswpout"), Some(9));
        assert_eq!(pressure_pct("some avg10=51.50 avg60=31.00 avg300=9.96 total=45\nfull avg10=1.0"), Some(51.5));
        assert_eq!(cpu_max("150000 100000"), Some(1.5));
        assert_eq!(cpu_max("max 100000"), None);
        assert_eq!(processors("-1", "100000"), None);
        assert_eq!((list_len("0-3,8"), list_len("0"), list_len("")), (Some(5), Some(1), None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[\\x00-\\xff]*|(cpu |some avg10=|1 \\()[0-9 )(.-]*|[0-9,-]*") {
            let _ = (cpu_ticks(&text), process_ticks(&text), value(&text, "a"), memory_bytes(&text, ""));
            let _ = (cpu_max(&text), processors(&text, &text), list_len(&text));
            prop_assert!(pressure_pct(&text).is_none_or(|pct| (0.0..=100.0).contains(&pct)));
        }
    }
}
