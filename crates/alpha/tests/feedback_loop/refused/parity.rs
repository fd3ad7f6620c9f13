//! The same training, only sooner: broken trainers and samplers are refused by the name of what they break; rounding is
//! accepted.
//!
//! Every fault is put on top of a true gain, so that nothing but parity stands in its way.

use crate::{
    changes::{Edits, FASTER, REASSOCIATED, RENAMED, REORDERED},
    toy::Toy,
};

/// A fault and the names of checks, one of which must be given as the reason.
struct Fault<'a> {
    edits: Edits<'a>,
    caught_by: &'a [&'a str],
}

const LOSS: &[&str] = &[
    "loss_1_5",
    "grad_norm_1_5",
    "loss_6_20",
    "grad_norm_6_20",
    "loss_21_on",
    "grad_norm_21_on",
    "loss_fifths",
    "held_out",
    "updates",
];
const EARLY: &[&str] = &["loss_1_5", "grad_norm_1_5", "updates", "loss_6_20", "grad_norm_6_20"];

/// Each on the same baseline, in turn.
#[track_caller]
fn refused(faults: &[Fault<'_>]) {
    let toy = Toy::new();
    toy.begin();
    for fault in faults {
        toy.refuses(fault.edits, fault.caught_by);
    }
    toy.alpha(&["commit", "-m", "broken"]).failed(4, &["hint: "]);
}

#[test]
fn a_wrong_optimizer_is_refused() {
    refused(&[
        Fault { edits: &[("LR, WARMUP = 0.03", "LR, WARMUP = 0.06")], caught_by: EARLY },
        Fault { edits: &[("DECAY, CLIP = 0.1, 0.3", "DECAY, CLIP = 0.1, 1e9")], caught_by: EARLY },
        Fault { edits: &[("DECAY, CLIP = 0.1, 0.3", "DECAY, CLIP = 0.01, 0.3")], caught_by: EARLY },
        Fault { edits: &[("1e-6", "1e-4")], caught_by: EARLY },
        Fault {
            edits: &[("first, second = 1 - BETA1**s.step, 1 - BETA2**s.step", "first, second = 1.0, 1.0")],
            caught_by: EARLY,
        },
    ]);
}

#[test]
fn other_data_is_refused() {
    const READ: &str = "s.read(loader.batch(batch))";
    refused(&[
        Fault { edits: &[("BATCH = 2", "BATCH = 1")], caught_by: &["tokens"] },
        // The loader gives as many tokens as before, of which half are left out.
        Fault { edits: &[(READ, "s.read(loader.batch(batch)[:1])")], caught_by: EARLY },
        Fault {
            edits: &[(READ, "if step % 2:\n            s.windows = loader.batch(batch)\n        s.read(s.windows)")],
            caught_by: &["tokens"],
        },
        Fault {
            edits: &[(
                READ,
                "fresh = loader.batch(batch)\n        if step % 2:\n            s.windows = fresh\n        s.read(s.windows)",
            )],
            caught_by: EARLY,
        },
    ]);
}

#[test]
fn a_wrong_gradient_is_refused() {
    refused(&[
        Fault {
            edits: &[(
                "s.grads[\"hidden.bias\"] = [[sum(column) for column in columns]]",
                "s.grads[\"hidden.bias\"] = [[0.0] * HIDDEN]",
            )],
            caught_by: &["zero_gradient", "updates", "grad_norm_1_5", "loss_1_5"],
        },
        Fault { edits: &[("SCALE = WIDTH**-0.5", "SCALE = 1.01 * WIDTH**-0.5")], caught_by: EARLY },
        Fault {
            edits: &[
                ("return sum(map(mul, a, b))", "return rounded(sum(map(mul, a, b)))"),
                (
                    "def dot(a, b):",
                    "def rounded(x):\n    return struct.unpack(\">f\", struct.pack(\">f\", x)[:2] + b\"\\0\\0\")[0]\n\n\ndef dot(a, b):",
                ),
            ],
            caught_by: EARLY,
        },
    ]);
}

#[test]
fn steps_that_are_left_out_are_refused() {
    refused(&[
        Fault {
            edits: &[("    first, second = 1", "    if s.step == 7:\n        return\n    first, second = 1")],
            caught_by: &["loss_6_20", "grad_norm_6_20", "updates"],
        },
        // Right as long as steps are compared closely: a kernel is left out from step 50 on.
        Fault {
            edits: &[(
                "            kernel(s)\n            spin",
                "            if step < 50 or kernel != attention_backward:\n                kernel(s)\n            spin",
            )],
            caught_by: LOSS,
        },
    ]);
}

#[test]
fn a_broken_sampler_is_refused() {
    refused(&[
        Fault { edits: &[("[-BLOCK:])[-1]", "[-BLOCK:])[-2]")], caught_by: &["greedy"] },
        Fault { edits: &[("logit / temperature for", "logit / (1.3 * temperature) for")], caught_by: &["seeded"] },
        Fault { edits: &[("16, 1.0, Random(seed, 3)", "16, 1.0, loader.random")], caught_by: &["sampling"] },
    ]);
}

/// A comparison without a gain leaves sampling out; a commit does not.
#[test]
fn a_broken_sampler_does_not_land_without_a_claim() {
    let toy = Toy::new();
    toy.begin();
    let parent = toy.head();
    toy.change(RENAMED);
    toy.change(&[("[-BLOCK:])[-1]", "[-BLOCK:])[-2]")]);
    toy.json(&["compare"]).says("SAME", 4);
    toy.alpha(&["commit", "--no-claim", "-m", "better names"]).failed(4, &["sampling_greedy", "hint: "]);
    assert_eq!(toy.head(), parent);
}

#[test]
fn rounding_is_let_through() {
    let toy = Toy::new();
    toy.begin();
    for change in [REASSOCIATED, REORDERED] {
        toy.restore();
        toy.change(FASTER);
        toy.change(change);
        let compared = toy.json(&["compare"]).says("FASTER", 0);
        assert_eq!(compared.object["parity"]["passed"], true, "{:#}", compared.object);
    }
}

#[test]
fn bit_identity_was_asked_for() {
    let toy = Toy::new();
    toy.alpha(&["start", "the same bits", "--area=attention", "--parity=t0"]).succeeded();
    toy.change(FASTER);
    toy.change(REASSOCIATED);
    let compared = toy.json(&["compare"]);
    compared.is_refused_for(&["loss", "grad_norm", "bits"]);
}
