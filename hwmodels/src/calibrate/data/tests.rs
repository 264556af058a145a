//! Readers: what is wrong names file, line, column and cure; what is right becomes rows.

use super::llmservingsim::Served;
use super::*;
use crate::calibrate::measured::{self, Source};
use crate::calibrate::profile::{Kernel, KernelForm, Op};
use crate::form::{
    AttentionForm, AttentionHeads, AttentionKernel, CollectiveForm, CustomAllReduceForm, Form, GemmForm, GemmKernel,
    GemmPairForm, GemmTiling, LinkPeaks, LowLatencyForm, NormalForm, Peaks, StreamForm, Tiling,
};
use moesim_core::{Diag, Result};
use std::path::Path;

const H800: Peaks = Peaks { flop_per_s: 1978.9e12, bytes_per_s: 3.35e12, units: 132.0, l2_bytes: 50e6 };
const QWEN: Served = Served {
    device: "rtx",
    precision: "bf16",
    hidden: 2048.0,
    heads: [32.0, 4.0, 128.0],
    vocabulary: 151_936.0,
    experts: [8.0, 768.0],
};

#[expect(clippy::unnecessary_wraps, reason = "the readers' callback")]
fn peaks(_: &str, _: &str) -> Result<Peaks> {
    Ok(H800)
}

/// Reads `text` as a file of this name.
fn table(name: &str, text: &str) -> MeasurementTable {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    MeasurementTable::read(&path, &[]).unwrap()
}

/// A table of the public data sets, if they are here.
fn real(name: &str) -> Option<MeasurementTable> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/kernels")).join(name);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(MeasurementTable::read(&path, &[]).unwrap())
}

/// The message names the place, says `what` in problem or cure, and has a cure.
#[track_caller]
fn says<T>(result: Result<T>, place: &str, what: &str) {
    let Err(e) = result else { panic!("accepted") };
    let Diag { file, place: at, problem, cure, .. } = &e;
    assert!(file.is_some() && at.as_deref().unwrap_or_default().starts_with(place), "{e}");
    assert!((problem.contains(what) || cure.contains(what)) && !cure.is_empty(), "{e}");
}

#[test]
fn gemms_as_rates() {
    let read = |row: &str| {
        let table = table("g.csv", &format!("kind,groups,m_per_group,n,k,tflops,precision\n{row}\n"));
        deepgemm::read(&table, "h800", &peaks)
    };
    let groups = read("grouped_masked,4,64,4096,7168,100,int8").unwrap();
    let [row] = groups[0].rows[..] else { panic!("one row") };
    assert_eq!((row.load.rows, row.load.groups, row.element_bytes), (256.0, 4.0, [1.0, 1.0, 2.0]));
    assert!((groups[0].seconds[0] / (2.0 * 256.0 * 4096.0 * 7168.0 / 100e12) - 1.0).abs() < 1e-12);
    says(read("sparse,4,64,4096,7168,100,int8"), "line 2, kind", "write dense");
    says(read("dense,1,64,4096,7168,100,int3"), "line 2, precision", "int3");
    says(read("dense,0,64,4096,7168,100,fp8"), "line 2, groups", "from 1");
    says(read("dense,1,1e300,4096,7168,100,fp8"), "line 2, m_per_group", "from 1");
    says(read("dense,1,1.5,4096,7168,100,fp8"), "line 2, m_per_group", "whole");
    says(read("dense,1,1,4096,7168,NaN,fp8"), "line 2, tflops", "NaN");
    says(deepgemm::read(&table("g.csv", "kind\nx\n"), "h800", &peaks), "line 1", "groups");
}

#[test]
fn gemms_of_infersim() {
    const HEAD: &str = "num_local_experts,hidden_size,intermediate_size,tokens_per_expert,up_proj_us,up_mfu,down_proj_us,\
                        down_mfu,batch_size_per_gpu";
    let read = |row: &str| infersim_gemm::read(&table("g.csv", &format!("{HEAD}\n{row}\n")), "h800", &peaks);
    let groups = read("8,4096,1536,1,10,0.01,10,0.01,32").unwrap();
    // A nominal row each: those above the middle have one, the others none.
    assert_eq!((groups[0].rows[0].load.rows, groups[0].rows[0].n, groups[0].rows[1].n), (4.0, 3072.0, 4096.0));
    says(read("2,4096,1536,1,10,1e-9,10,0.01,32"), "line 2, up_mfu", "no expert computes");
    says(read("2,4096,1536,1,0,0.01,10,0.01,32"), "line 2, up_proj_us", "from 0.001");
    says(read("1e9,4096,1536,1,1,0.01,10,0.01,32"), "line 2, num_local_experts", "16384");
    let dense = infersim_gemm::read(&table("g.csv", "m,k,n,latency_us\n16,7168,1536,16.4\n"), "h800", &peaks).unwrap();
    assert_eq!((dense[0].rows[0].n, dense[0].cells[0].as_str()), (1536.0, "to 64 rows"));
}

#[test]
fn experts_of_aiconfigurator() {
    const HEAD: &str = "framework,version,device,op_name,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,\
                        moe_tp_size,moe_ep_size,distribution,latency";
    let row = |tp: u32, distribution: &str| {
        format!("V,1,NVIDIA H100,moe,f,bfloat16,64,2048,768,8,128,{tp},1,{distribution},0.5")
    };
    let read = |rows: &[String]| read_moe(&table("m.csv", &format!("{HEAD}\n{}\n", rows.join("\n"))), &peaks);
    let groups = read(&[1, 2, 4].map(|tp| row(tp, "balanced"))).unwrap();
    let [group] = &groups[..] else { panic!("one group") };
    // Tensor parallelism divides the inner width: three shapes, and milliseconds in a column without a unit.
    assert_eq!(group.rows.iter().map(|r| r.shape.intermediate).collect::<Vec<_>>(), [768.0, 384.0, 192.0]);
    assert_eq!((group.shapes.len(), group.seconds[0]), (3, 0.5e-3));
    let groups = read(&["power_law_1.01", "power_law_1.2"].map(|d| row(1, d))).unwrap();
    assert_eq!(groups[0].cells, ["power law 1.01 ep = 1", "power law ep = 1"]);
    assert!(groups[0].rows[0].load.active > groups[0].rows[1].load.active, "a steeper law touches fewer experts");
    says(read(&[row(5, "balanced")]), "line 2, inter_size", "768 is no multiple of moe_tp_size 5");
    says(read(&[row(0, "balanced")]), "line 2, moe_tp_size", "from 1");
    for other in ["power_law_", "power_law_9", "power_law_nan", "zipf"] {
        says(read(&[row(1, other)]), "line 2, distribution", "power_law_1.2 or another exponent");
    }
    says(
        read_moe(&table("m.csv", &format!("{}\n", HEAD.replace(",latency", ",ms")).repeat(2)), &peaks),
        "line 1",
        "latency_ms",
    );
}

