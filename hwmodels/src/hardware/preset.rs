//! Presets inside the binary.

/// A named hardware file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name, as given to `Hardware::load`.
    pub name: &'static str,
    /// Its TOML text.
    pub text: &'static str,
}

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../presets/", $name, ".toml")) }),*]
    };
}

static PRESETS: &[Preset] = embed![
    "a100-8",
    "h100-8",
    "h100-2x8",
    "h800-8",
    "h800-2x8",
    "h200-8",
    "h200-2x8",
    "h20-8",
    "h20-2x8",
    "b200-8",
    "b200-2x8",
    "b300-8",
    "b300-2x8",
    "gb200-nvl72",
    "mi300x-8",
    "rtx4090-offload",
    "rtx-pro-6000-2",
    "l40s-8",
    "duplex-1",
    "duplex-4",
    "wafer-5x5",
    "tsmc-sow-3x8",
    "dojo-enhanced-5x5",
    "cloudmatrix384",
];

/// Every preset, in the order that people should see.
pub fn presets() -> &'static [Preset] {
    PRESETS
}

/// The TOML text of a preset.
pub fn preset_text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|p| p.name == name).map(|p| p.text)
}
