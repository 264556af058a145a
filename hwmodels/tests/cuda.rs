//! The CUDA kernels without a device: are their indices right, do they compile, are the cubins of this source?

use moesim_core::rng::purpose_key;
use moesim_hwmodels::cuda;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda")
}

/// The kernels on the host, beside plain loops, on shapes and routings that are drawn: barriers, copies, matrix
/// fragments and splits as the device would have them.
#[test]
fn emulated_kernels_are_the_plain_loops() {
    let compiler = ["c++", "g++", "clang++"].into_iter().find(|c| {
        Command::new(c).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    });
    let Some(compiler) = compiler else {
        println!("skipped: there is no C++ compiler");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("emulate");
    let mut c = Command::new(compiler);
    c.args(["-std=c++17", "-O2", "-w", "-DMOE_EMULATE", "-o"]).arg(&program).arg(folder().join("emulate.cpp"));
    let out = c.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let out = Command::new(&program).args(["60", "1000"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("60 shapes and routings, 0 failed"), "{text}");
    assert!(!text.contains(" 0 of them by warpgroups"), "{text}");
}

/// Compiled and assembled for every architecture by NVIDIA's compiler, which `.ci/run` installs and names in
/// `MOESIM_NVCC`.
#[test]
fn kernels_compile_for_every_architecture() {
    let Some(nvcc) = std::env::var_os("MOESIM_NVCC").filter(|p| Path::new(p).is_file()) else {
        println!("skipped: MOESIM_NVCC names no compiler");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for (architecture, file) in
        [("sm_80", "moe.cu"), ("sm_90a", "moe.cu"), ("sm_100a", "moe.cu"), ("sm_90a", "driver.cu")]
    {
        let to = dir.path().join(format!("{file}.{architecture}"));
        let mut c = Command::new(&nvcc);
        // The driver's kernels are those of moe.cu, which need not be assembled well twice.
        let how: &[&str] = if file == "moe.cu" { &["-cubin", "-Xptxas", "-v"] } else { &["-c", "-Xptxas", "-O0"] };
        c.arg(format!("-arch={architecture}")).args(how).arg("-o").arg(&to).arg(folder().join(file));
        let out = c.output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && to.is_file(), "{architecture}: {text}");
        if file == "moe.cu" {
            assert!(!text.contains("warning"), "{architecture}: {text}");
            let spills = text.lines().filter(|l| l.contains("spill stores"));
            assert!(
                spills.clone().count() > 10 && spills.clone().all(|l| l.contains(" 0 bytes spill stores")),
                "{text}"
            );
        }
    }
}

/// The cubins in the tree are those of the source in the tree, and are cubins.
#[test]
fn cubins_are_of_this_source() {
    let stamp = std::fs::read_to_string(folder().join("cubin/SOURCE")).unwrap();
    let now = format!("{:016x}", purpose_key(&cuda::source()));
    assert!(stamp.starts_with(&now), "the kernels were changed: run hwmodels/cuda/build_cubins.py ({now}, {stamp})");
    for [major, minor] in [[8, 0], [8, 9], [9, 0], [10, 0], [10, 3]] {
        let (name, cubin) = cuda::cubin(major, minor).unwrap().unwrap();
        assert!(cubin.starts_with(b"\x7fELF") && cubin.len() > 100_000, "{name}");
        let has = |kernel: &str| cubin.windows(kernel.len()).any(|w| w == kernel.as_bytes());
        assert!(
            ["moe_gate", "moe_up_bf16", "moe_down_fp8", "moe_up_wgmma", "moe_combine", "moe_copy"].into_iter().all(has),
            "{name}"
        );
    }
    // Neither before BF16's tensor cores nor for what is not known.
    assert!(cuda::cubin(7, 5).unwrap().is_none() && cuda::cubin(12, 0).unwrap().is_none());
}