#[test]
fn folders_of_infersim() {
    let dir = tempfile::tempdir().unwrap();
    let put = |folder: &str, name: &str, text: &str| {
        let folder = dir.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        MeasurementTable::read(&path, &[]).unwrap()
    };
    let decode = put(
        "mha/decode/h800",
        "16-2-256.csv",
        "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu\nbf16,bf16,4,1024,15.6,0.1\n",
    );
    assert!(infersim_attention::is_named(decode.path()));
    let group = infersim_attention::read(&decode, "h800", &peaks).unwrap().remove(0);
    assert_eq!((group.family.as_str(), group.cells[0].as_str(), group.rows.len()), ("mha_decode", "16-2-256", 1));
    let prefill = put("mha/prefill/h20", "32-8-128.csv", "dtype,seq_len,latency_us,mfu\nbf16,1024,111.51,0.52\n");
    let group = infersim_attention::read(&prefill, "h20", &peaks).unwrap().remove(0);
    assert_eq!((group.family.as_str(), group.size[0]), ("mha_prefill", 1024.0));
    let odd = put("mha/decode/h800", "16-3-256.csv", "batch_size,kv_len,latency_us\n1,1,9\n");
    says(infersim_attention::read(&odd, "h800", &peaks), "", "HEADS-KV_HEADS-WIDTH");
    assert!(!infersim_attention::is_named(Path::new("x/16-2-256.csv")));
}

#[test]
fn layers_of_llmservingsim() {
    let dense = |text: &str| llmservingsim::read_dense(&table("d.csv", text), &QWEN, &peaks);
    let groups = dense("layer,tokens,time_us\nqkv_proj,1,9\nrotary_emb,1,3\no_proj,7,8\n").unwrap();
    assert_eq!(groups[0].rows.iter().map(|r| [r.n, r.k]).collect::<Vec<_>>(), [[5120.0, 2048.0], [2048.0, 4096.0]]);
    says(dense("layer,tokens,time_us\nmlp,1,9\n"), "line 2, layer", "mlp");
    says(dense("layer,time_us\nqkv_proj,9\n"), "line 1", "tokens");
    says(dense("layer,tokens,time_us\nlayernorm,1,9\n"), "", "no GEMM");
    let streams = |text: &str| llmservingsim::read_streams(&table("d.csv", text), &QWEN, &peaks);
    let groups = streams("layer,tokens,time_us\nqkv_proj,1,9\nrotary_emb,3,3\nlayernorm,1,4\n").unwrap();
    assert_eq!(
        groups.iter().map(|g| g.rows[0].bytes).collect::<Vec<_>>(),
        [3.0 * 2.0 * 36.0 * 128.0 * 2.0, 4.0 * 2048.0 * 2.0]
    );
    says(streams("layer,tokens,time_us\nmlp,1,9\n"), "line 2, layer", "mlp");
    says(streams("layer,tokens,time_us\no_proj,1,9\n"), "", "no streaming layer");
    let moe = |text: &str| llmservingsim::read_moe(&table("m.csv", text), &QWEN, &peaks);
    let groups = moe("tokens,activated_experts,time_us\n4,8,50\n").unwrap();
    assert_eq!(groups[0].rows[0].map(|r| (r.load.rows, r.n, r.k)), [(32.0, 1536.0, 2048.0), (32.0, 2048.0, 768.0)]);
    says(moe("tokens,activated_experts,time_us\n1,9,50\n"), "line 2, activated_experts", "9 experts for 1 tokens");
}

#[test]
fn attention_of_infersim() {
    let read = |name: &str, text: &str| infersim_attention::read(&table(name, text), "h800", &peaks);
    let mha = "dtype,kv_dtype,batch_size,kv_len,latency_us\nbf16,bf16,4,1024,30\n";
    let groups = read("mha_decode_32-2-128.csv", mha).unwrap();
    let row = &groups[0].rows[0];
    assert_eq!((row.heads.query, row.heads.kv, row.heads.kv_bytes, row.kernel.tile), (32, 2, 512.0, 128));
    assert_eq!((groups[0].family.as_str(), groups[0].shapes[0].as_str()), ("mha_decode", "keys 1024"));
    let sparse = "dtype,kv_dtype,batch_size,kv_len,latency_us\nbf16,fp8,4,1024,30\n";
    let groups = read("dsa_decode_attn-128-576-2048.csv", sparse).unwrap();
    assert_eq!((groups[0].rows[0].heads.kv_bytes, groups[0].rows[0].classes[0].keys), (656.0, 2048));
    for name in [
        "decode.csv",
        "mha_decode_32-5-128.csv",
        "mha_decode_32-2.csv",
        "mha_decode_32-x-2-128.csv",
        "mha_decode_0-0-0.csv",
        "dsa_decode_attn-128-64-2048.csv",
    ] {
        says(read(name, mha), "", "mha_decode_HEADS-KV_HEADS-WIDTH.csv");
    }
    says(read("mha_decode_32-2-128.csv", sparse), "line 2, kv_dtype", "fp8");
    says(read("mha_decode_32-2-128.csv", &mha.replace("4,1024", "4,1e12")), "line 2, kv_len", "4194304");
    says(read("mha_decode_32-2-128.csv", &mha.replace("bf16,bf16", "fp4,bf16")), "line 2, dtype", "fp4");
    let logits = read("dsa_prefill_logits-64-128.csv", "s_q,s_kv,latency_us\n4097,4096,30\n");
    says(logits, "line 2, s_q", "from 1 to 4096");
    says(read("mla_prefill_128-128-64.csv", mha), "line 1", "seq_len");
}

