//! NVIDIA cards as their management library (NVML) shows them: found at run time where a driver is, never needed.
//!
//! A sample is taken after each timed turn, when the trainer has been stopped. Clocks, temperature and power limit are only recorded;
//! [`disturbance`] has the rules by which a pair is void.

use std::{collections::BTreeSet, ffi::OsStr, path::Path, sync::LazyLock};

use nvml_wrapper::{
    Device, Nvml,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor},
};
use serde::{Deserialize, Serialize};

use crate::Arm;

/// Slowdowns by heat or a power supply, which the trainer did not ask for, and their names.
const SLOWDOWNS: [(ThrottleReasons, &str); 4] = [
    (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal slowdown by hardware"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal slowdown by software"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
];

/// A pair is void where an arm was slowed down in this share of its turns more than the other.
const UNEQUAL_SHARE: f64 = 0.25;

/// The library.
#[derive(Debug)]
pub struct Gpus(Nvml);

/// A card at one moment. What the driver does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Its index.
    pub card: u32,
    /// Clock of its multiprocessors.
    pub sm_clock_mhz: Option<u32>,
    /// Clock of its memory.
    pub memory_clock_mhz: Option<u32>,
    /// Temperature of the chip.
    pub temperature_c: Option<u32>,
    /// The power limit that is in force.
    pub power_limit_w: Option<f64>,
    /// Whether the power limit holds its clocks down.
    pub is_at_power_limit: bool,
    /// Slowdowns by heat or a power supply.
    pub slowdowns: Vec<String>,
    /// Memory errors that were not corrected, since the driver was loaded.
    pub memory_errors: Option<u64>,
    /// Processes that compute on it.
    pub processes: Vec<u32>,
}

impl Gpus {
    /// The library of this machine, opened once; `None` where it cannot be loaded or the driver does not answer.
    pub fn of_this_machine() -> Option<&'static Gpus> {
        static GPUS: LazyLock<Option<Gpus>> = LazyLock::new(|| Nvml::init().ok().map(Gpus));
        GPUS.as_ref()
    }

    /// The library at a path; `None` if the file is not this library.
    pub fn open(library: &Path) -> Option<Gpus> {
        Nvml::builder().lib_path(OsStr::new(library)).init().ok().map(Gpus)
    }

    /// The cards' names, with the version of the driver.
    pub fn cards(&self) -> Vec<String> {
        let driver = self.0.sys_driver_version().unwrap_or_else(|_| "unknown".to_owned());
        self.devices().map(|device| format!("{}, driver {driver}", device.name().unwrap_or_default())).collect()
    }

    /// All cards now.
    pub fn sample(&self) -> Vec<GpuSample> {
        self.devices().zip(0..).map(|(device, card)| sample(&device, card)).collect()
    }

    fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.0.device_count().unwrap_or(0)).filter_map(|index| self.0.device_by_index(index).ok())
    }
}

fn sample(device: &Device<'_>, card: u32) -> GpuSample {
    let reasons = device.current_throttle_reasons().unwrap_or(ThrottleReasons::empty());
    let is_slowed = |(reason, _): &&(ThrottleReasons, &str)| reasons.contains(*reason);
    GpuSample {
        card,
        sm_clock_mhz: device.clock_info(Clock::SM).ok(),
        memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
        temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
        power_limit_w: device.enforced_power_limit().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
        is_at_power_limit: reasons.contains(ThrottleReasons::SW_POWER_CAP),
        slowdowns: SLOWDOWNS.iter().filter(is_slowed).map(|(_, name)| (*name).to_owned()).collect(),
        memory_errors: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        processes: device
            .running_compute_processes()
            .map(|all| all.into_iter().map(|process| process.pid).collect())
            .unwrap_or_default(),
    }
}

/// What makes a pair void, and the arm that it counts against; from the samples of both arms' turns, by [`Arm::index`].
/// In the turns of one arm a card was slowed down more often than in the other's, its memory failed, or a process began
/// to compute on it that is neither arm's. A slowdown counts against the arm in whose turns it was, because the arm may
/// have caused it. The other two count against the baseline, as all that the candidate did not do.
pub fn disturbance(samples: [&[GpuSample]; 2], is_own: impl Fn(u32) -> bool) -> Option<(Arm, String)> {
    let cards: BTreeSet<u32> = samples.iter().flat_map(|arm| arm.iter().map(|sample| sample.card)).collect();
    cards.into_iter().find_map(|card| {
        let of_card = samples.map(|arm| arm.iter().filter(|sample| sample.card == card).collect::<Vec<_>>());
        slowed(card, &of_card).or_else(|| spoiled(card, &of_card, &is_own))
    })
}

