//! NVIDIA cards.

use super::{Finding, Probes, Rule, Severity};

pub(super) const RULES: [Rule; 5] = [slowdown, power_limit, processes, memory_errors, unseen];

/// The driver is loaded, and its library shows no card.
fn unseen(probes: &Probes) -> Option<Finding> {
    let driver = probes.machine.gpu_drivers.iter().find(|driver| driver.starts_with("nvidia"))?;
    probes.gpus.is_empty().then(|| Finding {
        what: "GPUs that could not be looked at",
        found: format!("the driver `{driver}` is loaded, and its management library (libnvidia-ml.so.1) shows no card"),
        why_it_matters: "nobody sees whether a card is slowed down, or used by others",
        what_to_do: "install the library of the driver's version; `nvidia-smi` needs it too",
        severity: Severity::Warning,
    })
}

fn slowdown(probes: &Probes) -> Option<Finding> {
    let slowed = probes.gpus.iter().find(|gpu| !gpu.slowdowns.is_empty())?;
    let degrees = slowed.temperature_c.map_or_else(String::new, |degrees| format!(" at {degrees} C"));
    Some(Finding {
        what: "a slowed GPU",
        found: format!("card {}: {}{degrees}", slowed.card, slowed.slowdowns.join(", ")),
        why_it_matters: "the card halves its clock when it is too hot or its power fails, in the turns of one trainer or the other",
        what_to_do: "cool it, lower the power limit (`nvidia-smi -pl`), or lock the clocks (`nvidia-smi -lgc`)",
        severity: Severity::Severe,
    })
}

fn power_limit(probes: &Probes) -> Option<Finding> {
    let limited = probes.gpus.iter().find(|gpu| gpu.is_at_power_limit)?;
    let watts = limited.power_limit_w.map_or_else(String::new, |watts| format!(" of {watts:.0} W"));
    Some(Finding {
        what: "a GPU at its power limit",
        found: format!("card {} is held down by its limit{watts} while nothing is measured", limited.card),
        why_it_matters: "its clock then depends on what is computed, and on the temperature",
        what_to_do: "lock the clocks below the limit (`nvidia-smi -lgc`)",
        severity: Severity::Warning,
    })
}

fn processes(probes: &Probes) -> Option<Finding> {
    let used = probes.gpus.iter().find(|gpu| !gpu.processes.is_empty())?;
    let pids: Vec<String> = used.processes.iter().map(u32::to_string).collect();
    Some(Finding {
        what: "other work on a GPU",
        found: format!("card {} has processes that compute: {}", used.card, pids.join(", ")),
        why_it_matters: "they take turns with the trainers, and memory from them",
        what_to_do: "end them, or wait until they are done",
        severity: Severity::Severe,
    })
}

fn memory_errors(probes: &Probes) -> Option<Finding> {
    let failing = probes.gpus.iter().find(|gpu| gpu.memory_errors > Some(0))?;
    Some(Finding {
        what: "memory errors of a GPU",
        found: format!("card {}: {} that were not corrected", failing.card, failing.memory_errors.unwrap_or_default()),
        why_it_matters: "what it computed then is not what the program says",
        what_to_do: "have the card looked at",
        severity: Severity::Severe,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pairbench::gpu::GpuSample;

    #[test]
    fn a_driver_without_its_library_is_told() {
        let mut probes = Probes::default();
        assert!(unseen(&probes).is_none());
        probes.machine.gpu_drivers = vec!["nvidia 570.00".to_owned()];
        assert!(unseen(&probes).is_some_and(|finding| finding.found.contains("570.00")));
        probes.gpus = vec![GpuSample::default()];
        assert!(unseen(&probes).is_none());
    }

    #[test]
    fn each_disturbance_is_found() {
        let found = |gpu: GpuSample| {
            let probes = Probes { gpus: vec![GpuSample::default(), GpuSample { card: 1, ..gpu }], ..Probes::default() };
            RULES.iter().filter_map(|rule| rule(&probes)).map(|finding| finding.what).collect::<Vec<_>>()
        };
        assert!(found(GpuSample { memory_errors: Some(0), ..GpuSample::default() }).is_empty());
        assert_eq!(
            found(GpuSample { slowdowns: vec!["power brake".into()], ..GpuSample::default() }),
            ["a slowed GPU"]
        );
        assert_eq!(found(GpuSample { is_at_power_limit: true, ..GpuSample::default() }), ["a GPU at its power limit"]);
        assert_eq!(found(GpuSample { processes: vec![3], ..GpuSample::default() }), ["other work on a GPU"]);
        assert_eq!(found(GpuSample { memory_errors: Some(1), ..GpuSample::default() }), ["memory errors of a GPU"]);
    }
}
