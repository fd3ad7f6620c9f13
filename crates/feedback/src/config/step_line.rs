//! The forms of step lines: those of known trainers, and a regular expression for any other.
//!
//! Each form was read in its trainer's source. Only step, loss and gradient norm are taken from a line: the times in it
//! are often averages, or end before a device has finished.

use pairbench::pair::lines::{StepLine, StepLines};
use regex::{Captures, Regex};

/// The form of the lines that end a step.
#[derive(Clone, Debug)]
pub struct StepForm {
    /// Its name in `loop.toml`: a trainer's, or `regex`.
    pub name: String,
    regex: Regex,
    average: Option<Average>,
}

/// A printed loss that is a debiased exponential moving average with this decay, over all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Average {
    decay: f64,
}

/// What a step line says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Printed {
    /// Its step.
    pub line: StepLine,
    /// The loss, if the form has one.
    pub loss: Option<Number>,
    /// The gradient norm, if the form has one.
    pub grad_norm: Option<Number>,
}

/// A printed number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// Its value; NaN for `nan`.
    pub value: f64,
    /// The distance to the next number that would be printed otherwise.
    pub unit: f64,
    /// Whether it has an exponent: then its unit is its own, whatever other numbers have.
    pub is_scientific: bool,
}

/// A known trainer's form. `F` in the expression stands for a number.
struct Known {
    name: &'static str,
    expression: &'static str,
    decay: Option<f64>,
}

const fn known(name: &'static str, expression: &'static str) -> Known {
    Known { name, expression, decay: None }
}

/// The decay of nanochat's average (`scripts/base_train.py`, `ema_beta`).
const NANOCHAT_DECAY: f64 = 0.9;

/// nanochat's line, which autoresearch also prints.
const NANOCHAT: &str = r"\bstep (?<step>\d+)(?:/\d+)? \([^)]*\) \| loss: (?<loss>F) \|";

const KNOWN: [Known; 12] = [
    known("nanogpt", r"\biter (?<step>\d+): loss (?<loss>F), time"),
    known("llm.c", r"\bstep +(?<step>\d+)/\d+ \| (?:train )?loss +(?<loss>F)[^|]*\| norm +(?<grad_norm>F)"),
    known("llm.c-cpu", r"\bstep +(?<step>\d+)(?:/\d+)?: train loss (?<loss>F) \("),
    Known { name: "nanochat", expression: NANOCHAT, decay: Some(NANOCHAT_DECAY) },
    Known { name: "autoresearch", expression: NANOCHAT, decay: Some(NANOCHAT_DECAY) },
    known("torchtitan", r"\bstep: *(?<step>\d+) +loss: *(?<loss>F) +grad_norm: *(?<grad_norm>F)"),
    known("megatron", r"\biteration +(?<step>\d+)/ *\d+ \|.*\| lm loss: (?<loss>F) \|.*\| grad norm: (?<grad_norm>F)"),
    known("huggingface", r"\{'loss': '?(?<loss>F)'?, 'grad_norm': '?(?<grad_norm>F)'?, 'learning_rate'"),
    known("litgpt", r"\bEpoch \d+ \| iter \d+ step (?<step>\d+) \| loss train: (?<loss>F),.*\(step\)"),
    known("maxtext", r"\bcompleted step: (?<step>\d+), .*\bloss: (?<loss>F)"),
    known("mlx-lm", r"(?:\bIter |^ *)(?<step>\d+)(?:: Train loss | {4} *)(?<loss>F)(?:,| [▼▲])"),
    known("modded-nanogpt", r"\bstep:(?<step>\d+)/\d+ train_time:\d+ms step_avg"),
];

/// A number as programs print it, with thousands commas.
const NUMBER: &str = r"(?i:[-+]?(?:\d[\d,]*\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|(?:nan|inf(?:inity)?)\b))";

/// The expression with [`NUMBER`] for each `F` that stands alone between a group's name and its end.
pub(crate) fn with_numbers(expression: &str) -> String {
    expression.replace(">F)", &format!(">{NUMBER})"))
}

/// A regular expression that is not the form of a step line.
#[derive(Debug, thiserror::Error)]
pub enum BadForm {
    /// It cannot be compiled.
    #[error("not a regular expression: {0}")]
    Syntax(#[from] regex::Error),
    /// It finds nothing in a line.
    #[error(
        "`metrics.regex` has no group `loss`: write `(?<loss>[0-9.]+)`, and `(?<step>[0-9]+)` and `(?<grad_norm>[0-9.]+)` where the lines have them"
    )]
    NoLoss,
    /// Neither `regex` nor a trainer.
    #[error("`{0}` is not a form of step lines that is known")]
    Unknown(String),
}

