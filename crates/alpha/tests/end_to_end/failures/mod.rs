//! Input that cannot be used, damaged files, full disks and mistakes of the user.

mod bad_input;
mod damage;
mod edges;
mod full_disk;
mod lost;
