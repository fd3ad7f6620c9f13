//! The commands of a cycle, from its hypothesis to a commit or its end.

pub(super) mod commit;
pub(super) mod compare;
pub(super) mod drop;
pub(super) mod next;
pub(super) mod run;
pub(super) mod smoke;
pub(super) mod start;
pub(super) mod status;

use super::{Context, Done, Versioned, judge_with_baseline, percentage};