impl StepForm {
    /// The names of the known forms.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|known| known.name)
    }

    /// A known trainer's form.
    pub fn known(name: &str) -> Result<StepForm, BadForm> {
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            return Err(BadForm::Unknown(name.to_owned()));
        };
        let regex = Regex::new(&with_numbers(known.expression))?;
        Ok(StepForm { name: name.to_owned(), regex, average: known.decay.map(|decay| Average { decay }) })
    }

    /// The form of lines of which only their presence counts, and the group `step` where there is one.
    pub fn of_any_expression(expression: &str) -> Result<StepForm, BadForm> {
        Ok(StepForm { name: "regex".to_owned(), regex: Regex::new(expression)?, average: None })
    }

    /// The form of any trainer, with the groups `step`, `loss` and `grad_norm`, of which `loss` must be there.
    pub fn of_expression(expression: &str) -> Result<StepForm, BadForm> {
        let form = StepForm::of_any_expression(expression)?;
        if form.has("loss") { Ok(form) } else { Err(BadForm::NoLoss) }
    }

    /// Whether its lines hold a value: `step`, `loss` or `grad_norm`.
    pub fn has(&self, group: &str) -> bool {
        self.regex.capture_names().flatten().any(|name| name == group)
    }

    /// What a line says; none for a line of another form, or whose numbers cannot be read.
    pub fn parse(&self, line: &str) -> Option<Printed> {
        let captures = self.regex.captures(line)?;
        let step = match captures.name("step") {
            Some(step) => Some(step.as_str().replace(',', "").parse().ok()?),
            None => None,
        };
        let number = |group: &str| self.has(group).then(|| of_group(&captures, group));
        let (loss, grad_norm) = (number("loss"), number("grad_norm"));
        let is_readable = |number: &Option<Option<Number>>| !matches!(number, Some(None));
        (is_readable(&loss) && is_readable(&grad_norm)).then_some(Printed {
            line: StepLine { number: step },
            loss: loss.flatten(),
            grad_norm: grad_norm.flatten(),
        })
    }

    /// The losses of successive steps, from what the lines of all of them say.
    pub fn losses(&self, printed: &[Number]) -> Vec<Number> {
        let Some(Average { decay }) = self.average else { return printed.to_vec() };
        // With s the biased average, printed is s / (1 − decay^(t + 1)), and s = decay · s before + (1 − decay) · loss.
        let mut before = 0.0;
        let mut weight = 1.0;
        let of_step = |number: &Number| {
            weight *= decay;
            let biased = number.value * (1.0 - weight);
            let loss = (biased - decay * before) / (1.0 - decay);
            before = biased;
            Number { value: loss, unit: number.unit * (1.0 + decay) / (1.0 - decay), ..*number }
        };
        printed.iter().map(of_step).collect()
    }
}

/// Equal where they read alike.
impl PartialEq for StepForm {
    fn eq(&self, other: &StepForm) -> bool {
        self.name == other.name && self.regex.as_str() == other.regex.as_str()
    }
}

impl StepLines for StepForm {
    fn read(&self, line: &str) -> Option<StepLine> {
        self.parse(line).map(|printed| printed.line)
    }

    fn form(&self) -> String {
        match KNOWN.iter().find(|known| known.name == self.name) {
            Some(known) => known.name.to_owned(),
            None => self.regex.as_str().to_owned(),
        }
    }
}

fn of_group(captures: &Captures<'_>, group: &str) -> Option<Number> {
    number(captures.name(group)?.as_str())
}

