//! The kernels of a traced run: times are wall time, totals over all traced steps.
//!
//! Counters that a trainer does not write are `None`, which is not 0.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::LoopError;

/// Totals of the kernels of one process, each phase and kernel once, in the order of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Number of traced steps.
    pub steps: u64,
    /// The totals.
    pub kernels: Vec<Kernel>,
}

/// Totals of one kernel in one phase.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// The part of the step that it runs in; may be empty.
    #[serde(default)]
    pub phase: String,
    /// Wall time.
    pub time_ms: f64,
    /// How often it ran.
    pub calls: Option<f64>,
    /// Floating-point operations.
    pub flops: Option<f64>,
    /// The fewest bytes that it must read and write.
    pub bytes: Option<f64>,
}

impl Kernel {
    /// `phase/name`, as areas name it.
    pub fn label(&self) -> String {
        if self.phase.is_empty() { self.name.clone() } else { format!("{}/{}", self.phase, self.name) }
    }
}

/// A trace, and the time of a step of the same process.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedRun {
    /// The kernels.
    pub trace: Trace,
    /// Mean wall time of a traced step; `None` where the records have none.
    pub step_ms: Option<f64>,
}

/// Larger numbers are not measurements, and sums of smaller numbers stay finite.
const LARGEST: f64 = 1e30;

/// Reads `{"steps":…,"kernels":[{"name","phase","calls","time_ms","flops","bytes"}…]}`; other keys are
/// ignored, and rows of the same phase and name are added.
pub fn parse_kernels(json: &[u8]) -> Result<Trace, LoopError> {
    #[derive(Deserialize)]
    struct File {
        steps: u64,
        kernels: Vec<Kernel>,
    }
    let wrong = |what: String| {
        LoopError::failed(format!("the trace of the kernels cannot be used: {what}")).hint(
            "`[trace]` of `loop.toml` names the file; a row has `name`, `phase`, `calls`, `time_ms`, `flops`, `bytes`",
        )
    };
    let file: File = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    if file.steps == 0 {
        return Err(wrong("`steps` is 0: no step was traced".to_owned()));
    }
    let mut kernels: BTreeMap<(String, String), Kernel> = BTreeMap::new();
    for kernel in file.kernels {
        for (name, value) in [
            ("time_ms", Some(kernel.time_ms)),
            ("calls", kernel.calls),
            ("flops", kernel.flops),
            ("bytes", kernel.bytes),
        ] {
            if value.is_some_and(|value| !(0.0..=LARGEST).contains(&value)) {
                return Err(wrong(format!(
                    "`{name}` of `{}` is {}; it can be 0 to {LARGEST:e}",
                    kernel.label(),
                    value.unwrap_or_default()
                )));
            }
        }
        let key = (kernel.phase.clone(), kernel.name.clone());
        match kernels.get_mut(&key) {
            None => {
                kernels.insert(key, kernel);
            }
            Some(known) => {
                let sum = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
                known.time_ms += kernel.time_ms;
                known.calls = sum(known.calls, kernel.calls);
                known.flops = sum(known.flops, kernel.flops);
                known.bytes = sum(known.bytes, kernel.bytes);
            }
        }
    }
    Ok(Trace { steps: file.steps, kernels: kernels.into_values().collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_read_and_equal_names_added() {
        let json = br#"{"steps":2,"more":[],"kernels":[
            {"name":"linear","phase":"fwd","calls":4,"time_ms":1.5,"thread_ms":3.0,"flops":100,"bytes":8},
            {"name":"linear","phase":"bwd","calls":2,"time_ms":1.0,"flops":50,"bytes":4},
            {"name":"linear","phase":"fwd","calls":4,"time_ms":0.5,"flops":null,"bytes":8},
            {"name":"alone","time_ms":0}]}"#;
        let trace = parse_kernels(json).unwrap();
        let labels: Vec<String> = trace.kernels.iter().map(Kernel::label).collect();
        assert_eq!(labels, ["alone", "bwd/linear", "fwd/linear"]);
        let linear = &trace.kernels[2];
        assert_eq!((linear.time_ms, linear.calls, linear.flops, linear.bytes), (2.0, Some(8.0), None, Some(16.0)));
        assert_eq!((trace.steps, trace.kernels[0].calls), (2, None));
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for (json, named) in [
            ("", "EOF"),
            (r#"{"steps":0,"kernels":[]}"#, "`steps` is 0"),
            (r#"{"kernels":[]}"#, "steps"),
            (r#"{"steps":1,"kernels":[{"phase":"fwd","time_ms":1}]}"#, "name"),
            (r#"{"steps":1,"kernels":[{"name":"a","phase":"fwd"}]}"#, "time_ms"),
            (r#"{"steps":1,"kernels":[{"name":"a","phase":"fwd","time_ms":-1}]}"#, "`time_ms` of `fwd/a` is -1"),
            (r#"{"steps":1,"kernels":[{"name":"a","time_ms":1,"bytes":1e31}]}"#, "`bytes` of `a`"),
            (r#"{"steps":1,"kernels":[{"name":"a","time_ms":null}]}"#, "null"),
        ] {
            let error = parse_kernels(json.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_kernels(&bytes);
        }

        #[test]
        fn any_damage_is_read_or_refused(at in 0usize..100, byte in any::<u8>(), cut in 0usize..100) {
            let mut json = br#"{"steps":2,"kernels":[{"name":"linear","phase":"fwd","calls":4,"time_ms":1.5e1}]}"#.to_vec();
            let len = json.len();
            json[at % len] = byte;
            json.truncate(len - cut % 4);
            if let Ok(trace) = parse_kernels(&json) {
                prop_assert!(trace.steps > 0);
                prop_assert!(trace.kernels.iter().all(|kernel| kernel.time_ms >= 0.0));
            }
        }
    }
}
