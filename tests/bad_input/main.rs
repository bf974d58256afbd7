//! Bad input ends with exit code 2 and an error that says what is wrong, where, and what to do; it never panics or
//! hangs. A guest that misbehaves is a finding.

mod cache;
mod files;
mod guest;
mod readers;
mod scenario;
mod support;
