#![allow(unsafe_code)]
//! The same guests under both engines.

mod guest;
mod same;