#[test]
fn attention_of_llmservingsim() {
    let read = |row: &str| {
        let text = format!("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n{row}\n");
        llmservingsim_attention::read(&table("a.csv", &text), &QWEN, &peaks)
    };
    assert_eq!(read("0,0,4,128,9").unwrap()[0].family, "attention_decode");
    let mixed = read("16,512,4,128,9").unwrap();
    assert_eq!((mixed[0].rows[0].classes.len(), mixed[0].rows[0].classes[0].keys), (2, 528));
    says(read("0,5,0,128,9"), "line 2, prefill_chunk", "no tokens");
    says(read("0,0,4,0,9"), "line 2, n_decode", "kv_decode");
    says(read("1e30,0,4,1,9"), "line 2, prefill_chunk", "1048576");
}

/// A row ten times its neighbours goes, and the notes say so; steps that all series share stay.
#[test]
fn outliers_are_named() {
    let mut text = "batch_size,kv_len,latency_us\n".to_string();
    for batch in [1, 2, 4, 8] {
        for (i, keys) in [1024, 4096, 8192, 16384, 65536].iter().enumerate() {
            let wild = if (batch, *keys) == (4, 8192) { 10 } else { 1 };
            text += &format!("{batch},{keys},{}\n", wild * (20 + batch * (i + 1) * (i + 1)));
        }
    }
    let mut group =
        infersim_attention::read(&table("mha_decode_32-2-128.csv", &text), "h800", &peaks).unwrap().remove(0);
    drop_outliers(&mut group);
    assert_eq!((group.rows.len(), group.notes.len(), group.seconds.len(), group.shape.len()), (19, 1, 19, 19));
    assert!(group.notes[0].contains("batch 4 keys 8192"), "{:?}", group.notes);
}

#[expect(clippy::unnecessary_wraps, reason = "the readers' callback")]
fn links(_: &str) -> Result<LinkPeaks> {
    Ok(LinkPeaks { link_bytes_per_s: 450e9, nic_bytes_per_s: 50e9, bytes_per_s: 3.35e12 })
}

#[test]
fn collectives_of_nccl() {
    let read = |row: &str| {
        let text = format!("device,op_name,nccl_dtype,num_gpus,message_size,latency\n{row}\n");
        nccl::read(&table("n.csv", &text), &links)
    };
    let groups = read("h100,all_gather,half,4,256,0.005").unwrap();
    let row = groups[0].rows[0];
    assert_eq!((row.bytes, row.devices, row.in_switch, groups[0].seconds[0]), (512.0, 4.0, true, 5e-6));
    says(read("h100,gather,half,4,256,0.005"), "line 2, op_name", "write all_gather");
    says(read("h100,all_gather,fp4,4,256,0.005"), "line 2, nccl_dtype", "fp4");
    says(read("h100,all_gather,half,1,256,0.005"), "line 2, num_gpus", "from 2");
    says(read("h100,all_gather,half,4,inf,0.005"), "line 2, message_size", "inf");
    says(read("h100,all_gather,half,4,256,-1"), "line 2, latency", "-1");
}

#[test]
fn exchanges_of_cann() {
    let read = |row: &str| {
        let head = "device,op_name,num_devices,num_token,num_topk,message_bytes,latency_us";
        cann::read(&table("c.csv", &format!("{head}\n{row}\n")), &links)
    };
    let groups = read("910c,dispatch,8,128,8,7680,116").unwrap();
    assert_eq!((groups[0].family.as_str(), groups[0].rows[0].messages), ("fused_dispatch", 1024.0));
    says(read("910c,gather,8,128,8,7680,116"), "line 2, op_name", "write dispatch");
    says(read("910c,combine,1,128,8,7680,116"), "line 2, num_devices", "from 2");
    says(read("910c,combine,8,128,8,7680.5,116"), "line 2, message_bytes", "whole");
    says(read("910c,combine,8,128,8,7680,"), "line 2, latency_us", "number");
}

#[test]
fn exchanges_of_deepep() {
    const HEAD: &str = "device,node_num,hidden_size,num_token,num_topk,num_experts";
    let low = |row: &str| {
        let text = format!("{HEAD},combine_avg_t_us,dispatch_avg_t_us\n{row}\n");
        deepep::read_low_latency(&table("l.csv", &text), &links)
    };
    let groups = low("h100,2,7168,128,8,256,80,50").unwrap();
    assert_eq!((groups[0].family.as_str(), groups[0].seconds[0]), ("low_latency_dispatch", 50.0 * 1e-6));
    assert_eq!(
        (&groups[0].shapes[..], &groups[0].cells[..]),
        (&["2 nodes, hidden 7168 top-8 of 256".into()][..], &["2 nodes".into()][..])
    );
    // A printed bandwidth says how many of 8 selections were sent: here 4 messages of 7408 bytes. Where none is printed
    // all were.
    let printed = |rate: &str| {
        let head = format!("{HEAD},combine_avg_t_us,dispatch_avg_t_us,dispatch_bandwidth_gbps");
        let text = format!("{head}\nh100,1,7168,1,8,256,80,10,{rate}\n");
        let groups = deepep::read_low_latency(&table("l.csv", &text), &links).unwrap();
        groups.iter().map(|g| g.rows[0].link_bytes.round()).collect::<Vec<f64>>()
    };
    assert_eq!(printed("2.9632"), [4.0 * 7408.0 * 7.0 / 8.0, 8.0 * 14336.0 * 7.0 / 8.0]);
    assert_eq!(printed(""), [8.0 * 7408.0 * 7.0 / 8.0, 8.0 * 14336.0 * 7.0 / 8.0]);
    says(low(",2,7168,128,8,256,80,50"), "line 2, device", "names no device");
    says(low("h100,0,7168,128,8,256,80,50"), "line 2, node_num", "from 1");
    says(low("h100,2,7168,128,8,4,80,50"), "line 2, num_topk", "top-8 of 4");
    says(low("h100,2,7168,128,8,256,80,x"), "line 2, dispatch_avg_t_us", "x");
    let normal = |row: &str| {
        let text = format!(
            "{HEAD},dispatch_sms,dispatch_transmit_us,dispatch_notify_us,combine_sms,combine_transmit_us,combine_notify_us\n{row}\n"
        );
        deepep::read_normal(&table("n.csv", &text), &links)
    };
    let row = "h100,2,7168,128,8,256,20,80,8,20,90,9";
    let read = normal(row).unwrap();
    assert_eq!(read.iter().map(|g| (g.seconds[0] * 1e6).round()).collect::<Vec<_>>(), [80.0, 90.0]);
    assert_eq!(read[1].notes, ["notification left out: median 9 us, at most 9 us"]);
    says(normal(&row.replace(",20,80", ",0,80")), "line 2, dispatch_sms", "from 1");
    says(normal(&row.replace(",90,9", ",90,-9")), "line 2, combine_notify_us", "-9");
}

