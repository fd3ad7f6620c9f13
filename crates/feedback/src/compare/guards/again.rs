//! Recomputes a guard's result from the numbers of its pairs alone.

use super::{BUILD_PAIRS, HOPELESS, LEVEL, PAIRS, PROCESS_PAIRS, SHORT_PROCESS_PAIRS};
use crate::{
    attempt::guard::{GuardResult, judge},
    config::Guard,
};

/// The guard's result from `d` of its own pairs, or `memory` of the comparison's pairs. None where the guard would not
/// have stopped after that many pairs.
pub fn again(name: &str, guard: &Guard, d: &[f64], memory: &[f64]) -> Option<GuardResult> {
    let margin_pct = guard.margin_pct();
    let plans: &[&[usize]] = match guard {
        Guard::PeakMemory { .. } => return Some(judge(name, margin_pct, memory, LEVEL)),
        Guard::Workload { .. } => &[PAIRS],
        // The length of the process, which decides, was measured before the first pair.
        Guard::FirstStep { .. } | Guard::Command { .. } => &[PROCESS_PAIRS, SHORT_PROCESS_PAIRS],
        Guard::BuildTime { .. } => &[BUILD_PAIRS],
    };
    plans.iter().find_map(|counts| {
        let level = LEVEL / counts.len() as f64;
        for (look, planned) in counts.iter().enumerate() {
            let found = judge(name, margin_pct, d.get(..*planned)?, level);
            if found.holds || found.p > HOPELESS || look + 1 == counts.len() {
                return (found.pairs == d.len()).then_some(found);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use pairbench::verdict::log_of_pct;

    use super::*;

    fn command() -> Guard {
        Guard::Command { margin_pct: 5.0, command: "x".into(), inputs: Vec::new() }
    }

    #[test]
    fn a_guard_is_found_again_where_it_stopped() {
        let fine = [0.0; 24];
        let found = again("decode", &command(), &fine[..8], &[]).unwrap();
        assert!(found.holds && found.pairs == 8, "{found:?}");
        // It would have stopped at its first look.
        assert_eq!(again("decode", &command(), &fine[..16], &[]), None);
        assert_eq!(again("decode", &command(), &fine[..7], &[]), None);
        let mut late = vec![-log_of_pct(20.0); 2];
        late.extend(vec![0.0; 22]);
        assert!(again("decode", &command(), &late, &[]).unwrap().holds);
        let memory = Guard::PeakMemory { margin_pct: 5.0 };
        assert!(again("memory", &memory, &[], &fine[..8]).unwrap().holds);
        assert!(!again("memory", &memory, &[], &[]).unwrap().holds);
    }
}
