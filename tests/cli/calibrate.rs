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

/// Tables as other tools keep them: folders of InferSim say kernel and device, and tensor parallelism divides experts.
#[test]
fn tables_of_other_tools_are_read_as_they_are() {
    let p = Place::new();
    std::fs::create_dir_all(p.path("mha/decode/h800")).unwrap();
    let rows: String = (0..12)
        .map(|i| {
            let (batch, keys) = (1 << (i % 4), 1024 << (i / 4));
            format!("bf16,bf16,{batch},{keys},{},0.01\n", 10.0 + f64::from(batch * keys) * 4e-3)
        })
        .collect();
    p.write("mha/decode/h800/16-2-256.csv", format!("dtype,kv_dtype,batch_size,kv_len,latency_us,mfu\n{rows}"));
    let table = "mha/decode/h800/16-2-256.csv";
    for args in [&["--hardware", "h800-8"][..], &[]] {
        let said = p.ok(&[&["calibrate", "fit", table][..], args].concat());
        assert!(said.contains("mha_decode bf16 (12 rows, 3 shapes)"), "{said}");
    }
    let out = p.command(&["calibrate", "fit", table, "--hardware", "h100-8"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && said.contains("was measured on h800, as its folder says"), "{said}");

    let split = table_of_experts();
    let said = {
        p.write("t.csv", split);
        p.ok(&["calibrate", "fit", "t.csv", "--hardware", "h100-8"])
    };
    assert!(said.contains("f bfloat16 (24 rows, 3 shapes)"), "{said}");
}

/// One layer over one, two and four tensor-parallel ranks, with aiconfigurator's own columns.
fn table_of_experts() -> String {
    let mut text =
        "framework,version,device,op_name,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,\
                    moe_tp_size,moe_ep_size,distribution,latency"
            .to_string();
    for tp in [1, 2, 4] {
        for tokens in [1, 4, 16, 64, 256, 1024, 4096, 16384] {
            let ms = 0.02 + 0.3 / f64::from(tp) + f64::from(tokens) * 1e-4 / f64::from(tp);
            text += &format!(
                "\nV,1,NVIDIA H100 80GB HBM3,moe,f,bfloat16,{tokens},2048,768,8,128,{tp},1,power_law_1.01,{ms}"
            );
        }
    }
    text
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

/// Seconds of a plain model of a kernel, with a little that no form has.
fn seconds(fixed_s: f64, work_s: f64, i: usize) -> f64 {
    (fixed_s + work_s) * (1.0 + 0.02 * ((i * 7 % 5) as f64 - 2.0) / 2.0)
}

/// A table of every schema by its columns alone: which kernels come out of it, and that they are near the times.
#[test]
fn every_schema_is_known_by_its_columns() {
    let p = Place::new();
    let sizes = [1u32, 4, 16, 64, 256, 1024, 4096, 16384];
    let table = |head: &str, row: &dyn Fn(usize, u32) -> Vec<String>| {
        let rows = sizes.iter().enumerate().flat_map(|(i, n)| row(i, *n));
        std::iter::once(head.to_string()).chain(rows).collect::<Vec<_>>().join("\n") + "\n"
    };
    // 2 m n k over 600 TFLOP/s, or the weights over 3 TB/s.
    let gemm = |m: f64, n: f64, k: f64| (2.0 * m * n * k / 600e12).max(n * k / 3e12);
    p.write(
        "gemm.csv",
        table("kind,groups,m_per_group,n,k,tflops", &|i, m| {
            let one = |(n, k): (f64, f64)| {
                let t = seconds(3e-6, gemm(m.into(), n, k), i);
                format!("dense,1,{m},{n},{k},{}", 2.0 * f64::from(m) * n * k / t / 1e12)
            };
            [(4096.0, 7168.0), (7168.0, 2048.0)].map(one).to_vec()
        }),
    );
    p.write(
        "mla_decode_128-512-64.csv",
        table("batch_size,kv_len,latency_us", &|i, n| {
            let one = |keys: u32| {
                let t = seconds(1e-5, f64::from(n.min(256) * keys) * 1152.0 / 2.5e12, i);
                format!("{},{keys},{}", n.min(256), 1e6 * t)
            };
            [1024, 4096, 16384].map(one).to_vec()
        }),
    );
    p.write(
        "nccl.csv",
        table("device,op_name,nccl_dtype,num_gpus,message_size,latency", &|i, n| {
            let one = |g: u32| {
                let bytes = f64::from(n) * 4096.0 * 2.0;
                let t = seconds(1.5e-5, bytes * f64::from(g - 1) / f64::from(g) / 350e9, i);
                format!("NVIDIA H100,all_gather,half,{g},{},{}", u64::from(n) * 4096, 1e3 * t)
            };
            [2, 4, 8].map(one).to_vec()
        }),
    );
    p.write(
        "deepep.csv",
        table(
            "device,node_num,hidden_size,num_token,num_topk,num_experts,dispatch_avg_t_us,combine_avg_t_us",
            &|i, n| {
                let one = |nodes: u32| {
                    let away = f64::from(nodes - 1) / f64::from(nodes);
                    let t = seconds(2e-5, f64::from(n.min(256)) * 8.0 * away * 7400.0 / 45e9, i);
                    format!("NVIDIA H100,{nodes},7168,{},8,256,{},{}", n.min(256), 1e6 * t, 2e6 * t)
                };
                [2, 4].map(one).to_vec()
            },
        ),
    );
    p.write(
        "moe.csv",
        table("tokens,activated_experts,time_us", &|i, n| {
            let one = |e: u32| {
                let work = (3.0 * 2.0 * f64::from(n * 8) * 768.0 * 2048.0 / 350e12).max(f64::from(e) * 9.4e6 / 1.4e12);
                format!("{n},{e},{}", 1e6 * seconds(1e-5, work, i))
            };
            if n < 16 { vec![one(8)] } else { vec![one(8), one(64)] }
        }),
    );
    let h100 = ["--hardware", "h100-2x8"];
    let rtx = ["--hardware", "rtx-pro-6000-2", "--model", "qwen3-30b-a3b"];
    let h800 = ["--hardware", "h800-8"];
    for (file, with, ops, most) in [
        ("gemm.csv", &h800[..], &["gemm"][..], 0.15),
        ("mla_decode_128-512-64.csv", &h800, &["latent-decode-attention"], 0.30),
        ("nccl.csv", &h100, &["all-gather"], 0.15),
        ("deepep.csv", &h100, &["dispatch", "combine"], 0.15),
        ("moe.csv", &rtx, &["experts"], 0.30),
    ] {
        let mut fit = vec!["calibrate", "fit", file, "--format", "json", "--force", "--out", "one.toml"];
        fit.extend(with);
        let profile: serde_json::Value = serde_json::from_str(&p.ok(&fit)).unwrap();
        let kernels = profile["kernel"].as_array().unwrap();
        assert_eq!(kernels.iter().map(|k| k["op"].as_str().unwrap()).collect::<Vec<_>>(), ops, "{file}");
        let mut check = vec!["calibrate", "check", "one.toml", file, "--format", "json", "--out", file];
        check[6..].copy_from_slice(&["--out", "checked"]);
        check.push("--force");
        check.extend(with);
        let checked: serde_json::Value = serde_json::from_str(&p.ok(&check)).unwrap();
        for c in checked.as_array().unwrap() {
            let mean = number(&c["errors"], "mean");
            assert!(mean < most && c["regimes"].as_object().is_some_and(|r| !r.is_empty()), "{file}: {c}");
        }
        let computes = ops[0].contains("gemm") || ops[0].contains("attention") || ops[0] == "experts";
        assert_eq!(p.path("checked/roofline.png").is_file(), computes, "{file}");
        std::fs::remove_dir_all(p.path("checked")).unwrap();
    }
    // One profile grows from several tables, and a kernel that comes again replaces the old one.
    p.ok(&["calibrate", "fit", "gemm.csv", "--hardware", "h800-8", "--out", "all.toml"]);
    p.ok(&[
        "calibrate",
        "fit",
        "mla_decode_128-512-64.csv",
        "--hardware",
        "h800-8",
        "--into",
        "all.toml",
        "--out",
        "all.toml",
    ]);
    p.ok(&[
        "calibrate",
        "fit",
        "gemm.csv",
        "--hardware",
        "h800-8",
        "--donor",
        "h100-sxm",
        "--into",
        "all.toml",
        "--out",
        "all.toml",
    ]);
    let text = p.text("all.toml");
    assert_eq!((text.matches("[[kernel]]").count(), text.matches("name = \"all\"").count()), (2, 1), "{text}");
    // A run takes its attention and says so; its 8-bit GEMM is no kernel for 16 bits, and the donor's stands in.
    p.write("x.toml", p.ok(&["show", "quickstart"]));
    let set = ["hardware=h800-8", "hardware.device.profile=\"all.toml\"", "model=deepseek-v2-lite"];
    let mut set = set.to_vec();
    set.extend(SMALL);
    let summary = p.run("x.toml", "run", &set).summary();
    let costs = |what: &str| summary["costs"][what].as_str().unwrap().to_string();
    assert!(
        costs("gemm").starts_with("profile h100-sxm: ") && costs("gemm").contains(" bfloat16 "),
        "{}",
        costs("gemm")
    );
    assert!(costs("decode attention").starts_with("profile all: mla_decode bf16"), "{}", costs("decode attention"));
    assert!(costs("experts").contains("donor: measured on NVIDIA H100"), "{}", costs("experts"));
    assert!(costs("prefill attention").starts_with("profile h100-sxm: prefill"), "{}", costs("prefill attention"));
}

/// What a table leaves out is asked for; what cannot be written is said before the fit.
#[test]
fn what_is_lacking_is_asked_for() {
    let p = Place::new();
    let refused = |args: &[&str], part: &str| {
        let out = p.command(args).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && err.contains(part), "{args:?}: {err}");
    };
    p.write("g.csv", "kind,groups,m_per_group,n,k,tflops\ndense,1,64,4096,7168,100\n");
    p.write(
        "n.csv",
        "device,op_name,nccl_dtype,num_gpus,message_size,latency\nNVIDIA H100,all_gather,half,8,4096,0.01\n",
    );
    p.write("l.csv", "layer,tokens,time_us\nqkv_proj,1,9\n");
    p.write("odd.csv", "a,b\n1,2\n");
    p.write("t.csv", table());
    refused(&["calibrate", "fit", "g.csv"], "--device");
    refused(&["calibrate", "fit", "l.csv", "--hardware", "rtx-pro-6000-2"], "--model");
    refused(&["calibrate", "fit", "odd.csv"], "columns of no schema");
    refused(&["calibrate", "fit", "g.csv", "n.csv", "--hardware", "h800-8"], "one schema at a time");
    refused(&["calibrate", "fit", "t.csv", "--out", "nowhere/p.toml"], "is no folder");
    refused(&["calibrate", "fit", "t.csv", "--schema", "moe"], "is not a schema");
    refused(&["calibrate", "check", "rtx-pro-6000", "n.csv"], "no kernel of all-gather");
    refused(&["calibrate", "fit", "t.csv", "--family", "theirs"], "no kernel family has");
}

/// A table gives its own times back, says what it lacks, and goes before the fitted kernel in a run.
#[test]
fn measured_times_are_interpolated_and_never_extrapolated() {
    let p = Place::new();
    let all = table();
    // Every shape without its largest size.
    let most = all.lines().filter(|l| !l.contains("bfloat16,16384,")).collect::<Vec<_>>().join("\n") + "\n";
    assert!(most.len() < all.len());
    p.write("all.csv", &all);
    p.write("most.csv", most);
    let said = p.ok(&["calibrate", "fit", "most.csv", "--kind", "table", "--out", "t.toml"]);
    assert!(said.contains("20 times of 4 shapes"), "{said}");
    let text = p.ok(&["calibrate", "check", "t.toml", "all.csv", "--format", "json"]);
    let checked: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(number(&checked[0]["errors"], "mean") < 1e-6 && checked[0]["not_in_table"] == 4, "{checked}");
    p.write("x.toml", p.ok(&["show", "quickstart"]));
    let set =
        ["hardware.device.profile=\"t.toml\"", "model.precision.experts=16", "engine.kernels.experts=\"my_kernel\""];
    let mut args = vec!["run", "x.toml", "--quiet"];
    set.iter().for_each(|s| args.extend(["--set", s]));
    let out = p.command(&args).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && err.contains("no fitted kernel that stands in"), "{err}");
    p.ok(&["calibrate", "fit", "all.csv", "--no-cross", "--into", "t.toml", "--out", "t.toml"]);
    let summary = p.run("x.toml", "run", &set).summary();
    let costs = summary["costs"]["experts"].as_str().unwrap();
    assert!(costs.starts_with("table t: my_kernel bfloat16") && costs.contains("profile t: my_kernel"), "{costs}");
    p.write(
        "n.csv",
        "device,op_name,nccl_dtype,num_gpus,message_size,latency\nNVIDIA H100,all_gather,half,8,4096,0.01\n",
    );
    let out = p.command(&["calibrate", "fit", "n.csv", "--kind", "table"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("has no tables"));
    let broken = p.text("t.toml").replacen("rows = [", "rows = [1e9, ", 1);
    p.write("broken.toml", broken);
    let out = p.command(&["calibrate", "check", "broken.toml", "all.csv"]).output().unwrap();
    assert!(out.status.code() == Some(2) && String::from_utf8_lossy(&out.stderr).contains("do not rise"));
}

/// A kernel beside the roofline, another that is faster, and those that ship; and an experiment with each.
#[test]
fn a_slow_kernel_is_seen_and_what_a_faster_one_gains() {
    let p = Place::new();
    let fast = table();
    p.write("fast.csv", &fast);
    p.ok(&["calibrate", "fit", "fast.csv", "--no-cross", "--out", "fast.toml"]);
    // The same times, twice as long.
    let doubled: Vec<String> = fast
        .lines()
        .map(|l| match l.rsplit_once(',').and_then(|(head, ms)| Some((head, ms.parse::<f64>().ok()?))) {
            Some((head, ms)) => format!("{head},{}", 2.0 * ms).replace("my_kernel", "slow_kernel"),
            None => l.to_string(),
        })
        .collect();
    p.write("slow.csv", doubled.join("\n"));
    let args = ["calibrate", "compare", "slow.csv", "--reference", "fast.toml", "--format", "json", "--set"];
    let text = p.ok(&[&args[..], &["model.precision.experts=16"], &SMALL.map(|s| ["--set", s]).concat()[..]].concat());
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kernel = &report["kernels"][0];
    let beside = kernel["beside"].as_array().unwrap();
    let median = |name: &str| {
        let found = beside.iter().find(|b| b["name"].as_str().unwrap().contains(name));
        number(&found.unwrap_or_else(|| panic!("{name}: {text}"))["all"], "median")
    };
    assert!((median("fast: my_kernel") - 2.0).abs() < 0.2, "{text}");
    // Launch, and 80 or 60 % of the peaks: at least 2 / 0.8.
    assert!(median("roofline") > 2.4 && beside.len() > 3, "{text}");
    assert!(beside.iter().any(|b| b["name"].as_str().unwrap().starts_with("h100-sxm: ")));
    let priced = report["experiment"].as_array().unwrap();
    assert!(priced[0]["costs"][0].as_str().unwrap().contains("slow_kernel"), "{text}");
    let gain = |i: usize| number(&priced[i], "gain");
    assert!(gain(0) == 1.0 && gain(1) > 1.05 && gain(2) > 1.05, "{text}");
    let said = p.ok(&["calibrate", "compare", "slow.csv", "--reference", "fast.toml", "--no-run"]);
    assert!(said.contains("fastest on the median row") && !said.contains("output tokens/s"), "{said}");
    // The quickstart's experts have four bits: nothing of it is priced, and it says why.
    let said = p.ok(&["calibrate", "compare", "slow.csv"]);
    assert!(said.contains("is not priced") && said.contains("model.precision.experts=16"), "{said}");
}