/// On H100: every other size within 10 % of a fit on the rest, the most devices or nodes within 20 % of a fit on fewer.
/// DeepEP for throughput misses the latter (its NICs halve beyond four nodes) and is not asked for it.
#[test]
fn collectives_and_exchanges_are_predicted() {
    use crate::calibrate::cross::{every_other_size, largest, leave_out};
    if let Some(table) = real("nccl_h100.csv") {
        for group in &nccl::read(&table, &links).unwrap() {
            let (odd, most) = (every_other_size(group), largest(group, |r| r.devices));
            let sizes = leave_out(&CollectiveForm, group, |i| odd[i]).unwrap().mean;
            let count = leave_out(&CollectiveForm, group, |i| most[i]).unwrap().mean;
            assert!(sizes < 0.10 && count < 0.20, "{}: {sizes} {count}", group.family);
        }
    }
    if let Some(table) = real("deepep_ll_h100_1to8nodes.csv") {
        for group in &deepep::read_low_latency(&table, &links).unwrap() {
            let (odd, most) = (every_other_size(group), largest(group, |r| r.nodes));
            let sizes = leave_out(&LowLatencyForm, group, |i| odd[i]).unwrap().mean;
            let count = leave_out(&LowLatencyForm, group, |i| most[i]).unwrap().mean;
            assert!(sizes < 0.10 && count < 0.20, "{}: {sizes} {count}", group.family);
        }
    }
    if let Some(table) = real("deepep_normal_h100_1to8nodes.csv") {
        for group in &deepep::read_normal(&table, &links).unwrap() {
            let odd = every_other_size(group);
            let sizes = leave_out(&NormalForm, group, |i| odd[i]).unwrap().mean;
            assert!(sizes < 0.10, "{}: {sizes}", group.family);
        }
    }
}

/// The times of a form with the constants it starts from.
fn times<F: Form>(form: &F, groups: &[Group<F::Row>]) -> Vec<f64> {
    let constants: Vec<f64> = form.constants().iter().map(|c| c.start).collect();
    groups.iter().flat_map(|g| &g.rows).map(|row| form.seconds(&constants, row)).collect()
}

