//! The attribution as plain text of fixed width, for a commit's body.
//!
//! Names come from the candidate's trace and must not break a line, or look like a comment or a trailer of the message.
//! So rows are indented, and everything but plain ASCII becomes `?`.

use super::{Attribution, Change};

/// Most rows, including the whole step and the row of omitted kernels.
const MOST_ROWS: usize = 20;
const MOST_PHASES: usize = 7;
const NAME_WIDTH: usize = 26;

/// The table with its header, or the explanation if nothing could be attributed. Ends with a newline.
pub fn table(attribution: &Attribution) -> String {
    let Some(step) = &attribution.step else { return format!("  {}\n", plain(&attribution.explanation)) };
    let mut lines = vec![format!(
        "  {:NAME_WIDTH$} {:>9} {:>9} {:>9} {:>19} {:>7}  area",
        "ms a step", "before", "after", "saved", "95 % interval", "% of it"
    )];
    lines.push(row(step, ""));
    lines.extend(attribution.phases.iter().take(MOST_PHASES).map(|change| row(change, "")));
    let room = (MOST_ROWS + 1).saturating_sub(lines.len());
    let all = attribution.kernels.len();
    let shown = if all > room { room - 1 } else { all };
    lines.extend(
        attribution.kernels[..shown]
            .iter()
            .map(|kernel| row(&kernel.change, if kernel.is_in_area { "inside" } else { "outside" })),
    );
    if shown < all {
        let left_out = &attribution.kernels[shown..];
        let saved_ms: f64 = left_out.iter().map(|kernel| kernel.change.saved_ms).sum();
        lines.push(format!("  {:NAME_WIDTH$} {saved_ms:>29.3}", format!("{} more kernels", left_out.len())));
    }
    lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn row(change: &Change, area: &str) -> String {
    let Change { baseline_ms, candidate_ms, saved_ms, interval_ms: (low, high), saved_pct, .. } = change;
    let mut name: String = plain(&change.name);
    if name.len() > NAME_WIDTH {
        name.truncate(NAME_WIDTH - 2);
        name.push_str("..");
    }
    let interval = format!("[{low:.3}, {high:.3}]");
    format!(
        "  {name:NAME_WIDTH$} {baseline_ms:>9.3} {candidate_ms:>9.3} {saved_ms:>9.3} {interval:>19} {saved_pct:>7.2}  {area}"
    )
}

pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}
