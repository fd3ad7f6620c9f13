//! Changes that must not land, each refused by its name.

mod gaming;
mod guards;
mod loopholes;
mod parity;
mod trees;
mod walls;
