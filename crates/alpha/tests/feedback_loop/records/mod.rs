//! Attempts, claims and records: that they count, hold and stay.

mod attempts;
mod claims;
mod evidence;
mod text;
