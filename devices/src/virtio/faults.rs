//! Flushes that do not do what they should.

use serde::{Deserialize, Serialize};

/// What happens to a flush instead of success after the usual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlushAction {
    /// It is answered with -1, as by a host whose fsync failed.
    Fail,
    /// It is answered with success, but only after so many nanoseconds of virtual time (instructions).
    Late(u64),
    /// It is never answered.
    NeverAnswer,
}

/// A fault that is injected into a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushFault {
    /// Which flush, counted from 1 since the faults were set; `None` for every one.
    pub which: Option<u64>,
    /// What happens to it.
    pub action: FlushAction,
}

/// What happens to flush `number`: the first fault that names it, or the first that names all.
pub(super) fn action(faults: &[FlushFault], number: u64) -> Option<FlushAction> {
    let named = faults.iter().find(|fault| fault.which == Some(number));
    named.or_else(|| faults.iter().find(|fault| fault.which.is_none())).map(|fault| fault.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_one_flush_goes_before_one_for_all() {
        let faults = [
            FlushFault { which: None, action: FlushAction::Fail },
            FlushFault { which: Some(2), action: FlushAction::Late(7) },
        ];
        assert_eq!(action(&faults, 1), Some(FlushAction::Fail));
        assert_eq!(action(&faults, 2), Some(FlushAction::Late(7)));
        assert_eq!(action(&faults[1..], 1), None);
    }
}
