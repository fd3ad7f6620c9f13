//! The grammar of step and trace lines, as the contract has it.

/// A step line taken apart: the text of each number.
#[derive(Debug, PartialEq)]
pub(crate) struct StepLine<'a> {
    pub(crate) step: u64,
    pub(crate) steps: u64,
    pub(crate) loss: &'a str,
    pub(crate) val_loss: Option<&'a str>,
    pub(crate) lr: &'a str,
    pub(crate) grad_norm: &'a str,
    pub(crate) clip: Option<&'a str>,
}

impl<'a> StepLine<'a> {
    /// Parses a whole line; `None` if it is not what the CPU prints.
    pub(crate) fn parse(line: &'a str) -> Option<StepLine<'a>> {
        let [head, losses, lr, norm, time, speed] = line.split(" | ").collect::<Vec<_>>().try_into().ok()?;
        let (step, steps) = head.strip_prefix("step ")?.split_once('/')?;
        let (loss, val_loss) = with_optional(losses, "loss=", " val_loss=")?;
        let lr = lr.strip_prefix("lr=")?;
        let (mantissa, exponent) = lr.split_once('e')?;
        let (grad_norm, clip) = with_optional(norm, "grad_norm=", " clip=")?;
        let is_right = is_decimal(loss, 4)
            && val_loss.is_none_or(|loss| is_decimal(loss, 4))
            && is_decimal(mantissa, 2)
            && exponent.parse::<i32>().is_ok()
            && is_decimal(grad_norm, 3)
            && clip.is_none_or(|clip| is_decimal(clip, 4) && clip.starts_with("0."))
            && is_ms(time.strip_suffix("/it")?)
            && is_decimal(speed.strip_suffix(" tok/s")?, 0);
        let (step, steps) = (step.parse().ok()?, steps.parse().ok()?);
        is_right.then_some(StepLine { step, steps, loss, val_loss, lr, grad_norm, clip })
    }
}

/// Whether a line is a trace line of the CPU.
pub(crate) fn is_trace_line(line: &str) -> bool {
    const KEYS: [&str; 8] = ["data", "fwd", "bwd", "gradnorm", "clip", "optim", "flush", "gpu_ops"];
    let Some(fields) = line.strip_prefix("  [trace] ") else { return false };
    let fields: Vec<_> = fields.split(' ').filter_map(|field| field.split_once('=')).collect();
    fields.iter().map(|(key, _)| *key).eq(KEYS)
        && fields.iter().all(|(key, value)| if *key == "gpu_ops" { is_decimal(value, 0) } else { is_ms(value) })
}

/// `loss=1 val_loss=2` or `loss=1`.
fn with_optional<'a>(text: &'a str, key: &str, optional_key: &str) -> Option<(&'a str, Option<&'a str>)> {
    let text = text.strip_prefix(key)?;
    Some(text.split_once(optional_key).map_or((text, None), |(value, optional)| (value, Some(optional))))
}

/// Digits with this many decimals, or a number that is not finite.
fn is_decimal(text: &str, decimals: usize) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        None => ["nan", "inf"].contains(&text) || (decimals == 0 && is_digits(text)),
        Some((whole, rest)) => is_digits(whole) && is_digits(rest) && rest.len() == decimals,
    }
}

/// Two decimals below 10 ms, none above.
fn is_ms(text: &str) -> bool {
    let Some(number) = text.strip_suffix("ms") else { return false };
    is_decimal(number, if number.contains('.') { 2 } else { 0 })
        && number.parse::<f64>().is_ok_and(|ms| number.contains('.') == (ms < 10.0))
}

#[test]
fn the_contracts_own_lines_are_of_this_form() {
    let line =
        "step 12/100 | loss=5.1234 val_loss=5.2345 | lr=3.00e-5 | grad_norm=1.234 clip=0.8104 | 41ms/it | 3122 tok/s";
    let parsed = StepLine::parse(line).unwrap();
    assert_eq!((parsed.step, parsed.steps, parsed.val_loss, parsed.clip), (12, 100, Some("5.2345"), Some("0.8104")));
    assert!(is_trace_line(
        "  [trace] data=0.03ms fwd=12ms bwd=20ms gradnorm=3.10ms clip=0.00ms optim=1.20ms flush=4.70ms gpu_ops=92"
    ));
    for wrong in [
        "step 12/100 | loss=5.12 | lr=3.00e-5 | grad_norm=1.234 | 41ms/it | 3122 tok/s",
        "step 12/100 | loss=5.1234 | lr=3.00e-5 | grad_norm=1.234 clip=1.0000 | 41ms/it | 3122 tok/s",
        "step 12/100 | loss=5.1234 | lr=3.00e-5 | grad_norm=1.234 | 41.00ms/it | 3122 tok/s",
        "step 12/100 | loss=NaN | lr=3.00e-5 | grad_norm=1.234 | 41ms/it | 3122 tok/s",
    ] {
        assert_eq!(StepLine::parse(wrong), None);
    }
}
