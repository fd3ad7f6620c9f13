//! The claims of a project's commits: gains of throughput, from a CSV or from the subjects of a repository.

use std::{fs, path::Path, process::Command};

use jiff::Timestamp;

use super::{
    rows::{finite, shown},
    table::{HeaderError, Table},
};
use crate::LoopError;

/// The source of claims.
#[derive(Clone, Copy, Debug)]
pub enum ClaimSource<'a> {
    /// A CSV with at least the columns `commit,time,claim_pct`; `only_benchmark_script` is read if it is there.
    Csv(&'a Path),
    /// A git repository: subjects `perf: … (+X.XX% tok/s)` in the history of its HEAD.
    Repository(&'a Path),
}

/// A commit that claims a gain.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Id of the commit, in full or abbreviated.
    pub commit: String,
    /// Time of the commit, if that could be read.
    pub time: Option<Timestamp>,
    /// The gain, above −100.
    pub claim_pct: f64,
    /// Whether the commit changed only the benchmark script, if the source tells. In a repository: only files named
    /// `*bench*`, not counting files of `perf/`.
    pub only_benchmark_script: Option<bool>,
}

/// Claims that were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// In order of time; those without a time first.
    pub claims: Vec<Claim>,
    /// Unreadable places.
    pub flaws: Vec<String>,
}

impl Claims {
    /// Fails if the file or repository does not exist, or the file's header lacks a column.
    pub fn open(source: ClaimSource) -> Result<Claims, LoopError> {
        match source {
            ClaimSource::Csv(path) => {
                let bytes = fs::read(path).map_err(|error| LoopError::io("read", path, &error))?;
                claims_from_csv(&bytes).map_err(|flaw| {
                    LoopError::failed(format!("`{}` {flaw}", path.display()))
                        .hint("claims are a CSV file whose first line has at least `commit,time,claim_pct`")
                })
            }
            ClaimSource::Repository(folder) => Ok(claims_from_log(git_log(folder)?.lines())),
        }
    }

    fn sorted(mut claims: Vec<Claim>, flaws: Vec<String>) -> Claims {
        claims.sort_by_key(|claim| claim.time);
        Claims { claims, flaws }
    }
}

/// Reads `commit,time,claim_pct` and, if it is there, `only_benchmark_script`.
pub fn claims_from_csv(bytes: &[u8]) -> Result<Claims, HeaderError> {
    let table = Table::read(bytes, &["commit", "time", "claim_pct"])?;
    let mut flaws: Vec<_> = table.torn.iter().map(|line| format!("line {line} of the claims is cut short")).collect();
    let mut claims = Vec::with_capacity(table.records.len());
    for record in &table.records {
        let (time, pct) = (table.get(record, "time"), table.get(record, "claim_pct"));
        let Some(claim_pct) = finite(pct).filter(|&pct| pct > -100.0) else {
            flaws.push(format!("line {} of the claims: `{}` is not a gain in per cent", record.line, shown(pct)));
            continue;
        };
        let claim = Claim {
            commit: table.get(record, "commit").to_owned(),
            time: time.parse().ok(),
            claim_pct,
            only_benchmark_script: match table.get(record, "only_benchmark_script").to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
        };
        if claim.time.is_none() {
            flaws.push(format!("line {} of the claims: `time` is `{}`, not a time", record.line, shown(time)));
        }
        claims.push(claim);
    }
    Ok(Claims::sorted(claims, flaws))
}

