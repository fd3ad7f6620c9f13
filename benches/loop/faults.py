"""Trainers that are broken on purpose, and changes that look like it and are not: edits of this repository's sources.

Each case is a name and edits `(file, old, new)`; an edit whose place is gone stops the experiment.
"""
OPTIMIZER = "crates/alpha-tensor/src/cpu/optimizer.rs"
ATTENTION = "crates/alpha-tensor/src/cpu/attention.rs"
EMBEDDING = "crates/alpha-tensor/src/cpu/embedding.rs"
GEMM = "crates/alpha-tensor/src/cpu/gemm.rs"
STEPS = "crates/alpha-train/src/trainer/steps.rs"
SAMPLER = "crates/alpha-train/src/inspect/sampler.rs"

LR = "let (lr, update_count) = (f64::from(memory.args.lr), "
SCALE = "let scale = 1.0 / (head_dim as f32).sqrt();"
BATCH = "self.loaders.train.batch(step, micro_step as u32, tokens, targets)?;\n"
BF16 = """for x in &mut *{0} {{
                    let bits = x.to_bits();
                    *x = f32::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) & 0xffff_0000);
                }}
"""
PACKED_B = "unsafe { pack_b(s, depth, n, view.offset(k_start, 0), packed_b) };\n"
PACKED_A = "pack_a(s, rows, depth, here, packed_a);\n"

TRAINERS = [
    ("learning rate doubled", [(OPTIMIZER, LR, LR.replace("f64", "2.0 * f64"))]),
    ("no clip", [(OPTIMIZER, "s.splat(clip_coef / memory.args.loss_scale)", "s.splat(1.0 / memory.args.loss_scale)")]),
    ("half batch", [(STEPS, BATCH, BATCH + """            let half = tokens.len() / 2;
            tokens.copy_within(..half, half);
            targets.copy_within(..half, half);
""")]),
    ("step 7 skipped", [(OPTIMIZER, "if !is_applied {", "if !is_applied || memory.args.step == 7 {")]),
    ("gradient of wpe dropped", [(EMBEDDING, "for (tensor, target) in [(&op.dwte, token as usize), (&op.dwpe, row % op.block)]",
                                  "for (tensor, target) in [(&op.dwte, token as usize)]")]),
    ("batch 7 repeats batch 6", [(STEPS, BATCH, BATCH.replace("batch(step", "batch(if step == 7 { 6 } else { step }"))]),
    ("no bias correction", [(OPTIMIZER, "1.0 - f64::from(op.beta1).powi(update_count)", "1.0 + 0.0 * f64::from(update_count)"),
                            (OPTIMIZER, "1.0 - f64::from(op.beta2).powi(update_count)", "1.0 + 0.0 * f64::from(update_count)")]),
    ("weight decay a tenth too large", [(OPTIMIZER, "lr * f64::from(op.weight_decay)", "1.1 * lr * f64::from(op.weight_decay)")]),
    ("eps × 100", [(OPTIMIZER, "s.splat(op.eps)", "s.splat(100.0 * op.eps)")]),
    ("attention scale off by 1 %", [(ATTENTION, SCALE, SCALE.replace("1.0", "1.01"))] * 3),
    ("learning rate 1 % up from step 50",
     [(OPTIMIZER, LR, LR.replace("f64", "if memory.args.step < 50 { 1.0 } else { 1.01 } * f64"))]),
    ("bf16 operands, undeclared", [(GEMM, PACKED_B, PACKED_B + BF16.format("packed_b")), (GEMM, PACKED_A, PACKED_A + BF16.format("packed_a"))]),
]

SAMPLERS = [
    ("cache position off by one", [(SAMPLER, "RunArgs { position: context,", "RunArgs { position: context.saturating_sub(1),")]),
    ("temperature 2 % off", [(SAMPLER, "/ f64::from(options.temp)", "/ (0.98 * f64::from(options.temp))")]),
    ("sampling draws from the data stream", [
        (STEPS, BATCH, BATCH.replace("batch(step", "batch(step + DRAWN.load(std::sync::atomic::Ordering::Relaxed)")),
        (STEPS, "        let mut sampler = Sampler::new(", "        DRAWN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);\n        let mut sampler = Sampler::new("),
        (STEPS, "impl Training<'_> {", "static DRAWN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);\n\nimpl Training<'_> {"),
    ]),
]

HARMLESS = [
    ("sums of products cut at another place", [(GEMM, "K_BLOCK: usize = 256", "K_BLOCK: usize = 96")]),
    ("multiply and add rounded apart in AdamW", [(OPTIMIZER, "s.fma(beta1, load_at(s, moment1, at, len), s.mul(rest1, g))",
                                                 "s.add(s.mul(beta1, load_at(s, moment1, at, len)), s.mul(rest1, g))")]),
    ("one thread instead of all", [("crates/alpha/src/resolve/backend.rs", "flags.threads.unwrap_or(cores)", "flags.threads.unwrap_or(1)")]),
]