/// Whatever stands in a field of whatever reader: a cure with the file's name, or rows whose times are times.
#[test]
fn wild_fields_are_refused_or_have_a_time() {
    const WILD: [&str; 12] =
        ["", "0", "-1", "0.5", "1e308", "-1e308", "NaN", "inf", "16777216", "18446744073709551616", "x", "\u{1}\u{7f}"];
    type Reader<'a> = &'a dyn Fn(&MeasurementTable) -> Result<Vec<f64>>;
    let attention = |t: &MeasurementTable| Ok(times(&AttentionForm, &infersim_attention::read(t, "h800", &peaks)?));
    let gemm =
        |t: &MeasurementTable| Ok(times(&GemmForm::cold(GemmKernel::WIDE), &infersim_gemm::read(t, "h800", &peaks)?));
    let exchange = "device,node_num,hidden_size,num_token,num_topk,num_experts";
    let tokens = "dtype,kv_dtype,batch_size,kv_len,latency_us\nbf16,bf16,4,1024,30";
    let logits = "batchsize,next_n,s_q,s_kv,latency_us\n64,1,2048,4096,30";
    let readers: [(&str, String, Reader); 20] = [
        ("a.csv", "kind,groups,m_per_group,n,k,tflops,precision\ndense,1,64,4096,7168,100,int8".into(), &|t| {
            Ok(times(&GemmForm::cold(GemmKernel::WIDE), &deepgemm::read(t, "h800", &peaks)?))
        }),
        ("a.csv", "m,k,n,latency_us\n16,7168,1536,16.4".into(), &gemm),
        (
            "a.csv",
            "num_local_experts,hidden_size,intermediate_size,tokens_per_expert,up_proj_us,up_mfu,down_proj_us,down_mfu,\
             seq_len_per_gpu\n8,4096,1536,16,10,0.1,10,0.1,32"
                .into(),
            &gemm,
        ),
        ("a.csv", "layer,tokens,time_us\nqkv_proj,1,9".into(), &|t| {
            Ok(times(&GemmForm { warm: true, kernel: GemmKernel::CUBLAS }, &llmservingsim::read_dense(t, &QWEN, &peaks)?))
        }),
        ("a.csv", "layer,tokens,time_us\nlayernorm,1,9".into(), &|t| {
            Ok(times(&StreamForm, &llmservingsim::read_streams(t, &QWEN, &peaks)?))
        }),
        ("a.csv", "tokens,activated_experts,time_us\n4,8,50".into(), &|t| {
            Ok(times(&GemmPairForm { kernel: GemmKernel::TRITON }, &llmservingsim::read_moe(t, &QWEN, &peaks)?))
        }),
        ("a.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n16,512,4,128,9".into(), &|t| {
            Ok(times(&AttentionForm, &llmservingsim_attention::read(t, &QWEN, &peaks)?))
        }),
        ("mha_decode_32-2-128.csv", tokens.into(), &attention),
        ("mla_decode_128-512-64.csv", tokens.into(), &attention),
        ("mla_prefill_128-128-64.csv", "dtype,seq_len,latency_us\nbf16,1024,116".into(), &attention),
        ("dsa_prefill_attn-128-576-2048.csv", "dtype,s_q,s_kv,latency_us\nbf16,4096,8192,3632".into(), &attention),
        ("dsa_prefill_logits-64-128.csv", logits.into(), &attention),
        ("dsa_decode_logits-64-128.csv", logits.into(), &attention),
        ("a.csv", "device,op_name,nccl_dtype,num_gpus,message_size,latency\nh100,all_gather,half,4,256,0.005".into(), &|t| {
            Ok(times(&CollectiveForm, &nccl::read(t, &links)?))
        }),
        (
            "a.csv",
            "kernel_source,batch_size,new_tokens,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,past_tokens,\
             window_size,latency_ms\nfa3,4,16,64,8,64,bfloat16,fp8,999,128,0.01"
                .into(),
            &|t| Ok(times(&AttentionForm, &read_attention(t, "h100", &peaks)?)),
        ),
        (
            "a.csv",
            "framework,kernel_source,mla_dtype,kv_cache_dtype,num_heads,batch_size,new_tokens,past_tokens,latency_ms,phase\n\
             T,default,bfloat16,fp8,16,4,1,999,0.01,generation"
                .into(),
            &|t| Ok(times(&AttentionForm, &read_mla(t, "h100", &peaks)?)),
        ),
        ("a.csv", "kernel_source,gemm_dtype,m,n,k,latency_ms\nlinear,bfloat16,4,256,65536,0.017".into(), &|t| {
            Ok(times(&GemmForm::cold(GemmKernel::WIDE), &read_gemm(t, "h100", &peaks)?))
        }),
        ("a.csv", "kernel_source,allreduce_dtype,num_gpus,message_size,latency_ms\nx,bfloat16,8,128,0.004".into(), &|t| {
            Ok(times(&CustomAllReduceForm, &read_custom_all_reduce(t, "h100", &links)?))
        }),
        ("a.csv", format!("{exchange},combine_avg_t_us,dispatch_avg_t_us\nh100,2,7168,128,8,256,80,50"), &|t| {
            Ok(times(&LowLatencyForm, &deepep::read_low_latency(t, &links)?))
        }),
        (
            "a.csv",
            format!(
                "{exchange},dispatch_sms,dispatch_transmit_us,dispatch_notify_us,combine_sms,combine_transmit_us,\
                 combine_notify_us\nh100,2,7168,128,8,256,20,80,8,20,90,9"
            ),
            &|t| Ok(times(&NormalForm, &deepep::read_normal(t, &links)?)),
        ),
    ];
    let mut refused = 0;
    for (name, text, read) in &readers {
        read(&table(name, text)).unwrap();
        let (head, row) = text.split_once('\n').unwrap();
        let fields: Vec<&str> = row.split(',').collect();
        for at in 0..fields.len() {
            for wild in WILD {
                let mut fields = fields.clone();
                fields[at] = wild;
                match read(&table(name, &format!("{head}\n{}\n", fields.join(",")))) {
                    Ok(times) => assert!(times.iter().all(|t| t.is_finite() && *t > 0.0), "{fields:?}: {times:?}"),
                    Err(e) => {
                        assert!(e.file.is_some() && !e.cure.is_empty(), "{e}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 700, "{refused}");
}

/// Files of one family become one group, as if read together.
#[test]
fn files_are_joined() {
    let dense = |text: &str| llmservingsim::read_dense(&table("d.csv", text), &QWEN, &peaks).unwrap();
    let apart =
        join([dense("layer,tokens,time_us\nqkv_proj,1,9\n"), dense("layer,sequences,time_us\nlm_head,1,400\n")]);
    let [one] = &apart[..] else { panic!("one group") };
    assert_eq!(
        (one.rows.len(), &one.shape[..], &one.cells[..]),
        (2, &[0, 1][..], &["qkv_proj".into(), "lm_head".into()][..])
    );
}

/// The mean error of a form's fit on shapes that the fit has not seen.
fn unseen<F: Form>(form: &F, group: &Group<F::Row>) -> f64 {
    use crate::calibrate::cross::{fit, leave_shapes_out};
    let left = leave_shapes_out(form, group, &fit(form, &group.rows, &group.seconds).values).unwrap();
    left.iter().zip(&group.seconds).map(|(p, t)| (p / t - 1.0).abs()).sum::<f64>() / left.len() as f64
}

/// Decode on H800: a length of keys that the fit has not seen, within 10 %; two measurements went wrong.
#[test]
fn decode_is_predicted() {
    let files = ["16-2", "32-2", "32-4", "32-8", "64-2", "128-2", "256-2"];
    let tables: Vec<MeasurementTable> =
        files.iter().filter_map(|f| real(&format!("infersim_h800/mha_decode_{f}-128.csv"))).collect();
    if tables.len() < files.len() {
        return;
    }
    let bf16 = |_: &str, _: &str| Ok(Peaks { flop_per_s: 989.4e12, ..H800 });
    let mut group = join(tables.iter().map(|t| infersim_attention::read(t, "h800", &bf16).unwrap())).pop().unwrap();
    drop_outliers(&mut group);
    assert!(
        group.notes.len() == 2 && group.notes.iter().all(|n| n.contains("heads 32-2 batch 1 ")),
        "{:?}",
        group.notes
    );
    let off = unseen(&AttentionForm, &group);
    assert!(off < 0.10, "{off}");
}

/// DeepGEMM's README on H800: a shape that the fit has not seen, within 10 %.
#[test]
fn deepgemm_is_predicted() {
    let Some(table) = real("deepgemm_h800_fp8.csv") else { return };
    let groups = deepgemm::read(&table, "h800", &peaks).unwrap();
    let off = unseen(&GemmForm::cold(GemmKernel::WIDE), &groups[0]);
    assert!(off < 0.10, "{off}");
}

#[test]
fn tables_of_other_formats_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    std::fs::write(&path, b"PAR1\x15\x04").unwrap();
    let e = MeasurementTable::read(&path, &[]).err().unwrap().to_string();
    assert!(e.contains("is a Parquet file") && e.contains("save it as CSV"), "{e}");
    let made = MeasurementTable::read_or(&path, &[], |_| Ok(b"kernel,latency\nb,2\n".to_vec())).unwrap();
    assert_eq!((made.text(0, 0), made.find("latency")), ("b", Some(1)));
    let marked = table("t.csv", "\u{feff}kernel,latency\na,1\n");
    assert_eq!((marked.rows(), marked.find("kernel")), (1, Some(0)));
}

/// Older versions are families of their own, kernels without a gate have two matrices, and loads that are not as stated
/// are left out.
#[test]
fn versions_gates_and_groups_of_experts() {
    const HEAD: &str = "version,device,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_ep_size,distribution,latency_ms";
    let rows = [
        "0.9.0,NVIDIA H100,f_nongated,bfloat16,64,2048,768,8,128,1,balanced,0.5",
        "0.10.0,NVIDIA H100,f_nongated,bfloat16,64,2048,768,8,128,1,balanced,0.4",
        "1,NVIDIA H100,vllm_x,fp8_block,64,7168,2048,8,256,1,balanced,0.4",
        "1,NVIDIA H100,vllm_x,fp8_block,64,7168,2048,8,128,1,balanced,0.4",
        "1,NVIDIA H100,trt_x,fp8_block,64,7168,2048,8,256,1,balanced,0.4",
    ];
    let groups = read_moe(&table("m.csv", &format!("{HEAD}\n{}\n", rows.join("\n"))), &peaks).unwrap();
    let names: Vec<(&str, usize)> = groups.iter().map(|g| (g.family.as_str(), g.rows.len())).collect();
    assert_eq!(names, [("f_nongated 0.9.0", 1), ("f_nongated", 1), ("vllm_x", 1), ("trt_x", 1)]);
    assert!(groups[..2].iter().all(|g| g.rows[0].shape.first == 1.0) && groups[2].rows[0].shape.first == 2.0);
    assert!(groups[2].notes[0].contains("routed by groups") && groups[3].notes.is_empty());
    // Of the generated kernels' models Nemotron's have no gates; DeepSeek-V3's loads are not as stated in 4 bits
    // either.
    let rows = [
        "1,NVIDIA B200,x_flashinfer_trtllm_moe,nvfp4,64,4096,2688,22,512,1,balanced,0.5",
        "1,NVIDIA B200,x_flashinfer_trtllm_moe,nvfp4,64,6144,2048,8,256,1,balanced,0.5",
        "1,NVIDIA B200,vllm_flashinfer_trtllm,nvfp4,64,7168,2048,8,256,1,balanced,0.5",
        "1,NVIDIA B200,moe_torch_flow_min_latency,nvfp4,64,6144,2048,8,256,1,balanced,0.5",
        "1,NVIDIA B200,vllm_fused_moe,nvfp4,64,7168,2048,22,512,1,balanced,0.5",
    ];
    let groups = read_moe(&table("m.csv", &format!("{HEAD}\n{}\n", rows.join("\n"))), &peaks).unwrap();
    let first: Vec<Vec<f64>> = groups.iter().map(|g| g.rows.iter().map(|r| r.shape.first).collect()).collect();
    assert_eq!(first, [vec![1.0, 2.0], vec![2.0]]);
    assert!(groups[0].notes[0].starts_with("moe_torch_flow_min_latency: routed by groups"), "{:?}", groups[0].notes);
    assert_eq!(tiling("x_flashinfer_trtllm_moe", "1", "nvfp4"), Tiling::Rows);
    // What is left out is said where its framework's other families are, and where nothing is left.
    assert!(
        groups[1].notes.iter().any(|n| n.starts_with("vllm_flashinfer_trtllm: hidden 7168")),
        "{:?}",
        groups[1].notes
    );
    let more = "1,NVIDIA B200,moe_torch_flow,nvfp4,64,6144,2048,8,256,1,balanced,0.5";
    let groups = read_moe(&table("m.csv", &format!("{HEAD}\n{}\n{more}\n", rows.join("\n"))), &peaks).unwrap();
    assert!(
        groups[0].notes.is_empty() && groups[2].notes[0].starts_with("moe_torch_flow_min_latency: routed by groups")
    );
    says(read_moe(&table("m.csv", &format!("{HEAD}\n{}\n", rows[3])), &peaks), "", "loads not as stated");
}

/// A series that takes more than twice what another kernel takes is named and left out; a kernel that is slow as a
/// whole stays.
#[test]
fn slow_series_are_named_and_left_out() {
    const HEAD: &str = "device,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_ep_size,distribution,latency_ms";
    let mut text = HEAD.to_string();
    for inner in [256, 512, 768] {
        for tokens in [16, 32, 64, 512] {
            let bad = if inner == 512 { 5.0 } else { 1.0 };
            for (family, ms) in [("good", 1.0), ("mixed", 1.5 * bad), ("slow", 30.0)] {
                text += &format!("\nNVIDIA H100,{family},bfloat16,{tokens},2048,{inner},8,128,1,balanced,{ms}");
            }
        }
    }
    let groups = read_moe(&table("m.csv", &text), &peaks).unwrap();
    let rows: Vec<(&str, usize)> = groups.iter().map(|g| (g.family.as_str(), g.rows.len())).collect();
    assert_eq!(rows, [("good", 12), ("mixed", 8), ("slow", 12)]);
    assert!(groups[0].notes.is_empty(), "{:?}", groups[0].notes);
    assert!(groups[1].notes[0].starts_with("1 of 3 series") && groups[1].notes[0].contains("intermediate 512"));
    assert!(groups[2].notes[0].starts_with("slow throughout: 3 of 3"));
}

/// Heads, windows and widths of keys; decode apart from prompts.
#[test]
fn attention_of_aiconfigurator() {
    const HEAD: &str = "version,kernel_source,batch_size,new_tokens,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,\
                        past_tokens,window_size,latency_ms";
    let read = |rows: &str| read_attention(&table("a.csv", &format!("{HEAD}\n{rows}\n")), "h100", &peaks);
    let groups = read(
        "1,fa3,4,1,64,8,64,bfloat16,fp8,999,0,0.01\n1,fa3,4,1,64,8,64,bfloat16,fp8,999,128,0.01\n1,fa3,2,300,64,8,64,bfloat16,bfloat16,0,100,0.5",
    )
    .unwrap();
    let names: Vec<(&str, &str)> = groups.iter().map(|g| (g.family.as_str(), g.precision.as_str())).collect();
    assert_eq!(names, [("decode fa3", "fp8_wo"), ("fa3", "bfloat16")]);
    let classes: Vec<[u64; 3]> = groups
        .iter()
        .flat_map(|g| &g.rows)
        .map(|r| [r.classes[0].tokens, r.classes[0].keys, r.classes[0].pairs])
        .collect();
    // Of 300 new tokens the first hundred see 1 to 100 keys, the others 100 each.
    assert_eq!(classes, [[1, 1000, 1000], [1, 128, 128], [300, 300, 5050 + 200 * 100]]);
    assert_eq!(groups[0].rows[0].heads.kv_bytes, 128.0);
    assert_eq!(groups[0].cells, ["no window", "window 128"]);
    says(read("1,fa3,4,1,64,7,64,bfloat16,fp8,999,0,0.01"), "line 2, num_key_value_heads", "no multiple");
    says(read("1,fa3,4,1,64,8,64,int8,fp8,999,0,0.01"), "line 2, attn_dtype", "int8");
    says(read("1,fa3,4,1,64,8,64,bfloat16,fp8,-1,0,0.01"), "line 2, past_tokens", "from 0");
    says(read_attention(&table("a.csv", "kernel_source\nx\n"), "h100", &peaks), "line 1", "batch_size");
}

/// Families whose times are those of two kernels are two: TensorRT-LLM's decode by the size of groups, keys of 192 of
/// SGLang.
#[test]
fn kernels_of_one_name_are_told_apart() {
    const HEAD: &str = "kernel_source,batch_size,new_tokens,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,\
                        past_tokens,window_size,latency_ms";
    let row = |family: &str, heads, width, past| {
        let text = format!("{HEAD}\n{family},4,1,{heads},1,{width},bfloat16,bfloat16,{past},0,0.01\n");
        let group = read_attention(&table("a.csv", &text), "h100", &peaks).unwrap().remove(0);
        (group.family, group.rows[0].kernel.pack, group.rows[0].heads.width[1])
    };
    assert_eq!(row("torch_flow", 8, 128, 99), ("decode torch_flow".into(), true, 128.0));
    for heads in [1, 33] {
        assert_eq!(row("torch_flow", heads, 128, 99), ("decode torch_flow multi-head".into(), false, 128.0));
    }
    assert_eq!(row("fa3", 8, 192, 99), ("decode fa3 values 128".into(), true, 128.0));
    // Their fits say which heads they are for.
    let fits = |family: &str, heads, width| {
        let text = format!("{HEAD}\n{family},4,1,{heads},1,{width},bfloat16,bfloat16,99,0,0.01\n");
        let group = read_attention(&table("a.csv", &text), "h100", &peaks).unwrap().remove(0);
        let kernel = measured::attention(Op::DecodeAttention, group, "").unwrap();
        let kernel = kernel.fit(&Source { files: &[], source: None, cross: false });
        let text = toml::to_string(&kernel).unwrap();
        let read: Kernel = toml::from_str(&text).unwrap();
        assert_eq!(read, kernel, "as written");
        assert!(
            toml::from_str::<Kernel>(&text.replace("groups = [[2, 32]]", "groups = [[32, 2]]")).is_err()
                == text.contains("[[2, 32]]")
        );
        [1, 2, 32, 33].map(|group| read.fits_heads([group, 1], [width, width]))
    };
    assert_eq!(fits("torch_flow", 8, 128), [false, true, true, false]);
    assert_eq!(fits("torch_flow", 1, 128), [true, false, false, true]);
    assert_eq!([fits("fa3", 8, 128), fits("fa3", 8, 192)], [[true; 4], [false; 4]]);
    assert_eq!(attention_heads("fa3 values 128"), (vec![], Some([192, 128])));
    // FlashAttention packs prompts too.
    assert_eq!(row("trtllmprefill", 8, 128, 0), ("trtllmprefill".into(), false, 128.0));
    assert_eq!(row("vllm_flash_attn_fa3", 8, 128, 0), ("vllm_flash_attn_fa3".into(), true, 128.0));
    // Prompts of one token of a kernel that decodes are left out, as those say that stay: here another of its engine's.
    let single = "v_trtllmdecode,4,1,8,1,128,bfloat16,bfloat16,0,0,0.01";
    let others = "v_trtllmprefill,4,9,8,1,128,bfloat16,bfloat16,0,0,0.01\nfa3,4,9,8,1,128,bfloat16,bfloat16,0,0,0.01";
    let groups = read_attention(&table("a.csv", &format!("{HEAD}\n{single}\n{others}\n")), "h100", &peaks).unwrap();
    assert!(groups[0].notes[0].starts_with("v_trtllmdecode: 1 prompts of one token left out"), "{:?}", groups[0].notes);
    assert!(groups[1].notes.is_empty());
    let alone = read_attention(&table("a.csv", &format!("{HEAD}\n{single}\n")), "h100", &peaks);
    says(alone, "", "v_trtllmdecode: 1 prompts of one token");
}

/// Latent attention: absorbed where it decodes and in SGLang's FlashAttention, expanded elsewhere.
#[test]
fn latent_attention_of_aiconfigurator() {
    const HEAD: &str = "framework,version,kernel_source,mla_dtype,kv_cache_dtype,num_heads,batch_size,new_tokens,tp_size,past_tokens,\
                        latency_ms,phase";
    let read = |rows: &str| read_mla(&table("a.csv", &format!("{HEAD}\n{rows}\n")), "h100", &peaks);
    let groups = read(
        "T,1,default,bfloat16,fp8,16,4,1,4,999,0.01,generation\nT,1,default,bfloat16,bfloat16,16,4,8,4,0,0.01,context\n\
         S,1,flash_attention,bfloat16,bfloat16,16,4,8,4,0,0.01,context",
    )
    .unwrap();
    let found: Vec<_> = groups.iter().map(|g| (&g.family[..], &g.precision[..], g.rows[0].heads)).collect();
    let expanded = AttentionHeads { query: 16, kv: 16, width: [192.0, 128.0], kv_bytes: 640.0, query_bytes: 2.0 };
    let absorbed = AttentionHeads { query: 16, kv: 1, width: [576.0, 512.0], kv_bytes: 1152.0, query_bytes: 2.0 };
    let wanted = [
        ("decode T default", "fp8_wo", AttentionHeads { kv_bytes: 576.0, ..absorbed }),
        ("prefill T default", "bfloat16", expanded),
        ("prefill S flash_attention", "bfloat16", absorbed),
    ];
    assert_eq!(found, wanted);
    let kernels: Vec<[bool; 2]> = groups.iter().map(|g| [g.rows[0].kernel.pack, g.rows[0].kernel.split]).collect();
    assert_eq!(kernels, [[true, true], [false, false], [true, false]]);
    assert_eq!(groups[0].rows[0].classes[0].keys, 1000);
    says(read("T,1,x,bfloat16,fp8,16,4,1,4,9,0.01,both"), "line 2, phase", "both");
    says(read("T,1,x,int8,fp8,16,4,1,4,9,0.01,context"), "line 2, mla_dtype", "int8");
}

/// Rows are priced by the choices of the kernel that they are compared with, not by those of the one that ran them.
#[test]
fn rows_are_compared_with_a_kernels_own_choices() {
    let from = Source { files: &[], source: None, cross: false };
    // One tall product and one long sequence: splits pay for both.
    let products = table("g.csv", "kernel_source,gemm_dtype,m,n,k,latency_ms\nlinear,bfloat16,4,256,65536,0.017\n");
    let group = || read_gemm(&products, "h100", &peaks).unwrap().remove(0);
    let gemm = |kernel| measured::gemm(Op::Gemm, GemmForm::cold(kernel), group(), "");
    let whole = gemm(GemmKernel::WIDE).fit(&from);
    let wanted = GemmForm::cold(GemmKernel::WIDE).seconds(&whole.values().unwrap(), &group().rows[0]);
    for kernel in [GemmKernel::WIDE, GemmKernel::CUBLAS] {
        assert_eq!(gemm(kernel).compare(&whole).unwrap().unwrap().rows[0].predicted_s, wanted);
    }
    const HEAD: &str = "kernel_source,batch_size,new_tokens,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,\
                        past_tokens,window_size,latency_ms";
    let sequences = table("a.csv", &format!("{HEAD}\nfa3,1,1,8,1,128,bfloat16,bfloat16,131071,0,0.05\n"));
    let group = read_attention(&sequences, "h100", &peaks).unwrap().remove(0);
    let own = group.rows[0].kernel;
    let decode = measured::attention(Op::DecodeAttention, group, "").unwrap();
    let seconds = |split: bool| {
        let form = KernelForm::Attention { kernel: AttentionKernel { split, ..own } };
        decode.compare(&Kernel { form, ..decode.fit(&from) }).unwrap().unwrap().rows[0].predicted_s
    };
    assert!(own.split && seconds(false) > 2.0 * seconds(true), "{} {}", seconds(false), seconds(true));
}

/// Latent decode on H100: numbers of heads that the fit has not seen, within 10 %.
#[test]
fn latent_decode_is_predicted() {
    let Some(table) = real("h100/mla.csv.gz") else { return };
    let bf16 = |_: &str, _: &str| Ok(Peaks { flop_per_s: 989.4e12, ..H800 });
    let groups = read_mla(&table, "h100", &bf16).unwrap();
    let group = groups.iter().find(|g| g.family == "decode TRTLLM default" && g.precision == "bfloat16").unwrap();
    let off = unseen(&AttentionForm, group);
    assert!(off < 0.10, "{off}");
}

#[test]
fn gemms_of_aiconfigurator() {
    let read = |rows: &str| {
        let text = format!("kernel_source,gemm_dtype,m,n,k,latency_ms\n{rows}\n");
        read_gemm(&table("g.csv", &text), "h100", &peaks)
    };
    let groups = read("linear,bfloat16,4,256,65536,0.017\ndeepgemm,fp8_block,128,256,512,0.005").unwrap();
    let names = |g: &Group<_>| [g.device.clone(), g.family.clone(), g.precision.clone()];
    let kernels: Vec<GemmKernel> = groups.iter().map(|g| gemm_kernel(names(g).each_ref().map(|n| &**n))).collect();
    assert_eq!(kernels, [GemmKernel::CUBLAS, GemmKernel { rounds: true, ..GemmKernel::WIDE }]);
    let tiling = |device, family, precision| {
        let kernel = gemm_kernel([device, family, precision]);
        (kernel.tiling, kernel.least_tile)
    };
    assert_eq!(tiling("H100", "sgl_kernel_fp8_scaled_mm", "fp8"), (GemmTiling::Rows, 64.0));
    // Devices are named in capitals or not.
    for device in ["NVIDIA B200", "b200"] {
        assert_eq!(tiling(device, "sgl_kernel_fp8_scaled_mm", "fp8"), (GemmTiling::Best, 128.0));
        assert_eq!(tiling(device, "torch_flow", "nvfp4"), (GemmTiling::Single, 128.0));
    }
    assert!((groups[0].seconds[0] / 1.7e-5 - 1.0).abs() < 1e-12);
    assert_eq!(groups[1].rows[0].element_bytes, [1.0, 1.0, 2.0]);
    says(read("linear,int3,4,256,65536,0.017"), "line 2, gemm_dtype", "int3");
    says(read("linear,bfloat16,0,256,65536,0.017"), "line 2, m", "from 1");
}

/// Elements become bytes, what is from 8 MiB on is NCCL's, and a row far above both neighbours is left out by name.
#[test]
fn custom_all_reduces() {
    let links = |_: &str| Ok(LinkPeaks { link_bytes_per_s: 450e9, nic_bytes_per_s: 5e10, bytes_per_s: 3.35e12 });
    let read = |rows: &str| {
        let text = format!("kernel_source,allreduce_dtype,num_gpus,message_size,latency_ms\n{rows}\n");
        read_custom_all_reduce(&table("c.csv", &text), "h100", &links)
    };
    let groups =
        read("x_graph,bfloat16,8,128,0.004\nx_graph,bfloat16,8,8388608,0.1\nx_eager,bfloat16,8,128,0.02").unwrap();
    assert_eq!(groups.iter().map(|g| g.rows.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!((groups[0].rows[0].bytes, groups[0].seconds[0]), (256.0, 4e-6));
    assert!(groups[0].notes[0].starts_with("1 rows"));
    let rows = [(2, 128, 4), (2, 256, 9), (2, 512, 5), (2, 1024, 9), (4, 128, 8), (4, 256, 5)];
    let text: Vec<String> = rows.iter().map(|(n, s, t)| format!("x,bfloat16,{n},{s},0.00{t}")).collect();
    // A row that was measured twice is judged by other sizes, not by itself: 512 bytes take 9 us both times.
    let twice = [&text[..], &text[1..2]].concat();
    assert_eq!(read(&twice.join("\n")).unwrap()[0].seconds, [4e-6, 5e-6, 9e-6, 5e-6]);
    let groups = read(&text.join("\n")).unwrap();
    assert_eq!(groups[0].seconds, [4e-6, 5e-6, 9e-6, 5e-6]);
    assert!(groups[0].notes[0].contains("512 bytes on 2 devices, 9.0 us; 256 bytes on 4 devices, 8.0 us"));
    says(read("x,int8,8,128,0.004"), "line 2, allreduce_dtype", "int8");
    says(read("x,bfloat16,1,128,0.004"), "line 2, num_gpus", "from 2");
}
