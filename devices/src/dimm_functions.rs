//! Functions of an NVDIMM's _DSM of Intel's family (NVDIMM_FAMILY_INTEL): health, and label areas.
//!
//! A health that can go bad in one way only: the machine counts how often power went and what was to be saved was not.

use crate::nvdimm_firmware::{LabelAnswer, LabelRequest};

/// Numbers of the functions.
mod function {
    pub const HEALTH: u32 = 1;
    pub const THRESHOLDS: u32 = 2;
    pub const LABEL_SIZE: u32 = 4;
    pub const LABEL_READ: u32 = 5;
    pub const LABEL_WRITE: u32 = 6;
}

/// Bit n is set for each function n that an NVDIMM offers, function 0 included.
pub(crate) fn offered(labels: bool) -> u8 {
    if labels { 0b0111_0111 } else { 0b0000_0111 }
}

const SUCCESS: u32 = 0;
const NOT_SUPPORTED: u32 = 1;
const INVALID: u32 = 3;

/// Bytes of labels that one function moves at most: with what stands in front of them they fit the mailbox's window.
const MOST_LABEL_BYTES: u32 = 512;

/// What of the health is valid: the health itself, spares, life used, both temperatures, count of dirty shutdowns, alarms,
/// state of the last shutdown.
const VALID: u32 = 0b110_0011_1111;
/// Degrees Celsius in sixteenths.
const DEGREE: u16 = 16;

/// What a function asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DimmFunction {
    /// Nothing but this output.
    Output(Vec<u8>),
    /// Something of the label area; [`label_output`] makes the output of the answer.
    Labels(LabelRequest),
}

/// What function `function` of the NVDIMM with this handle asks for. `dirty_shutdowns`: how often power went and what was to
/// be saved was not.
pub fn dimm_function(handle: u32, function: u32, input: &[u8], dirty_shutdowns: u32) -> DimmFunction {
    let word = |at: usize| Some(u32::from_le_bytes(input.get(at..at + 4)?.try_into().ok()?));
    let labels = match function {
        function::HEALTH => return DimmFunction::Output(health(dirty_shutdowns)),
        function::THRESHOLDS => return DimmFunction::Output(thresholds()),
        function::LABEL_SIZE => Some(LabelRequest::Size { handle }),
        function::LABEL_READ => word(0).zip(word(4)).and_then(|(offset, length)| {
            (length <= MOST_LABEL_BYTES).then_some(LabelRequest::Read { handle, offset, length })
        }),
        function::LABEL_WRITE => word(0).zip(word(4)).and_then(|(offset, length)| {
            let bytes = input.get(8..)?.get(..length as usize)?.to_vec();
            (length <= MOST_LABEL_BYTES).then_some(LabelRequest::Write { handle, offset, bytes })
        }),
        _ => return DimmFunction::Output(NOT_SUPPORTED.to_le_bytes().to_vec()),
    };
    labels.map_or_else(|| DimmFunction::Output(INVALID.to_le_bytes().to_vec()), DimmFunction::Labels)
}

/// The output of a function that asked for something of the label area.
pub fn label_output(answer: LabelAnswer) -> Vec<u8> {
    let mut output = SUCCESS.to_le_bytes().to_vec();
    match answer {
        LabelAnswer::Size(size) => {
            output.extend(size.to_le_bytes());
            output.extend(MOST_LABEL_BYTES.to_le_bytes());
        }
        LabelAnswer::Bytes(bytes) => output.extend(bytes),
        LabelAnswer::Written => {}
        LabelAnswer::Invalid => output = INVALID.to_le_bytes().to_vec(),
    }
    output
}

/// Status and 128 bytes (struct nd_intel_smart, drivers/acpi/nfit/intel.h).
fn health(dirty_shutdowns: u32) -> Vec<u8> {
    let mut output = SUCCESS.to_le_bytes().to_vec();
    output.extend(VALID.to_le_bytes());
    output.extend([0; 4]);
    // Health without a fault, all spares, nothing of its life used, no alarm.
    output.extend([0, 100, 0, 0]);
    output.extend((30 * DEGREE).to_le_bytes());
    output.extend((35 * DEGREE).to_le_bytes());
    output.extend(dirty_shutdowns.to_le_bytes());
    // State of the last flush by the platform, temperature of the power controller, reserved.
    output.extend([0; 11]);
    output.push(u8::from(dirty_shutdowns > 0));
    output.resize(132, 0);
    output
}

/// Status and 8 bytes (struct nd_intel_smart_threshold): no alarm is enabled.
fn thresholds() -> Vec<u8> {
    vec![0; 12]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_that_saved_nothing_is_told() {
        for dirty in [0, 3] {
            let DimmFunction::Output(told) = dimm_function(1, 1, &[], dirty) else { panic!("an output") };
            assert_eq!(told.len(), 132);
            assert_eq!(
                u32::from_le_bytes([told[4], told[5], told[6], told[7]]) & 1 << 10,
                1 << 10,
                "state is valid"
            );
            assert_eq!(told[20..24], dirty.to_le_bytes());
            assert_eq!(told[35], u8::from(dirty > 0));
        }
    }

    #[test]
    fn labels_are_asked_for_in_pieces() {
        let range = |offset: u32, length: u32| [offset.to_le_bytes(), length.to_le_bytes()].concat();
        let read = LabelRequest::Read { handle: 2, offset: 8, length: 512 };
        assert_eq!(dimm_function(2, 5, &range(8, 512), 0), DimmFunction::Labels(read));
        let mut input = range(8, 2);
        input.extend([1, 2, 3]);
        let write = LabelRequest::Write { handle: 2, offset: 8, bytes: vec![1, 2] };
        assert_eq!(dimm_function(2, 6, &input, 0), DimmFunction::Labels(write));
        assert_eq!(label_output(LabelAnswer::Bytes(vec![7])), [0, 0, 0, 0, 7]);
        assert_eq!(label_output(LabelAnswer::Size(9)), [0, 0, 0, 0, 9, 0, 0, 0, 0, 2, 0, 0]);
        let invalid = DimmFunction::Output(vec![3, 0, 0, 0]);
        for (function, input) in [(5, range(0, 513)), (6, range(0, 4)), (5, vec![0; 7]), (6, vec![])] {
            assert_eq!(dimm_function(2, function, &input, 0), invalid, "{function} {input:?}");
        }
        assert_eq!(dimm_function(2, 99, &[], 0), DimmFunction::Output(vec![1, 0, 0, 0]));
    }
}
