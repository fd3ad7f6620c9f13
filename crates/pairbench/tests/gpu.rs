//! NVML through a stand-in library, compiled here: two cards, one of them hot.

use std::{fs, process::Command};

use pairbench::gpu::Gpus;

const STAND_IN: &str = include_str!("nvml_stand_in.c");

#[test]
fn cards_are_read_through_the_management_library() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("nvml.c");
    fs::write(&source, STAND_IN).unwrap();
    let library = root.path().join("libnvidia-ml.so.1");
    let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let gpus = Gpus::open(&library).unwrap();
    assert_eq!(gpus.cards(), ["Stand-in 0, driver 570.00", "Stand-in 1, driver 570.00"]);
    let [cool, hot] = &gpus.sample()[..] else { panic!("{:?}", gpus.sample()) };
    assert_eq!((cool.card, cool.sm_clock_mhz, cool.memory_clock_mhz), (0, Some(1980), Some(2619)));
    assert_eq!((cool.temperature_c, cool.power_limit_w), (Some(41), Some(700.0)));
    assert!(cool.slowdowns.is_empty() && cool.is_at_power_limit && cool.processes.is_empty());
    assert_eq!(hot.slowdowns, ["hardware slowdown", "thermal slowdown by hardware"]);
    assert_eq!((hot.memory_errors, hot.temperature_c, hot.processes.as_slice()), (Some(3), Some(91), &[4242][..]));
    // A file that is not the library is none.
    assert!(Gpus::open(&source).is_none() && Gpus::open(&root.path().join("nothing")).is_none());
}
