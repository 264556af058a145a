//! The models that ship inside the binary.

/// A model file that ships inside the binary.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// The TOML text.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../presets/", $name, ".toml")) }),*]
    };
}

/// All presets, by name.
pub fn presets() -> &'static [Preset] {
    presets![
        "dbrx",
        "deepseek-r1",
        "deepseek-v2-lite",
        "deepseek-v3",
        "glam-143b",
        "gpt-oss-120b",
        "gpt-oss-20b",
        "grok-1",
        "jetmoe-8b",
        "kimi-k2",
        "llama-4-maverick",
        "mixtral-8x22b",
        "mixtral-8x7b",
        "nllb-moe-54b",
        "olmoe-1b-7b",
        "phi-3.5-moe",
        "qwen1.5-moe-a2.7b",
        "qwen2-57b-a14b",
        "qwen3-235b-a22b",
        "qwen3-30b-a3b",
        "switch-large-128",
    ]
}

/// The text of a preset.
pub fn preset_text(name: &str) -> Option<&'static str> {
    presets().iter().find(|p| p.name == name).map(|p| p.text)
}
