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
        "ernie-4.5-21b-a3b",
        "glam-143b",
        "glm-4.5",
        "glm-4.5-air",
        "gpt-oss-120b",
        "gpt-oss-20b",
        "granite-3.1-3b-a800m",
        "grok-1",
        "hunyuan-a13b",
        "jetmoe-8b",
        "kimi-k2",
        "kimi-k2.5",
        "ling-mini-2.0",
        "llama-3.1-8b",
        "llama-4-maverick",
        "minimax-m2",
        "minimax-m2.5",
        "mixtral-8x22b",
        "mixtral-8x7b",
        "nllb-moe-54b",
        "olmoe-1b-7b",
        "phi-3.5-moe",
        "qwen1.5-moe-a2.7b",
        "qwen2-57b-a14b",
        "qwen3-235b-a22b",
        "qwen3-30b-a3b",
        "qwen3-8b",
        "qwen3-coder-480b-a35b",
        "switch-large-128",
    ]
}

/// The text of a preset.
pub fn preset_text(name: &str) -> Option<&'static str> {
    presets().iter().find(|p| p.name == name).map(|p| p.text)
}
