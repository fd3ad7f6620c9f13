//! Identifies the machine, so that measurements of different machines are never compared.
//!
//! Read from Linux's `/proc` and `/sys`; on other systems, and where the system does not say, a field is `None`.
//! Nothing here names a host, a user or a path. [`Machine::fingerprint`] covers what stays the same across reboots.
//! Kernel, driver and microcode are not in it, because they change on the same machine: code that keeps a measurement
//! compares them separately.

use std::{env::consts, fs, num::NonZero, path::Path, thread::available_parallelism};

use pairbench::gpu::Gpus;
use serde::{Deserialize, Serialize};

/// A machine and its system.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name for itself.
    pub cpu_model: Option<String>,
    /// `x86_64`, `aarch64` …
    pub architecture: String,
    /// Logical processors that are online, whether this process may use them or not.
    pub cores: usize,
    /// Physical memory.
    pub memory_bytes: Option<u64>,
    /// The distribution, or the family of the system.
    pub os: String,
    /// Version of the kernel.
    pub kernel_release: Option<String>,
    /// Version of the processor's microcode.
    pub microcode: Option<String>,
    /// How processor 0 chooses its frequency.
    pub governor: Option<String>,
    /// The hypervisor, by name if it has one; `None` on bare metal.
    pub virtualisation: Option<String>,
    /// Kernel modules of GPUs, with their versions.
    pub gpu_drivers: Vec<String>,
    /// NVIDIA cards by name, with the version of their driver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_cards: Vec<String>,
}

impl Machine {
    /// Reads this machine.
    pub fn read() -> Machine {
        let text = |path: &str| fs::read_to_string(path).ok();
        let drivers = ["nvidia", "amdgpu", "i915", "xe"].into_iter().filter_map(|module| {
            let folder = Path::new("/sys/module").join(module);
            let version = fs::read_to_string(folder.join("version")).ok().and_then(|text| line(&text));
            folder.exists().then(|| version.map_or(module.to_owned(), |version| format!("{module} {version}")))
        });
        Machine {
            gpu_drivers: drivers.collect(),
            gpu_cards: Gpus::of_this_machine().map(Gpus::cards).unwrap_or_default(),
            ..Machine::from_texts(&Texts {
                cpuinfo: text("/proc/cpuinfo"),
                meminfo: text("/proc/meminfo"),
                os_release: text("/etc/os-release").or_else(|| text("/usr/lib/os-release")),
                kernel_release: text("/proc/sys/kernel/osrelease"),
                governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
                hypervisor: text("/sys/hypervisor/type"),
                system_vendor: text("/sys/class/dmi/id/sys_vendor"),
            })
        }
    }

    fn from_texts(texts: &Texts) -> Machine {
        let cpuinfo = texts.cpuinfo.as_deref().unwrap_or_default();
        let processors = cpuinfo.lines().filter(|line| key_of(line) == "processor").count();
        let is_guest =
            raw_value_of(cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        let hypervisor = texts.hypervisor.as_deref().and_then(line);
        let vendor = texts.system_vendor.as_deref().and_then(line);
        let part = || {
            let parts = ["CPU implementer", "CPU part"].map(|key| value_of(cpuinfo, key));
            let [Some(implementer), Some(part)] = parts else { return None };
            Some(format!("implementer {implementer} part {part}"))
        };
        Machine {
            cpu_model: ["model name", "Model", "cpu model", "cpu"]
                .iter()
                .find_map(|key| value_of(cpuinfo, key))
                .or_else(part),
            architecture: consts::ARCH.to_owned(),
            cores: if processors > 0 { processors } else { available_parallelism().map_or(1, NonZero::get) },
            memory_bytes: texts.meminfo.as_deref().and_then(total_memory_bytes),
            os: texts.os_release.as_deref().and_then(os_name).unwrap_or_else(|| consts::OS.to_owned()),
            kernel_release: texts.kernel_release.as_deref().and_then(line),
            microcode: value_of(cpuinfo, "microcode"),
            governor: texts.governor.as_deref().and_then(line),
            virtualisation: hypervisor
                .or_else(|| is_guest.then(|| vendor.unwrap_or_else(|| "a hypervisor".to_owned()))),
            gpu_drivers: Vec::new(),
            gpu_cards: Vec::new(),
        }
    }

    /// 16 hexadecimal digits that change only with processor, memory (in whole GiB) or hypervisor.
    pub fn fingerprint(&self) -> String {
        // Rounded up: the kernel reserves some per cent of the memory, each version a different amount.
        let gib = self.memory_bytes.map(|bytes| bytes.div_ceil(1 << 30));
        let stable =
            format!("{:?}", (&self.cpu_model, &self.architecture, self.cores, gib, &self.virtualisation, consts::OS));
        blake3::hash(stable.as_bytes()).to_hex()[..16].to_owned()
    }
}

/// The texts of the system; `None` where a file is missing.
#[derive(Clone, Debug, Default)]
struct Texts {
    cpuinfo: Option<String>,
    meminfo: Option<String>,
    os_release: Option<String>,
    kernel_release: Option<String>,
    governor: Option<String>,
    hypervisor: Option<String>,
    system_vendor: Option<String>,
}

/// The first line that is not empty, without control characters and cut to a sensible length.
fn line(text: &str) -> Option<String> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(first.chars().filter(|c| !c.is_control()).take(200).collect())
}

