use super::*;

/// The count as printed and one unit of its last digit: publishers round, truncate, or count norms.
fn printed(text: &str) -> (f64, f64) {
    let (number, unit) = text.split_once(' ').unwrap();
    let unit = if unit == "T" { 1e12 } else { 1e9 };
    let decimals = number.split_once('.').map_or(0, |(_, d)| d.len() as i32);
    (number.parse::<f64>().unwrap() * unit, unit / 10f64.powi(decimals))
}

#[test]
fn parameter_counts_are_the_published_ones() {
    for preset in presets() {
        let m = Model::load(preset.name).unwrap();
        assert_eq!(m.name, preset.name);
        assert!(m.source.starts_with("https://"), "{}: {}", m.name, m.source);
        for (ours, theirs) in [(m.total_parameters(), &m.published.total), (m.active_parameters(), &m.published.active)]
        {
            // Some publish no active count.
            if theirs.is_empty() {
                continue;
            }
            let (value, digit) = printed(theirs);
            let off = (ours as f64 - value).abs();
            assert!(off <= (0.01 * value).max(digit), "{}: {ours} against {theirs}", m.name);
        }
    }
}

#[test]
fn layers_expand_as_the_files_say() {
    let m = Model::load("gpt-oss-20b").unwrap();
    assert_eq!(m.moe_layers(), (0..24).collect::<Vec<_>>());
    assert_eq!((m.decoder[0].attention.span, m.decoder[1].attention.span), (Span::Window(128), Span::Full));
    assert_eq!((m.kv_tokens_held(0, 500), m.kv_tokens_held(1, 500), m.kv_tokens_held(99, 500)), (128, 500, 0));
    // 3 x 2880 x 2880 weights and 3 x 2880 biases at 4.25 bits.
    assert_eq!(m.decoder[0].expert_weight_bytes(&m, 31), (24_883_200 + 8_640) * 17 / 32);
    assert_eq!(m.decoder[0].expert_weight_bytes(&m, 32), 0);
    // 8 KV heads of 64, keys and values, 16 bits.
    assert_eq!(m.kv_bytes_per_token(0), 2 * 8 * 64 * 2);
    let v3 = Model::load("deepseek-v3").unwrap();
    assert_eq!((v3.moe_layers().len(), v3.moe_layers()[0], v3.kv_bytes_per_token(60)), (58, 3, (512 + 64) * 2));
    assert_eq!(v3.decoder[0].dense_weight_bytes(&v3).div_ceil(1 << 20), 379);
    assert_eq!(v3.decoder[0].shared_weight_bytes(&v3), 0);
    let r1 = Model::load("deepseek-r1").unwrap();
    assert_eq!((r1.decoder, r1.mtp_layers), (v3.decoder, 1));
    let maverick = Model::load("llama-4-maverick").unwrap();
    assert_eq!((maverick.moe_layers().len(), maverick.moe_layers()[0]), (24, 1));
    assert_eq!(maverick.decoder[3].attention.span, Span::Full);
}

#[test]
fn spans_hold_what_they_say() {
    let held = |span: Span| [0, 1, 8, 9, 16, 17].map(|c| span.tokens_held(c));
    assert_eq!(held(Span::Full), [0, 1, 8, 9, 16, 17]);
    assert_eq!(held(Span::Window(8)), [0, 1, 8, 8, 8, 8]);
    assert_eq!(held(Span::Chunk(8)), [0, 1, 8, 1, 8, 1]);
}

#[test]
fn encoder_decoder_models_and_unequal_experts() {
    let text = r#"
        name = "t"
        source = "none"
        hidden = 64
        vocabulary = 100
        tied_embedding = true
        [encoder]
        layers = 2
        moe_every = 2
        moe_offset = 1
        attention = { heads = { gqa = { heads = 4, kv_heads = 4, head_dim = 16 } } }
        dense = { intermediate = 128, matrices = 2 }
        moe = { experts = 2, top_k = 1, expert_intermediate = 0, matrices = 2, expert_sizes = [64, 128] }
        [decoder]
        layers = 1
        dense_layers = [0]
        attention = { heads = { gqa = { heads = 4, kv_heads = 4, head_dim = 16 } } }
        cross = { heads = { gqa = { heads = 4, kv_heads = 4, head_dim = 16 } }, pattern = ["cross"] }
        dense = { intermediate = 128, matrices = 2 }
        [precision]
        attention = 16
        router = 16
        experts = 16
        shared = 16
        dense = 16
        embedding = 16
        head = 16
        kv = 16
        activation = 16
        [published]
    "#;
    let m = Model::from_table(text.parse().unwrap(), "t").unwrap();
    let moe = &m.encoder[1];
    assert_eq!([0, 1].map(|e| moe.expert_weight_bytes(&m, e)), [2 * 2 * 64 * 64, 2 * 2 * 64 * 128]);
    let attention = 4 * 64 * 64;
    let total = 100 * 64 + 4 * attention + 2 * (2 * 64 * 128) + 2 * 64 + 2 * 64 * (64 + 128);
    assert_eq!(m.total_parameters(), total);
    assert_eq!((m.head_bytes(), m.decoder[0].attention_weight_bytes(&m)), (0, 2 * 2 * attention));
}

