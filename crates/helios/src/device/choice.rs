//! Choosing one of the devices.

use super::{DeviceInfo, DeviceKind, HeliosError, devices};

/// Which device to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A discrete GPU, else an integrated one, else any; a software device last.
    #[default]
    Best,
    /// By its number, or by a part of its name in any case.
    Named(String),
}

/// The device that a choice means. It is not opened.
pub fn find(choice: &DeviceChoice) -> Result<DeviceInfo, HeliosError> {
    let found = devices();
    let info = found[choose(&found, choice)?].clone();
    info.can_run()?;
    Ok(info)
}

/// The index of the chosen device in the list.
pub(super) fn choose(found: &[DeviceInfo], choice: &DeviceChoice) -> Result<usize, HeliosError> {
    let names = |devices: &[&DeviceInfo]| {
        let named = devices.iter().map(|device| format!("{} `{}`", device.index, device.name));
        named.collect::<Vec<_>>().join(", ")
    };
    if found.is_empty() {
        return Err(HeliosError::NoDevice);
    }
    let asked = match choice {
        DeviceChoice::Best => {
            let rank = |device: &DeviceInfo| match device.kind {
                _ if device.lacks.is_some() => 5,
                DeviceKind::Discrete => 0,
                DeviceKind::Integrated => 1,
                DeviceKind::Virtual => 2,
                DeviceKind::Unknown => 3,
                DeviceKind::Software => 4,
            };
            return Ok(found.iter().min_by_key(|device| (rank(device), device.index)).map_or(0, |device| device.index));
        }
        DeviceChoice::Named(asked) => asked,
    };
    let part = asked.to_lowercase();
    let is_meant = |device: &&DeviceInfo| match asked.parse::<usize>() {
        Ok(index) => device.index == index,
        Err(_) => !part.trim().is_empty() && device.name.to_lowercase().contains(&part),
    };
    let fitting: Vec<&DeviceInfo> = found.iter().filter(is_meant).collect();
    match fitting[..] {
        [device] => Ok(device.index),
        [] => {
            let all: Vec<&DeviceInfo> = found.iter().collect();
            Err(HeliosError::NoSuchDevice { asked: asked.clone(), found: names(&all) })
        }
        _ => Err(HeliosError::Ambiguous { asked: asked.clone(), found: names(&fitting) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: usize, name: &str, kind: DeviceKind) -> DeviceInfo {
        DeviceInfo {
            index,
            name: name.into(),
            kind,
            api: "vulkan".into(),
            driver: "test 1".into(),
            subgroup: (32, 32),
            features: Vec::new(),
            matrix_size: None,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: 1 << 15,
            memory_bytes: None,
            lacks: None,
        }
    }

    fn three() -> Vec<DeviceInfo> {
        vec![
            device(0, "llvmpipe", DeviceKind::Software),
            device(1, "Intel Iris", DeviceKind::Integrated),
            device(2, "Intel Arc", DeviceKind::Discrete),
        ]
    }

    #[test]
    fn a_card_comes_before_the_processor_and_software_last() {
        let mut found = three();
        assert_eq!(choose(&found, &DeviceChoice::Best), Ok(2));
        found[2].lacks = Some("everything".into());
        assert_eq!(choose(&found, &DeviceChoice::Best), Ok(1));
        assert_eq!(choose(&found[..1], &DeviceChoice::Best), Ok(0));
    }

    #[test]
    fn numbers_and_parts_of_names_choose() {
        let found = three();
        let named = |text: &str| choose(&found, &DeviceChoice::Named(text.into()));
        assert_eq!(named("1"), Ok(1));
        assert_eq!(named("ARC"), Ok(2));
        assert!(matches!(named("intel"), Err(HeliosError::Ambiguous { .. })));
        assert!(matches!(named("3"), Err(HeliosError::NoSuchDevice { .. })));
        assert!(matches!(named("radeon"), Err(HeliosError::NoSuchDevice { .. })));
        assert_eq!(choose(&[], &DeviceChoice::Best), Err(HeliosError::NoDevice));
    }
}
