//! Finds the form of the step lines in what a trainer printed.

use pairbench::pair::lines::{Disorder, StepCounter, ends_line, plain_text};

use crate::config::step_line::{StepForm, with_numbers};

/// Fewest lines that are more than chance.
const FEWEST_LINES: u64 = 3;

/// Step lines as many programs print them; `F` stands for a number. With a gradient norm first.
const COMMON: [&str; 3] = [
    r"(?i)\b(?:step|iter|iteration|batch|update)s?\W*(?<step>\d[\d,]*)\b.*?\b(?:train\w*[ _])?loss\W*?(?<loss>F).*?\b(?:grad\w*[ _]?norm|gnorm|norm)\W*?(?<grad_norm>F)",
    r"(?i)\b(?:step|iter|iteration|batch|update)s?\W*(?<step>\d[\d,]*)\b.*?\b(?:train\w*[ _])?loss\W*?(?<loss>F)",
    r"(?i)\b(?:train\w*[ _])?loss\W*?(?<loss>F)",
];

/// A form that fits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The form.
    pub form: StepForm,
    /// `workload.metrics` of `loop.toml`.
    pub toml: String,
    /// Step lines.
    pub steps: u64,
    /// Decimals of the loss.
    pub loss_unit: f64,
    /// Whether it prints gradient norms.
    pub has_grad_norms: bool,
}

/// What was found in an output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Search {
    /// Step lines.
    Found(Found),
    /// Some lines of steps, but not one for every step.
    Sparse,
    /// Nothing that looks like a step line.
    Nothing,
}

/// Looks for step lines: those of a known trainer, else common ones. A form that finds more lines is better; of equals,
/// the one that shows more.
pub(super) fn search(output: &[u8]) -> Search {
    let lines: Vec<String> = output.split(ends_line).map(plain_text).collect();
    let known = StepForm::names().filter_map(|name| {
        let form = StepForm::known(name).ok().filter(|form| form.has("loss"))?;
        Some((form, format!("{{ format = \"{name}\" }}")))
    });
    let common = COMMON.iter().filter_map(|expression| {
        let expression = with_numbers(expression);
        let form = StepForm::of_expression(&expression).ok()?;
        Some((form, format!("{{ format = \"regex\", regex = '{expression}' }}")))
    });
    let mut best: Option<Found> = None;
    let mut is_sparse = false;
    for (form, toml) in known.chain(common) {
        match count(&form, &lines) {
            Ok((0, _)) => {}
            Ok((steps, _)) if steps < FEWEST_LINES => is_sparse = true,
            // Without numbers, lines that come now and then look like those of every step.
            Ok((steps, loss_unit))
                if best.as_ref().is_none_or(|best| steps > best.steps) && (!is_sparse || form.has("step")) =>
            {
                let has_grad_norms = form.has("grad_norm");
                best = Some(Found { form, toml, steps, loss_unit, has_grad_norms });
            }
            Ok(_) => {}
            Err(_) => is_sparse = true,
        }
    }
    match best {
        Some(found) => Search::Found(found),
        None if is_sparse => Search::Sparse,
        None => Search::Nothing,
    }
}

/// The number of step lines, and the finest unit of their losses.
fn count(form: &StepForm, lines: &[String]) -> Result<(u64, f64), Disorder> {
    let mut counter = StepCounter::default();
    let mut unit = f64::INFINITY;
    for printed in lines.iter().filter_map(|line| form.parse(line)) {
        if counter.count(printed.line)? {
            unit = unit.min(printed.loss.map_or(f64::INFINITY, |loss| loss.unit));
        }
    }
    Ok((counter.steps, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: impl Fn(u32) -> String) -> Found {
        let lines: Vec<String> = (0..12).flat_map(|step| [line(step), format!("more at {step}")]).collect();
        let output = lines.join("\n");
        match search(output.as_bytes()) {
            Search::Found(found) => found,
            other => panic!("{other:?} in {output}"),
        }
    }

    #[test]
    fn known_trainers_are_known_by_their_lines() {
        let nanogpt = found(|step| format!("iter {step}: loss 4.12{step:02}, time 5.00ms, mfu 1.00%"));
        assert_eq!((nanogpt.toml.as_str(), nanogpt.steps, nanogpt.loss_unit), ("{ format = \"nanogpt\" }", 12, 1e-4));
        assert!(!nanogpt.has_grad_norms);
        let ours = found(|step| format!("step {step}/12 | loss 4.123456 | norm 0.1234 | 5.20 ms"));
        assert_eq!((ours.toml.as_str(), ours.has_grad_norms), ("{ format = \"llm.c\" }", true));
    }

    #[test]
    fn other_lines_are_found_by_their_words() {
        for (line, has_grad_norms) in [
            ("[2026-01-01 10:00] Step {}: train_loss=3.5e0 lr=1e-3", false),
            ("epoch 0 batch {} | Loss: 3.50 | grad_norm: 0.25", true),
            ("Iteration #{} -- loss 3.5 (avg 3.6), gnorm 1.25", true),
            ("loss = 3.5", false),
        ] {
            let form = found(|step| line.replace("{}", &step.to_string()));
            assert!(form.toml.contains("regex") && form.has_grad_norms == has_grad_norms, "{line}: {form:?}");
            let printed = form.form.parse(&line.replace("{}", "7")).unwrap();
            assert_eq!(
                (printed.loss.unwrap().value, printed.line.number.is_some()),
                (3.5, line.contains("{}")),
                "{line}"
            );
            // What `init` writes is read as it was found.
            let table: toml::Table = format!("metrics = {}", form.toml).parse().unwrap();
            assert!(
                table["metrics"]["regex"]
                    .as_str()
                    .is_some_and(|regex| StepForm::of_expression(regex).unwrap() == form.form)
            );
        }
    }

    #[test]
    fn a_line_every_tenth_step_is_not_enough() {
        let lines: Vec<String> = (0..5).map(|step| format!("step {}: loss 3.5", 10 * step)).collect();
        let output = lines.join("\n");
        assert_eq!(search(output.as_bytes()), Search::Sparse);
        assert_eq!(search(b"a model\nstep 10: loss 3.5\ndone\n"), Search::Sparse);
        assert_eq!(search(b"epoch 1 done\nepoch 2 done\n"), Search::Nothing);
        assert_eq!(search(b""), Search::Nothing);
    }
}
