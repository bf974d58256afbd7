//! See the architecture section of the README.