fn key_of(line: &str) -> &str {
    line.split_once(':').map_or("", |(key, _)| key.trim())
}

/// Value of the first line `key : value`, as it stands.
fn raw_value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find(|line| key_of(line) == key).and_then(|line| line.split_once(':')).map(|(_, value)| value)
}

fn value_of(text: &str, key: &str) -> Option<String> {
    raw_value_of(text, key).and_then(line)
}

fn total_memory_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = value_of(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn os_name(os_release: &str) -> Option<String> {
    let quoted = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    line(quoted.trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nmicrocode\t: 0x1000065\n\
        flags\t\t: fpu vme hypervisor avx2\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n";

    fn guest() -> Texts {
        Texts {
            cpuinfo: Some(CPUINFO.into()),
            meminfo: Some("MemTotal:       24684092 kB\nMemFree: 1 kB\n".into()),
            os_release: Some("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n".into()),
            kernel_release: Some("6.1.0-13-amd64\n".into()),
            governor: Some("schedutil\n".into()),
            hypervisor: None,
            system_vendor: Some("QEMU\n".into()),
        }
    }

    #[test]
    fn a_linux_guest_is_read() {
        let machine = Machine::from_texts(&guest());
        assert_eq!(machine.cpu_model.as_deref(), Some("AMD EPYC"));
        assert_eq!((machine.cores, machine.memory_bytes), (2, Some(24_684_092 * 1024)));
        assert_eq!(machine.os, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(machine.kernel_release.as_deref(), Some("6.1.0-13-amd64"));
        assert_eq!(machine.microcode.as_deref(), Some("0x1000065"));
        assert_eq!(machine.governor.as_deref(), Some("schedutil"));
        assert_eq!(machine.virtualisation.as_deref(), Some("QEMU"));
    }

    #[test]
    fn bare_metal_other_processors_and_other_systems() {
        let metal = Texts { cpuinfo: Some(CPUINFO.replace(" hypervisor", "")), ..guest() };
        assert_eq!(Machine::from_texts(&metal).virtualisation, None);
        let xen = Texts { hypervisor: Some("xen\n".into()), ..metal };
        assert_eq!(Machine::from_texts(&xen).virtualisation.as_deref(), Some("xen"));
        let arm = Texts {
            cpuinfo: Some("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n".into()),
            ..Texts::default()
        };
        assert_eq!(Machine::from_texts(&arm).cpu_model.as_deref(), Some("implementer 0x41 part 0xd0c"));
        let unknown = Machine::from_texts(&Texts::default());
        assert_eq!((unknown.cpu_model, unknown.memory_bytes, unknown.kernel_release), (None, None, None));
        assert_eq!(unknown.os, consts::OS);
        assert!(unknown.cores >= 1);
    }

    #[test]
    fn the_fingerprint_is_of_what_stays() {
        let fingerprint = |change: fn(&mut Machine)| {
            let mut machine = Machine::from_texts(&guest());
            change(&mut machine);
            machine.fingerprint()
        };
        let same = fingerprint(|_| ());
        assert!(same.len() == 16 && same.chars().all(|c| c.is_ascii_hexdigit()), "{same}");
        assert_eq!(fingerprint(|machine| machine.kernel_release = None), same);
        assert_eq!(fingerprint(|machine| machine.governor = Some("performance".into())), same);
        assert_eq!(fingerprint(|machine| machine.memory_bytes = Some(24_700_000 * 1024)), same, "a newer kernel");
        assert_ne!(fingerprint(|machine| machine.memory_bytes = Some(32 << 30)), same);
        assert_ne!(fingerprint(|machine| machine.cores = 4), same);
        assert_ne!(fingerprint(|machine| machine.cpu_model = Some("AMD EPYC 2".into())), same);
        assert_ne!(fingerprint(|machine| machine.virtualisation = None), same);
    }

    #[test]
    fn this_machine_is_read_the_same_twice() {
        let machine = Machine::read();
        assert!(machine.cores >= 1);
        assert_eq!(machine.fingerprint(), Machine::read().fingerprint());
        let json = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&json).unwrap(), machine);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*|[\\x00-\\xff]*", number in any::<u64>()) {
            let texts = |text: &str| Some(text.to_owned());
            let machine = Machine::from_texts(&Texts {
                cpuinfo: texts(&text),
                meminfo: Some(format!("MemTotal: {number} kB")),
                os_release: Some(format!("PRETTY_NAME={text}")),
                kernel_release: texts(&text),
                governor: texts(&text),
                hypervisor: texts(&text),
                system_vendor: texts(&text),
            });
            prop_assert!(machine.cores >= 1);
            prop_assert_eq!(machine.memory_bytes, number.checked_mul(1024));
            for found in [&machine.kernel_release, &machine.governor, &machine.cpu_model].into_iter().flatten() {
                prop_assert!(!found.chars().any(char::is_control) && found.chars().count() <= 200);
            }
        }
    }
}
