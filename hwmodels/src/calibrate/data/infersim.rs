//! Where InferSim keeps its tables: `bench_data/KERNEL/PHASE/DEVICE/SHAPE.csv`, as in `mha/decode/h800/16-1-256.csv`,
//! and `gemm/DEVICE/data.csv`. The folders say what the file's name does not.

use std::path::Path;

/// What the folders of a table say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The table's name with its kernel and phase before it, as in `mha_decode_16-1-256`.
    pub name: String,
    /// The device, as in `h800`.
    pub device: String,
}

/// The folders of a table, if they are InferSim's.
pub fn folders(path: &Path) -> Option<Folders> {
    let part = |p: &Path| p.file_name().and_then(|n| n.to_str()).map(str::to_string);
    let stem = part(path)?.split('.').next()?.to_string();
    let device = path.parent()?;
    let above = device.parent()?;
    let name = match part(above)?.as_str() {
        "gemm" => format!("gemm_{stem}"),
        phase @ ("decode" | "prefill") => match part(above.parent()?)?.as_str() {
            kernel @ ("mha" | "mla" | "dsa" | "grouped_gemm") => format!("{kernel}_{phase}_{stem}"),
            _ => return None,
        },
        _ => return None,
    };
    Some(Folders { name, device: part(device)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_kernel_and_device() {
        let of = |path: &str| folders(Path::new(path)).map(|f| (f.name, f.device));
        let found = |name: &str, device: &str| Some((name.to_string(), device.to_string()));
        assert_eq!(of("x/bench_data/mha/decode/h800/16-1-256.csv"), found("mha_decode_16-1-256", "h800"));
        assert_eq!(of("mha/prefill/h20/16-1-256.csv.gz"), found("mha_prefill_16-1-256", "h20"));
        assert_eq!(of("grouped_gemm/decode/h20/data.csv"), found("grouped_gemm_decode_data", "h20"));
        assert_eq!(of("gemm/h20/data.csv"), found("gemm_data", "h20"));
        for other in
            ["data.csv", "h20/data.csv", "decode/h20/16-1-256.csv", "x/decode/h20/16-1-256.csv", "mha/h20/16-1-256.csv"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
