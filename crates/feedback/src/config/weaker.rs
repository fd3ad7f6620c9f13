//! What a change of `loop.toml` makes weaker: checks that it removes or makes less strict.
//!
//! A larger ε lets fewer gains through and a new guard asks for more: neither is listed. A change that is not clearly
//! stricter, such as another command of a guard, counts as weaker: its author can say why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Guard, LoopConfig, SamplingConfig, Workload};
use pairbench::pair::timed_command::Sharing;

use crate::{
    LoopError,
    config::{DEFAULT_FLOOR_PCT, is_layout_varied},
};

/// One thing that became weaker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Weakening {
    /// What became weaker: a stable name, so that another comparison finds the same thing again.
    pub item: String,
    /// How, in words.
    pub text: String,
}

/// Compares the texts of two files: the file's own workload and every target of the old file.
///
/// # Errors
/// Where one of them cannot be read.
pub fn between(old: &str, new: &str) -> Result<Vec<Weakening>, LoopError> {
    let mut found = weakenings(&LoopConfig::parse(old, None)?, &LoopConfig::parse(new, None)?);
    let known = found.clone();
    for target in LoopConfig::targets(old)? {
        if !LoopConfig::has_target(new, &target) {
            found.push(Weakening { item: format!("target {target}"), text: format!("target `{target}` is gone") });
            continue;
        }
        let of_target = weakenings(&LoopConfig::parse(old, Some(&target))?, &LoopConfig::parse(new, Some(&target))?);
        // What all targets share has been listed already.
        found.extend(of_target.into_iter().filter(|weakening| !known.contains(weakening)).map(|weakening| Weakening {
            item: format!("target {target}: {}", weakening.item),
            text: format!("target `{target}`: {}", weakening.text),
        }));
    }
    Ok(found)
}

/// The checks that are less strict in `new` than in `old`.
pub fn weakenings(old: &LoopConfig, new: &LoopConfig) -> Vec<Weakening> {
    let mut list = List(Vec::new());
    if new.epsilon_pct < old.epsilon_pct {
        list.add("epsilon_pct", format!("`epsilon_pct` is {} instead of {}", new.epsilon_pct, old.epsilon_pct));
    }
    if new.budget < old.budget {
        let [now, before] = [new.budget, old.budget].map(|budget| budget.as_secs_f64());
        list.add("budget", format!("`budget` is {now} s instead of {before} s"));
    }
    if new.layout_floor_pct.unwrap_or(DEFAULT_FLOOR_PCT) < old.layout_floor_pct.unwrap_or(DEFAULT_FLOOR_PCT) {
        list.add("layout_floor_pct", "`layout_floor_pct` is smaller");
    }
    if is_layout_varied(old) && !is_layout_varied(new) {
        list.add("layout", "the build has no other layouts any more");
    }
    list.missing("sealed", &old.sealed, &new.sealed, "is no longer sealed");
    list.missing("unmeasured", &new.unmeasured, &old.unmeasured, "is no longer measured");
    if new.ledger != old.ledger {
        let (now, before) = (new.ledger.display(), old.ledger.display());
        list.add("ledger", format!("the ledger is `{now}` instead of `{before}`"));
    }
    list.kept("judge", old.judge.as_ref(), new.judge.as_ref(), |_| "`judge`".to_owned());
    list.of_guards(&old.guards, &new.guards);
    list.of_workload("workload", &old.workload, &new.workload);
    if let Some(smoke) = &old.smoke {
        match &new.smoke {
            None => list.add("smoke", "`[smoke]` is gone"),
            Some(now) if now.steps < smoke.steps => list.add("smoke", "`smoke.steps` is smaller"),
            Some(_) => {}
        }
    }
    match (&old.trace, &new.trace) {
        (Some(_), None) => list.add("trace", "`[trace]` is gone: gains are attributed to nothing"),
        (Some(old), Some(new)) => {
            list.kept("trace.peaks", old.peaks.as_ref(), new.peaks.as_ref(), |_| "`trace.peaks`".to_owned());
            if new.steps < old.steps {
                list.add("trace.steps", format!("`trace.steps` is {} instead of {}", new.steps, old.steps));
            }
        }
        _ => {}
    }
    list.missing("build.toolchain", &old.build.toolchain, &new.build.toolchain, "no longer identifies the toolchain");
    list.missing("environment", &new.environment, &old.environment, "reaches trainers");
    list.missing("build.environment", &new.build.environment, &old.build.environment, "reaches builds");
    list.of_sampling(old.sampling.as_ref(), new.sampling.as_ref());
    list.0
}