#[test]
fn wrong_sizes_are_refused_with_key_and_rule() {
    let refuse = |change: &str| {
        let mut t = toml::Table::new();
        t.insert("base".into(), "mixtral-8x7b".into());
        moesim_core::config::set(&mut t, change).unwrap();
        let e = Model::from_table(t, "m.toml").unwrap_err();
        assert_eq!(e.exit_code(), 2);
        e.to_string()
    };
    assert_eq!(refuse("decoder.moe.top_k=9"), "m.toml: decoder.moe.top_k: 9 is out of range; give from 1 to 8");
    for (change, word) in [
        ("hidden=0", "hidden"),
        ("hidden=4000000000", "hidden"),
        ("decoder.layers=1000000", "4096"),
        ("decoder.moe.experts=65535", "65534"),
        ("decoder.dense_layers=[1]", "[decoder.dense]"),
        ("decoder.dense_layers=[32]", "number of layers"),
        ("decoder.attention.pattern=[\"window:0\"]", "window:TOKENS"),
        ("decoder.attention.heads.gqa.kv_heads=33", "kv_heads"),
        ("precision.kv=nan", "precision.kv"),
        ("decoder.moe.expert_sizes=[1]", "one an expert"),
        ("decoder.moe.expertz=8", "`experts`"),
        ("base=mixtrel-8x7b", "did you mean \"mixtral-8x7b\"?"),
        ("hidden=-1", "hidden: integer `-1` has no place here; write a whole number"),
    ] {
        let text = refuse(change);
        assert!(text.starts_with("m.toml: ") && text.contains(word), "{change}: {text}");
    }
    assert!(refuse("decoder.moe={ experts = 65534, top_k = 1, expert_intermediate = 1048576 }").contains("2^50"));
}

#[test]
fn zero_compute_experts_are_ids_without_weights() {
    let mut t = toml::Table::new();
    t.insert("base".into(), "mixtral-8x7b".into());
    let set = |t: &mut toml::Table, change: &str| moesim_core::config::set(t, change).unwrap();
    let before = Model::from_table(t.clone(), "m.toml").unwrap();
    set(&mut t, "decoder.moe.zero_experts=3");
    set(&mut t, "decoder.moe.constant_experts=5");
    set(&mut t, "decoder.moe.top_k=4");
    let m = Model::from_table(t.clone(), "m.toml").unwrap();
    let moe = m.decoder[0].moe().unwrap();
    assert_eq!((moe.experts, moe.ids(), moe.zero_compute()), (8, 16, 8));
    // Eight more rows of the router and five times three vectors.
    assert_eq!(m.total_parameters() - before.total_parameters(), 32 * (8 + 15) * 4096);
    // Four of sixteen ids are as many experts with weights as two of eight.
    assert_eq!(m.active_parameters() - before.active_parameters(), 32 * (8 + 15) * 4096);
    assert!(Model::from_table(t.clone(), "m.toml").is_ok());
    set(&mut t, "decoder.moe.zero_experts=65530");
    let e = Model::from_table(t, "m.toml").unwrap_err().to_string();
    assert!(e.contains("decoder.moe.zero_experts") && e.contains("65534"), "{e}");
}

/// Grove MoE (arXiv 2508.07785) is made of Qwen3-30B-A3B and has 33 B parameters: 64 groups of two experts with common parts
/// of width 128 agree with that.
#[test]
fn groups_with_common_parts_count_them() {
    let mut t = toml::Table::new();
    t.insert("base".into(), "qwen3-30b-a3b".into());
    for change in ["decoder.moe.groups=64", "decoder.moe.group_intermediate=128"] {
        moesim_core::config::set(&mut t, change).unwrap();
    }
    let m = Model::from_table(t.clone(), "m.toml").unwrap();
    let moe = m.decoder[0].moe().unwrap();
    assert!((moe.groups_hit() - 64.0 * (1.0 - 120.0 * 119.0 / (128.0 * 127.0))).abs() < 1e-9);
    let (total, active) = (m.total_parameters() as f64 / 1e9, m.active_parameters() as f64 / 1e9);
    assert!((32.5..33.5).contains(&total), "{total}");
    let plain = Model::load("qwen3-30b-a3b").unwrap().active_parameters() as f64 / 1e9;
    let part = 48.0 * 3.0 * 2048.0 * 128.0 / 1e9;
    assert!((active - plain - moe.groups_hit() * part).abs() < 1e-6 && moe.groups_hit() > 7.7);
    for (change, word) in
        [("decoder.moe.groups=7", "divisor"), ("decoder.moe.group_intermediate=0", "group_intermediate")]
    {
        let mut t = t.clone();
        moesim_core::config::set(&mut t, change).unwrap();
        assert!(Model::from_table(t, "m.toml").unwrap_err().to_string().contains(word));
    }
}

