//! Does calibration go from a table of times to a run?

use super::common::*;

const HEADER: &str = "framework,version,device,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_ep_size,distribution,latency_ms";

/// Times of a made-up kernel: 25 us, and the larger of weights at 80 % of an H100's bandwidth and operations at 60 % of
/// its peak. Tokens are at least as many as experts, so that every expert has some.
fn table() -> String {
    let mut text = HEADER.to_string();
    for (hidden, inter, experts, k) in
        [(2048, 768, 128, 8), (4096, 1536, 64, 4), (7168, 2048, 32, 8), (2880, 2880, 32, 4)]
    {
        for tokens in [64, 256, 512, 1024, 4096, 16384] {
            let matrices = 3.0 * f64::from(hidden) * f64::from(inter);
            let memory = f64::from(experts) * matrices * 2.0 / (0.8 * 3.35e12);
            let compute = 2.0 * f64::from(tokens * k) * matrices / (0.6 * 989.4e12);
            let ms = 1e3 * (25e-6 + f64::max(memory, compute));
            text += &format!(
                "\nmine,1,NVIDIA H100 80GB HBM3,my_kernel,bfloat16,{tokens},{hidden},{inter},{k},{experts},1,balanced,{ms}"
            );
        }
    }
    text
}

#[test]
fn measured_times_become_a_profile_that_a_run_uses() {
    let p = Place::new();
    p.write("t.csv", table());
    let said = p.ok(&["calibrate", "fit", "t.csv", "--out", "mine.toml"]);
    assert!(said.contains("my_kernel bfloat16 (24 rows, 4 shapes)") && said.contains("e_m"), "{said}");
    let text = p.ok(&["calibrate", "check", "mine.toml", "t.csv", "--format", "json", "--out", "c"]);
    let checked: serde_json::Value = serde_json::from_str(&text).unwrap();
    let errors = &checked[0]["errors"];
    assert!(number(errors, "mean") < 0.1 && number(errors, "rows") == 24.0, "{errors}");
    // A bare roofline is far off.
    assert!(number(&checked[0]["cells"][0]["roofline"], "mean") > 0.25, "{text}");
    assert!(p.path("c/check.png").is_file());
    assert_eq!(p.text("c/predictions.csv").lines().count(), 25);

    let mine = ["hardware.device.profile=\"mine.toml\"", "model.precision.experts=16"];
    p.write("x.toml", p.ok(&["show", "quickstart"]));
    let with = p.run("x.toml", "with", &mine).summary();
    let costs = at(&with, "costs.experts").as_str().unwrap().to_string();
    assert!(costs.contains("profile mine: my_kernel bfloat16") && costs.contains("left out"), "{costs}");
    let without = p.run("x.toml", "without", &["model.precision.experts=16"]).summary();
    assert_ne!(number(&with, "simulated_s"), number(&without, "simulated_s"));
}

#[test]
fn wrong_tables_and_profiles_are_refused() {
    let p = Place::new();
    let good = table();
    let refused = |args: &[&str], part: &str| {
        let out = p.command(args).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && err.contains(part), "{args:?}: {err}");
    };
    for (text, part) in [
        (good.replace("latency_ms", "ms"), "has no column latency_ms"),
        (good.replacen(",0.", ",-0.", 1), "latency_ms: \"-0."),
        (good.replacen("balanced", "zipf", 1), "\"zipf\" is not a distribution"),
        (good.replacen("bfloat16", "fp7", 1), "\"fp7\" is not a precision"),
        (good.replacen(",128,1,", ",127,2,", 1), "line 2, num_experts"),
        (good.replace("NVIDIA H100 80GB HBM3", "a toaster"), "no hardware preset is known for the device"),
        (good.replacen("my_kernel", "my,kernel", 1), "rows differ in length"),
        (HEADER.to_string(), "has no rows"),
    ] {
        p.write("bad.csv", text);
        refused(&["calibrate", "fit", "bad.csv", "--out", "no.toml"], part);
        assert!(!p.path("no.toml").exists());
    }
    p.write("ms.csv", good.replace("latency_ms", "ms"));
    p.ok(&["calibrate", "fit", "ms.csv", "--map", "ms=latency_ms", "--no-cross", "--out", "p.toml"]);
    let text = p.text("p.toml");
    p.write("q.toml", text.replace("[kernel.constants.e_m]\nvalue", "[kernel.constants.e_m]\n value = -1.0 #"));
    refused(&["calibrate", "check", "q.toml", "ms.csv"], "e_m");
    p.write("r.toml", text.replace("constants.e_m", "constants.e_n"));
    refused(&["calibrate", "check", "r.toml", "ms.csv"], "e_n");
    refused(&["calibrate", "check", "h101-sxm", "ms.csv"], "h101-sxm");
}