/// Reads the output of `git log --name-only --format=%H%x09%cI%x09%s`: a line for each commit, followed by its changed
/// files. Without files, the changes of a commit are unknown. Commits that claim nothing are skipped.
pub fn claims_from_log<'a>(lines: impl IntoIterator<Item = &'a str>) -> Claims {
    let mut claims: Vec<Claim> = Vec::new();
    let mut flaws = Vec::new();
    // Files count only for a commit that claims something.
    let mut claims_something = false;
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(3, '\t');
        if let (Some(commit), Some(time), Some(subject)) = (parts.next(), parts.next(), parts.next()) {
            let claim_pct = claimed_pct(subject);
            claims_something = claim_pct.is_some();
            let Some(claim_pct) = claim_pct else { continue };
            let claim =
                Claim { commit: commit.to_owned(), time: time.parse().ok(), claim_pct, only_benchmark_script: None };
            if claim.time.is_none() {
                flaws.push(format!("commit `{}`: `{}` is not a time", shown(commit), shown(time)));
            }
            claims.push(claim);
        } else if claims_something
            && let Some(claim) = claims.last_mut()
            && !is_record(line)
        {
            claim.only_benchmark_script = Some(claim.only_benchmark_script != Some(false) && is_benchmark_script(line));
        }
    }
    // The log has the newest first; commits of the same second keep their order.
    claims.reverse();
    Claims::sorted(claims, flaws)
}

/// The gain that a subject claims: `perf: … (+X.XX% tok/s)`, also with a scope or with words behind it.
pub fn claimed_pct(subject: &str) -> Option<f64> {
    let scoped = subject.strip_prefix("perf")?;
    let is_perf = scoped.starts_with(':') || scoped.starts_with('(') && scoped.contains("):");
    if !is_perf {
        return None;
    }
    let (before, _) = subject.rsplit_once("% tok/s)")?;
    let (_, number) = before.rsplit_once('(')?;
    finite(number.trim()).filter(|&pct| pct > -100.0)
}

/// Results are files of `perf/`, and change with every claim.
fn is_record(file: &str) -> bool {
    file.starts_with("perf/")
}

fn is_benchmark_script(file: &str) -> bool {
    file.rsplit('/').next().is_some_and(|name| name.contains("bench"))
}

