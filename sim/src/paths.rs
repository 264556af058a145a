//! Which values of an experiment name files: these are relative to the file that names them, those of `--set` to the shell's folder.

use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::profile;
use moesim_hwmodels::hardware;
use moesim_traces::model;
use std::path::Path;

/// Makes the file names in `value`, which is given for the dotted key `key`, those of files in `folder`.
///
/// # Errors
/// No current folder.
pub(crate) fn anchor(key: &[String], value: &mut toml::Value, folder: &Path) -> Result<()> {
    match value {
        toml::Value::Table(table) => {
            for (k, v) in table.iter_mut() {
                anchor(&[key, std::slice::from_ref(k)].concat(), v, folder)?;
            }
        }
        toml::Value::String(text) if names_file(&key.join("."), text, folder) => {
            *text = absolute(&folder.join(&*text))?
        }
        _ => {}
    }
    Ok(())
}

/// A path that means the same from every folder.
///
/// # Errors
/// No current folder.
pub(crate) fn absolute(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).map_err(|e| Diag::cannot_read(path, &e))?;
    Ok(path.display().to_string())
}

/// Whether this value of this key is a file, and not the name of what ships.
fn names_file(key: &str, text: &str, folder: &Path) -> bool {
    let path = |ships: bool| !ships && (text.contains('/') || text.ends_with(".toml") || folder.join(text).is_file());
    match key {
        "workload.arrivals.path" | "workload.routing.path" => true,
        "policy.placement" => is_placement_file(text),
        "model" => path(model::preset_text(text).is_some()),
        "hardware" => path(hardware::preset_text(text).is_some()),
        "hardware.device.profile" => path(profile_ships(text)),
        _ => false,
    }
}

/// Whether `policy.placement` is a file: methods are plain words.
pub(crate) fn is_placement_file(text: &str) -> bool {
    text.contains(['.', '/', std::path::MAIN_SEPARATOR])
}

/// Whether a profile of this name is inside the binary.
pub(crate) fn profile_ships(name: &str) -> bool {
    profile::presets().iter().any(|p| p.0 == name)
}

/// Whether two ways to name a folder are the same one.
pub(crate) fn same_folder(a: &Path, b: &Path) -> bool {
    let named = |p: &Path| std::path::absolute(if p.as_os_str().is_empty() { Path::new(".") } else { p }).ok();
    a == b || named(a).is_some_and(|a| named(b).is_some_and(|b| a == b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_and_presets_stay() {
        let folder = Path::new("/data/x");
        let of = |key: &str, value: &str| {
            let mut value: toml::Value = format!("v = {value}").parse::<toml::Table>().unwrap()["v"].clone();
            let key: Vec<String> = key.split('.').map(str::to_string).collect();
            anchor(&key, &mut value, folder).unwrap();
            value.to_string()
        };
        assert_eq!(of("hardware", "'h100-8'"), "\"h100-8\"");
        assert_eq!(of("hardware", "'mine.toml'"), "\"/data/x/mine.toml\"");
        assert_eq!(of("hardware", "'h10-8'"), "\"h10-8\"");
        assert_eq!(of("model", "'/else/m.toml'"), "\"/else/m.toml\"");
        assert_eq!(of("policy.placement", "'round-robin'"), "\"round-robin\"");
        assert_eq!(of("policy.placement", "'./p.json'"), "\"/data/x/p.json\"");
        assert_eq!(of("name", "'a/b.toml'"), "\"a/b.toml\"");
        assert!(of("workload", "{ routing = { kind = 'trace', path = 't' } }").contains("\"/data/x/t\""));
    }
}