struct List(Vec<Weakening>);

impl List {
    fn add(&mut self, item: &str, text: impl Into<String>) {
        self.0.push(Weakening { item: item.to_owned(), text: text.into() });
    }

    /// Lists every glob or name that is in `must` but not in `has`.
    fn missing(&mut self, item: &str, must: &[String], has: &[String], what: &str) {
        for name in must.iter().filter(|name| !has.contains(name)) {
            self.add(&format!("{item} {name}"), format!("`{name}` {what}"));
        }
    }

    /// Lists something that changed or is gone.
    fn kept<T: PartialEq>(&mut self, item: &str, old: Option<&T>, new: Option<&T>, name: impl Fn(&T) -> String) {
        let Some(old) = old else { return };
        match new {
            None => self.add(item, format!("{} is gone", name(old))),
            Some(new) if new != old => self.add(item, format!("{} is another", name(old))),
            Some(_) => {}
        }
    }

    fn of_guards(&mut self, old: &BTreeMap<String, Guard>, new: &BTreeMap<String, Guard>) {
        for (name, guard) in old {
            let item = format!("guard {name}");
            let Some(now) = new.get(name) else {
                self.add(&item, format!("guard `{name}` is gone"));
                continue;
            };
            if now.margin_pct() > guard.margin_pct() {
                let (wide, narrow) = (now.margin_pct(), guard.margin_pct());
                self.add(&item, format!("guard `{name}` lets {wide} % through instead of {narrow} %"));
            }
            if now.measured() != guard.measured() {
                self.add(&format!("{item} measures"), format!("guard `{name}` measures something else"));
            }
        }
    }

    /// What parity depends on. Another command is not weaker: it is a change of the instrument, and its effect is
    /// measured when it lands.
    fn of_workload(&mut self, name: &str, old: &Workload, new: &Workload) {
        let item = |part: &str| format!("{name}.{part}");
        if new.steps < old.steps {
            self.add(&item("steps"), format!("`{name}.steps` is {} instead of {}", new.steps, old.steps));
        }
        let parts = [
            ("weights", &old.weights, &new.weights),
            ("checkpoint", &old.checkpoint, &new.checkpoint),
            ("eval", &old.eval, &new.eval),
        ];
        for (part, old, new) in parts {
            self.kept(&item(part), old.as_ref(), new.as_ref(), |_| format!("`{name}.{part}`"));
        }
        self.missing(&item("exempt"), &new.exempt, &old.exempt, "is exempt from parity");
        if old.counters != new.counters {
            self.add(&item("counters"), format!("`{name}.counters` are others"));
        }
        let rank = |sharing: Sharing| match sharing {
            Sharing::Turns => 0,
            Sharing::Lines => 1,
            Sharing::Sequential | Sharing::Whole => 2,
        };
        if rank(new.sharing) > rank(old.sharing) {
            let how = if new.sharing == Sharing::Lines { "by the turn protocol" } else { "in turns" };
            self.add(&item("sharing"), format!("`{name}.sharing` is not {how} any more"));
        }
        let (had, has) = (old.metrics.shows(), new.metrics.shows());
        for (part, had, has) in [
            ("grad_norms", had.grad_norms, has.grad_norms),
            ("data_hashes", had.data_hashes, has.data_hashes),
            ("all_digits", had.all_digits, has.all_digits),
        ] {
            if had && !has {
                let what = part.replace('_', " ");
                self.add(&item(&format!("metrics.{part}")), format!("`{name}.metrics` does not show {what} any more"));
            }
        }
    }