#[test]
fn factors_count_their_own_parameters() {
    let set = |changes: &[&str]| {
        let mut t = toml::Table::new();
        t.insert("base".into(), "mixtral-8x7b".into());
        changes.iter().for_each(|c| moesim_core::config::set(&mut t, c).unwrap());
        Model::from_table(t, "m.toml")
    };
    let m = set(&["decoder.moe.expert_rank=1024", "decoder.moe.expert_base=true"]).unwrap();
    let moe = m.decoder[0].moe().unwrap();
    assert_eq!(moe.expert_parameters(4096, 7), 3 * 1024 * (4096 + 14336));
    assert_eq!(moe.base_parameters(4096), 3 * 4096 * 14336);
    let whole = Model::load("mixtral-8x7b").unwrap().total_parameters();
    let saved = 8 * (3 * 4096 * 14336 - 3 * 1024 * (4096 + 14336)) - 3 * 4096 * 14336;
    assert_eq!(whole - m.total_parameters(), 32 * saved);
    assert!(set(&["decoder.moe.expert_base=true"]).unwrap_err().to_string().contains("expert_rank"));
    assert!(set(&["decoder.moe.expert_rank=4000000000"]).unwrap_err().to_string().contains("decoder.moe.expert_rank"));
}

#[test]
fn stacks_follow_each_other_and_attention_may_have_experts() {
    let set = |base: &str, changes: &[&str]| {
        let mut t = toml::Table::new();
        t.insert("base".into(), base.into());
        changes.iter().for_each(|c| moesim_core::config::set(&mut t, c).unwrap());
        Model::from_table(t, "m.toml")
    };
    let attention = "attention = { heads = { gqa = { heads = 32, kv_heads = 8, head_dim = 128 } } }";
    let second =
        |layers: u32, moe: &str| format!("decoder_stack=[{{ layers = {layers}, {attention}, moe = {{ {moe} }} }}]");
    let m =
        set("mixtral-8x7b", &["decoder.layers=3", &second(2, "experts = 16, top_k = 4, expert_intermediate = 7168")]);
    let m = m.unwrap();
    let shape = |l: usize| m.decoder[l].moe().map(|m| (m.experts, m.top_k, m.expert_intermediate)).unwrap();
    assert_eq!((m.decoder.len(), shape(2), shape(3), shape(4)), (5, (8, 2, 14336), (16, 4, 7168), (16, 4, 7168)));
    let whole = Model::load("mixtral-8x7b").unwrap();
    let gate = 8 * 4096;
    assert_eq!(
        whole.total_parameters() - m.total_parameters(),
        27 * whole.decoder[0].parameters(4096).0 as u64 - 2 * gate
    );
    for (changes, word) in [
        (vec![second(4090, "experts = 1, top_k = 1, expert_intermediate = 1")], "4122 layers"),
        (vec![second(1, "experts = 1, top_k = 2, expert_intermediate = 1")], "decoder_stack[0].moe.top_k"),
        (vec!["decoder.attention.experts=4".into()], "decoder.attention.top_k"),
        (vec!["decoder.attention.top_k=4".into()], "no experts"),
        (vec!["decoder.moe.capacity_factor=0".into()], "decoder.moe.capacity_factor"),
        (vec!["decoder.moe.capacity_factor=nan".into()], "decoder.moe.capacity_factor"),
        (vec!["decoder.moe.capacity_padding=true".into()], "capacity_factor"),
    ] {
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        let text = set("mixtral-8x7b", &changes).unwrap_err().to_string();
        assert!(text.starts_with("m.toml: ") && text.contains(word), "{changes:?}: {text}");
    }
    let latent = set("deepseek-v3", &["decoder.attention.experts=4", "decoder.attention.top_k=1"]);
    assert!(latent.unwrap_err().to_string().contains("latent"));
    for norm in ["head", "layer"] {
        let text = set("deepseek-v3", &[&format!("decoder.attention.qk_norm={norm}")]).unwrap_err().to_string();
        assert!(text.starts_with("m.toml: decoder.attention.qk_norm: norms of queries and keys of latent"), "{text}");
    }
    // Eight queries and outputs of 2048 x 2048, two of them at work, and the gate.
    let a = &Model::load("jetmoe-8b").unwrap().decoder[0].attention;
    let (matrix, gate) = (2048 * 2048, 8 * 2048);
    assert_eq!((a.parameters(2048), a.active_parameters(2048)), (18 * matrix + gate, 6 * matrix + gate));
}