/// Reads a printed number.
pub fn number(text: &str) -> Option<Number> {
    let plain = text.replace(',', "");
    let value: f64 = plain.parse().ok()?;
    let parts = plain.split_once(['e', 'E']).filter(|_| value.is_finite());
    let (mantissa, exponent) = match parts {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
        None => (plain.as_str(), 0),
    };
    let decimals = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len()) as i32;
    let unit = if value.is_finite() { 10f64.powi(exponent - decimals) } else { 0.0 };
    Some(Number { value, unit, is_scientific: parts.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A form, a line of its trainer as the source formats it, and what it says: step, loss, gradient norm.
    type Line = (&'static str, &'static str, Option<u64>, Option<f64>, Option<f64>);

    const LINES: [Line; 19] = [
        ("mlx-lm", "     2     9.870 ▼      530      1.0k", Some(2), Some(9.87), None),
        (
            "llm.c",
            "step    1/10 | loss     nan (+nanz)| norm    nan (+nanz)| lr 3.00e-04 | 341.20 ms | 46.1% bf16 MFU | 12004 tok/s",
            Some(1),
            Some(f64::NAN),
            Some(f64::NAN),
        ),
        ("llm.c-cpu", "step    1/74: train loss 4.370520 (80.6 ms, 50812 tok/s)", Some(1), Some(4.37052), None),
        ("nanogpt", "iter 12: loss 3.9871, time 51.20ms, mfu -100.00%", Some(12), Some(3.9871), None),
        (
            "llm.c",
            "step   12/19560 | loss 7.234567 (+1.23z)| norm 0.8123 (-0.45z)| lr 1.03e-05 | 341.20 ms | 46.1% bf16 MFU | 1537102 tok/s",
            Some(12),
            Some(7.234_567),
            Some(0.8123),
        ),
        (
            "llm.c",
            "step    3/10 | train loss 5.356189 | norm 4.3171 | lr 1.00e-04 | (302.10 ms | 13557 tok/s)",
            Some(3),
            Some(5.356_189),
            Some(4.3171),
        ),
        ("llm.c-cpu", "step 4: train loss 4.691100 (took 1452.1 ms)", Some(4), Some(4.6911), None),
        (
            "nanochat",
            "step 00012/21400 (0.06%) | loss: 9.812345 | lrm: 1.00 | dt: 512.33ms | tok/sec: 1,023,456 | bf16_mfu: 47.10 | epoch: 1 pq: 0 rg: 3 | total time: 0.05m",
            Some(12),
            Some(9.812_345),
            None,
        ),
        (
            "autoresearch",
            "step 00042 (4.4%) | loss: 6.123456 | lrm: 1.00 | dt: 310ms | tok/sec: 1,690,123 | mfu: 39.9% | epoch: 1 | remaining: 287s",
            Some(42),
            Some(6.123_456),
            None,
        ),
        (
            "torchtitan",
            "[titan] 2026-02-01 10:00:00,000 - root - INFO - step:  7  loss:  8.13245  grad_norm:  1.2345  memory: 12.34GiB(15.60%)  tps: 8,123  tflops: 312.34  mfu: 31.58%",
            Some(7),
            Some(8.13245),
            Some(1.2345),
        ),
        (
            "megatron",
            " [2026-02-01 10:00:00] iteration       20/  500000 | consumed samples:         5120 | elapsed time per iteration (ms): 612.3 | throughput per GPU (TFLOP/s/GPU): 412.1 | learning rate: 6.000000E-06 | global batch size:   256 | lm loss: 1.023456E+01 | loss scale: 1.0 | grad norm: 2.345 | number of skipped iterations:   0 |",
            Some(20),
            Some(10.23456),
            Some(2.345),
        ),
        (
            "huggingface",
            "{'loss': 2.3456, 'grad_norm': 1.2345678806304932, 'learning_rate': 4.9e-05, 'epoch': 0.02}",
            None,
            Some(2.3456),
            Some(1.234_567_880_630_493_2),
        ),
        (
            "huggingface",
            "{'loss': '2.346', 'grad_norm': '1.235', 'learning_rate': '4.9e-05', 'epoch': '0.02'}",
            None,
            Some(2.346),
            Some(1.235),
        ),
        (
            "litgpt",
            "Epoch 1 | iter 8 step 2 | loss train: 10.832, val: n/a | iter time: 301.55 ms (step) remaining time: 1:02:03",
            Some(2),
            Some(10.832),
            None,
        ),
        (
            "maxtext",
            "completed step: 5, seconds: 1.203, TFLOP/s/device: 102.345, Tokens/s/device: 3404.123, total_weights: 4096, loss: 9.876",
            Some(5),
            Some(9.876),
            None,
        ),
        (
            "mlx-lm",
            "Iter 10: Train loss 2.345, Learning Rate 1.000e-05, It/sec 1.234, Tokens/sec 512.345, Trained Tokens 4096, Peak mem 3.456 GB",
            Some(10),
            Some(2.345),
            None,
        ),
        ("modded-nanogpt", "step:3/1750 train_time:412ms step_avg:137.33ms", Some(3), None, None),
        ("nanogpt", "[rank0]: iter 3: loss nan, time 1.00ms", Some(3), Some(f64::NAN), None),
        ("nanogpt", "iter 4: loss inf, time 1.00ms", Some(4), Some(f64::INFINITY), None),
    ];

    #[test]
    fn lines_of_known_trainers_are_read() {
        for (name, line, step, loss, grad_norm) in LINES {
            let form = StepForm::known(name).unwrap();
            let found = form.parse(line).unwrap_or_else(|| panic!("{name}: {line}"));
            let value = |number: Option<Number>| number.map(|number| number.value.to_bits());
            assert_eq!(found.line.number, step, "{line}");
            assert_eq!(value(found.loss), loss.map(f64::to_bits), "{line}");
            assert_eq!(value(found.grad_norm), grad_norm.map(f64::to_bits), "{line}");
            assert_eq!((form.has("loss"), form.has("grad_norm")), (loss.is_some(), grad_norm.is_some()));
        }
        let tested: std::collections::BTreeSet<&str> = LINES.iter().map(|line| line.0).collect();
        assert_eq!(tested, StepForm::names().collect());
    }

    #[test]
    fn other_lines_of_the_same_trainers_are_not_steps() {
        for (name, line) in [
            ("nanogpt", "step 0: train loss 4.2874, val loss 4.2823"),
            ("nanogpt", "saving checkpoint to out at iter 12: done"),
            ("llm.c", "val loss 4.517294"),
            ("llm.c-cpu", "val loss 5.325413"),
            ("nanochat", "Step 00250 | Validation bpb: 1.123456"),
            (
                "litgpt",
                "Epoch 1 | iter 7 step 1 | loss train: 10.9, val: n/a | iter time: 301.55 ms remaining time: 1:02:03",
            ),
            ("mlx-lm", "Iter 1: Val loss 2.345, Val took 1.234s"),
            ("torchtitan", "step:  7  validation_loss:  8.13245"),
            ("modded-nanogpt", "step:125/1750 val_loss:4.1234 train_time:17412ms step_avg:139.30ms"),
        ] {
            assert_eq!(StepForm::known(name).unwrap().parse(line), None, "{name}: {line}");
        }
    }

    #[test]
    fn any_form_can_be_named() {
        let form = StepForm::of_expression(r"^\[(?<step>[\d,]+)\] L=(?<loss>\S+)").unwrap();
        let found = form.parse("[1,024] L=3.25e0 x").unwrap();
        let loss = Number { value: 3.25, unit: 0.01, is_scientific: true };
        assert_eq!((found.line.number, found.loss), (Some(1024), Some(loss)));
        // Garbage where a number should be is not a step line.
        assert_eq!(form.parse("[3] L=soon"), None);
        assert!(matches!(StepForm::of_expression("loss"), Err(BadForm::NoLoss)));
        assert!(matches!(StepForm::of_expression("("), Err(BadForm::Syntax(_))));
    }

    #[test]
    fn units_are_those_of_the_last_digit() {
        for (text, value, unit) in [
            ("4.1234", 4.1234_f64, 1e-4_f64),
            ("1.023456E+01", 10.23456, 1e-5),
            ("12", 12.0, 1.0),
            ("1,234.5", 1234.5, 0.1),
            ("0.00012", 0.00012, 1e-5),
            ("1.2345678806304932", 1.234_567_880_630_493_2, 1e-16),
            ("-.5", -0.5, 0.1),
        ] {
            let found = number(text).unwrap();
            assert_eq!(found.value.to_bits(), value.to_bits(), "{text}");
            assert!((found.unit - unit).abs() <= 1e-12 * unit, "{text}: {}", found.unit);
        }
    }

    /// The average as nanochat computes it, printed with six decimals, gives back the losses to its digits.
    #[test]
    fn an_average_is_inverted() {
        let losses: Vec<f64> = (0..60).map(|step| 10.8 - 0.11 * f64::from(step) + 0.3 * f64::from(step % 5)).collect();
        let mut smooth = 0.0;
        let printed: Vec<Number> = losses
            .iter()
            .zip(1..)
            .map(|(loss, steps)| {
                smooth = NANOCHAT_DECAY * smooth + (1.0 - NANOCHAT_DECAY) * loss;
                number(&format!("{:.6}", smooth / (1.0 - NANOCHAT_DECAY.powi(steps)))).unwrap()
            })
            .collect();
        let found = StepForm::known("nanochat").unwrap().losses(&printed);
        for (found, loss) in found.iter().zip(&losses) {
            assert!((found.value - loss).abs() <= found.unit / 2.0, "{found:?} {loss}");
            assert!(found.unit < 2e-5);
        }
        assert_eq!(StepForm::known("nanogpt").unwrap().losses(&printed), printed);
    }
}