fn git_log(folder: &Path) -> Result<String, LoopError> {
    let output = Command::new("git")
        // Inside a hook these are set to another repository than the folder's.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env("LC_ALL", "C")
        .arg("-C")
        .arg(folder)
        .args(["log", "--format=%H%x09%cI%x09%s", "--no-show-signature", "--no-color"])
        .args(["--name-only", "--no-renames", "--fixed-strings", "--grep=% tok/s)"])
        .output()
        .map_err(|error| {
            LoopError::failed(format!("cannot run `git`: {error}"))
                .hint("install git, or give the claims as a CSV with `--claims=FILE`")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("fatal: ");
        return Err(LoopError::failed(format!("cannot read the commits of `{}`: {said}", folder.display()))
            .hint("`--repo=DIR` wants the folder of a git repository that has commits"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subject_claims_what_stands_at_its_end() {
        for (subject, expected) in [
            ("perf: fuse bias and gelu (+12.50% tok/s)", Some(12.5)),
            ("perf(cpu): wider tiles (again) (-0.40% tok/s)", Some(-0.4)),
            ("perf: (+1% tok/s) was wrong (+0.25% tok/s) (#12)", Some(0.25)),
            ("perf: 3.5% tok/s", None),
            ("perf: wider tiles", None),
            ("performance: wider tiles (+1.00% tok/s)", None),
            ("docs: what (+1.00% tok/s) means", None),
            ("perf: lost everything (-100% tok/s)", None),
            ("perf: nothing (nan% tok/s)", None),
            ("perf: reverted \"perf: (+1.00% tok/s)", Some(1.0)),
        ] {
            assert_eq!(claimed_pct(subject), expected, "{subject}");
        }
    }

    #[test]
    fn a_log_is_read_with_the_files_of_its_commits() {
        let log = "\
            d\t2026-02-27T13:00:00Z\tperf: no files told (+4.00% tok/s)\n\
            c\t2026-02-27T12:00:00+01:00\tperf: both (+3.00% tok/s)\n\nscripts/bench.sh\nsrc/lib.rs\nscripts/bench.py\n\
            x\t2026-02-27T11:00:00Z\tperf: say nothing\n\nsrc/bench.rs\n\
            b\t2026-02-27T10:00:00Z\tperf: script (+2.00% tok/s)\n\nperf/history.csv\nscripts/run-benchmark.sh\n\
            a\tnever\tperf: script and more (+1.00% tok/s)\n\nscripts/run-benchmark.sh\nbench/tool.rs\n";
        let found = claims_from_log(log.lines());
        let short: Vec<_> = found
            .claims
            .iter()
            .map(|claim| (claim.commit.as_str(), claim.claim_pct, claim.only_benchmark_script))
            .collect();
        // `c` was committed at 11:00 UTC, between `b` and `d`.
        let expected = [("a", 1.0, Some(false)), ("b", 2.0, Some(true)), ("c", 3.0, Some(false)), ("d", 4.0, None)];
        assert_eq!(short, expected);
        assert_eq!(found.flaws, ["commit `a`: `never` is not a time"]);
    }

    #[test]
    fn a_csv_is_read_in_order_of_time() {
        let found = claims_from_csv(
            b"commit,time,claim_pct,row_status,only_benchmark_script\n\
              b,2026-02-27 09:30:32+00:00,6.79,ok,True\n\
              a,2026-02-27T09:20:14Z,-1,ok,False\n\
              c,soon,1e3,ok\n\
              d,2026-02-27 09:30:32+00:00,-100\n\
              e,2026",
        )
        .unwrap();
        let short: Vec<_> = found
            .claims
            .iter()
            .map(|claim| (claim.commit.as_str(), claim.claim_pct, claim.only_benchmark_script))
            .collect();
        assert_eq!(short, [("c", 1000.0, None), ("a", -1.0, Some(false)), ("b", 6.79, Some(true))]);
        assert_eq!(
            found.flaws,
            [
                "line 6 of the claims is cut short",
                "line 4 of the claims: `time` is `soon`, not a time",
                "line 5 of the claims: `-100` is not a gain in per cent",
            ]
        );
        assert_eq!(claims_from_csv(b"commit,when").unwrap_err().to_string(), "has no column `time`, `claim_pct`");
    }

    fn git(folder: &Path, arguments: &[&str]) {
        let output = Command::new("git")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgSign=false", "-C"])
            .arg(folder)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_repository_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let error = |source| Claims::open(source).unwrap_err().to_string();
        let source = ClaimSource::Repository(folder.path());
        assert!(error(source).contains("not a git repository"), "{}", error(source));
        git(folder.path(), &["init", "-q"]);
        assert!(error(source).contains("hint: `--repo=DIR`"), "{}", error(source));

        fs::create_dir(folder.path().join("scripts")).unwrap();
        fs::write(folder.path().join("scripts/bench.sh"), "run").unwrap();
        git(folder.path(), &["add", "."]);
        git(folder.path(), &["commit", "-q", "-m", "perf: measure elsewhere (+7.50% tok/s)\n\nbody (+1.00% tok/s)"]);
        git(folder.path(), &["commit", "-q", "--allow-empty", "-m", "docs: nothing"]);
        let found = Claims::open(source).unwrap();
        assert_eq!(found.flaws, [""; 0]);
        let [claim] = &found.claims[..] else { panic!("{found:?}") };
        assert_eq!((claim.claim_pct, claim.only_benchmark_script, claim.commit.len()), (7.5, Some(true), 40));
        assert!(claim.time.is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = claims_from_csv(&bytes);
            let found = claims_from_csv(&[b"commit,time,claim_pct\n", &bytes[..]].concat()).unwrap();
            let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            prop_assert!(found.claims.len() <= lines);
            claims_from_log(String::from_utf8_lossy(&bytes).lines());
        }

        #[test]
        fn any_subject_is_read(summary in ".{0,40}", hundredths in -9_999_i32..1_000_000) {
            let pct = f64::from(hundredths) / 100.0;
            prop_assert_eq!(claimed_pct(&format!("perf: {summary} ({pct:+.2}% tok/s)")), Some(pct));
            let _ = claimed_pct(&summary);
        }
    }
}