fn slowed(card: u32, samples: &[Vec<&GpuSample>; 2]) -> Option<(Arm, String)> {
    let share = |arm: &Vec<&GpuSample>| {
        let slowed = arm.iter().filter(|sample| !sample.slowdowns.is_empty()).count();
        slowed as f64 / arm.len().max(1) as f64
    };
    let shares = samples.each_ref().map(share);
    if (shares[0] - shares[1]).abs() < UNEQUAL_SHARE {
        return None;
    }
    let arm = if shares[0] > shares[1] { Arm::Baseline } else { Arm::Candidate };
    let reasons: BTreeSet<&str> =
        samples[arm.index()].iter().flat_map(|sample| &sample.slowdowns).map(String::as_str).collect();
    let reasons = reasons.into_iter().collect::<Vec<_>>().join(", ");
    let why = format!("had card {card} slowed down ({reasons}) more often than in the other's turns");
    Some((arm, why))
}

fn spoiled(card: u32, samples: &[Vec<&GpuSample>; 2], is_own: impl Fn(u32) -> bool) -> Option<(Arm, String)> {
    let of_baseline = |why: String| Some((Arm::Baseline, why));
    let first = samples.iter().filter_map(|arm| arm.first());
    let known: BTreeSet<u32> = first.flat_map(|sample| sample.processes.iter().copied()).collect();
    for arm in Arm::BOTH {
        let own = &samples[arm.index()];
        let Some(first) = own.first() else { continue };
        if first.memory_errors.is_some() && own.iter().any(|sample| sample.memory_errors > first.memory_errors) {
            return of_baseline(format!("was disturbed: memory of card {card} failed in the {}'s turns", arm.name()));
        }
        let all = own.iter().flat_map(|sample| &sample.processes);
        if let Some(pid) = all.copied().find(|pid| !known.contains(pid) && !is_own(*pid)) {
            return of_baseline(format!("was disturbed: another process ({pid}) began to compute on card {card}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm(processes: &[u32]) -> GpuSample {
        GpuSample { memory_errors: Some(2), processes: processes.to_vec(), ..GpuSample::default() }
    }

    fn hot() -> GpuSample {
        GpuSample { slowdowns: vec!["power brake".to_owned()], ..calm(&[7]) }
    }

    #[test]
    fn what_falls_on_one_arm_makes_a_pair_void() {
        let steady = vec![calm(&[7, 8]); 8];
        let found =
            |baseline: &[GpuSample], candidate: &[GpuSample]| disturbance([baseline, candidate], |pid| pid == 7);
        assert_eq!(found(&steady, &steady), None);
        assert_eq!(found(&[], &[]), None);
        // One turn of eight is luck, and so is a slowdown of both.
        let mut once = steady.clone();
        once[3] = hot();
        assert_eq!(found(&steady, &once), None);
        assert_eq!(found(&vec![hot(); 8], &vec![hot(); 8]), None);
        let (arm, why) = found(&steady, &vec![hot(); 8]).unwrap();
        assert!(arm == Arm::Candidate && why.contains("power brake"), "{why}");
        let mut failing = steady.clone();
        failing[5].memory_errors = Some(3);
        assert!(found(&failing, &steady).is_some_and(|(_, why)| why.contains("memory of card 0")));
        // A process that was there all the time is the doctor's affair; one that begins is not.
        let mut joined = steady.clone();
        joined[6].processes.push(9);
        let (arm, why) = found(&steady, &joined).unwrap();
        assert!(arm == Arm::Baseline && why.contains("(9)"), "{why}");
    }

    #[test]
    fn each_card_is_compared_with_itself() {
        let two = |second: GpuSample| {
            (0..8).flat_map(|_| [calm(&[7]), GpuSample { card: 1, ..second.clone() }]).collect::<Vec<_>>()
        };
        let found =
            |baseline: &[GpuSample], candidate: &[GpuSample]| disturbance([baseline, candidate], |pid| pid == 7);
        // Somebody computes on the second card all the time.
        assert_eq!(found(&two(calm(&[9])), &two(calm(&[9]))), None);
        assert!(found(&two(calm(&[])), &two(hot())).is_some_and(|(_, why)| why.contains("card 1")));
    }
}