    fn of_sampling(&mut self, old: Option<&SamplingConfig>, new: Option<&SamplingConfig>) {
        let (Some(old), Some(new)) = (old, new) else {
            self.kept("sampling", old, new, |_| "`[sampling]`".to_owned());
            return;
        };
        self.missing("sampling.prompts", &old.prompts, &new.prompts, "is no longer a prompt");
        self.kept("sampling.greedy", Some(&old.greedy), Some(&new.greedy), |_| "`sampling.greedy`".to_owned());
        self.kept("sampling.seeded", Some(&old.seeded), Some(&new.seeded), |_| "`sampling.seeded`".to_owned());
        self.kept("sampling.training", old.training.as_ref(), new.training.as_ref(), |_| {
            "`sampling.training`".to_owned()
        });
        if new.steps < old.steps {
            self.add("sampling.steps", format!("`sampling.steps` is {} instead of {}", new.steps, old.steps));
        }
    }
}

impl Guard {
    /// The guard without its margin.
    fn measured(&self) -> Guard {
        let mut guard = self.clone();
        match &mut guard {
            Guard::Workload { margin_pct, .. }
            | Guard::PeakMemory { margin_pct }
            | Guard::FirstStep { margin_pct }
            | Guard::Command { margin_pct, .. }
            | Guard::BuildTime { margin_pct } => *margin_pct = 0.0,
        }
        guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::SMALL;

    fn items(old: &str, new: &str) -> Vec<String> {
        between(old, new).unwrap().into_iter().map(|weakening| weakening.item).collect()
    }

    #[test]
    fn what_is_weaker_is_listed_and_what_is_stricter_is_not() {
        let full = SMALL
            .replace("schema = 1", "schema = 1\nsealed = [\"a\", \"b\"]\nunmeasured = [\"docs/**\"]\nepsilon_pct = 0.5")
            .replace(
                "tokens_per_step = 128",
                "tokens_per_step = 128\nweights = \"w-{step}\"\neval = \"./e {checkpoint}\"\ncheckpoint = \"c\"",
            )
            + "[sampling]\ngreedy = \"x {checkpoint} {prompt}\"\nseeded = \"y {checkpoint} {prompt}\"\nprompts = [\"p\", \"q\"]\n\
               [trace]\ncommand = \"t {steps}\"\nsteps = 9\nkernels = \"k\"\n\
               [targets.gpu.guards.first]\nkind = \"first_step\"\nmargin_pct = 9\n";
        assert_eq!(items(&full, &full), Vec::<String>::new());
        for (from, to, item) in [
            ("epsilon_pct = 0.5", "epsilon_pct = 0.2", "epsilon_pct"),
            ("90s", "30s", "budget"),
            ("[\"a\", \"b\"]", "[\"b\"]", "sealed a"),
            ("[\"docs/**\"]", "[\"docs/**\", \"src/**\"]", "unmeasured src/**"),
            ("margin_pct = 5\n", "margin_pct = 50\n", "guard memory"),
            ("steps = 50", "steps = 40", "workload.steps"),
            ("weights = \"w-{step}\"\n", "", "workload.weights"),
            ("./e {checkpoint}", "./f {checkpoint}", "workload.eval"),
            ("[\"p\", \"q\"]", "[\"p\"]", "sampling.prompts q"),
            ("x {checkpoint}", "z {checkpoint}", "sampling.greedy"),
            (
                "kind = \"first_step\"\nmargin_pct = 9",
                "kind = \"build_time\"\nmargin_pct = 9",
                "target gpu: guard first measures",
            ),
            ("margin_pct = 9", "margin_pct = 10", "target gpu: guard first"),
            ("steps = 9", "steps = 8", "trace.steps"),
            ("schema = 1", "schema = 1\nenvironment = [\"FAST\"]", "environment FAST"),
            ("targets.gpu", "targets.other", "target gpu"),
        ] {
            let new = full.replace(from, to);
            assert_ne!(new, full, "{from}");
            assert!(items(&full, &new).contains(&item.to_owned()), "{from}: {:?}", items(&full, &new));
            // The reverse change is stricter, except where that is unclear.
            let is_another = ["eval", "greedy", "measures"].iter().any(|part| item.ends_with(part));
            let back = items(&new, &full);
            assert!(is_another || item == "target gpu" || back.is_empty(), "{from}: {back:?}");
        }
        let without_guards =
            SMALL.replace("[guards.memory]", "").replace("kind = \"peak_memory\"", "").replace("margin_pct = 5", "");
        assert_eq!(items(SMALL, &without_guards), ["guard memory"]);
    }
}
