//! Attempts, claims and records: what they say, and what becomes of them.

mod attempts;
mod claims;
mod evidence;
mod text;
