//! What stands behind functions of firmware, and media errors: lines of persistent memory whose content is lost, and their repair by firmware.
//!
//! A store to such a line changes nothing of that: what firmware repairs holds zeros.

use std::ops::Range;

use cpu::CpuView;
use devices::{DimmFunction, FirmwareRequest, MediaErrors, lines_around};

use super::Board;
use crate::memory::{Region, RegionKind};

impl Board {
    /// Does what the firmware wants done, and answers it.
    pub(super) fn firmware_request(&mut self, view: &CpuView, request: FirmwareRequest) {
        match request {
            FirmwareRequest::Labels(request) => {
                let answer = self.label_request(view, request);
                self.chips.firmware.answer(answer);
            }
            FirmwareRequest::Dimm { handle, function, input } => {
                let output = self.dimm_function(view, handle, function, &input);
                self.chips.firmware.output(&output);
            }
            FirmwareRequest::Bus { function, input } => {
                let regions = self.wiring.error_ranges();
                let answer = self.chips.scrub.call(function, &input, &self.chips.errors, &regions);
                answer.cleared.into_iter().for_each(|range| self.repair(view, range));
                self.chips.firmware.output(&answer.output);
            }
        }
    }

    fn dimm_function(&mut self, view: &CpuView, handle: u32, function: u32, input: &[u8]) -> Vec<u8> {
        if !self.wiring.smart.contains(&handle) {
            return Vec::new();
        }
        match devices::dimm_function(handle, function, input, self.chips.dirty_shutdowns) {
            DimmFunction::Output(output) => output,
            DimmFunction::Labels(request) => devices::label_output(self.label_request(view, request)),
        }
    }

    /// Repairs the lines of a range: they hold zeros, durable.
    fn repair(&mut self, view: &CpuView, range: Range<u64>) {
        let lost: Vec<Range<u64>> = self.chips.errors.within(range.clone()).collect();
        self.chips.errors.remove(range);
        for part in lost {
            let len = part.end - part.start;
            self.memory.write(part.start, &vec![0; len as usize]);
            let stop = self.recorder.poison_cleared(view, part.start, len);
            self.recorded(stop);
        }
    }

    /// The media loses every line of the range, which lies in one region of which errors are known; false if it does not.
    pub(crate) fn poison(&mut self, range: Range<u64>) -> bool {
        let lines = lines_around(range);
        let inside = |region: &Range<u64>| region.start <= lines.start && lines.end <= region.end;
        if lines.is_empty() || !self.wiring.error_ranges().iter().any(inside) {
            return false;
        }
        self.chips.errors.add(lines.clone());
        let stop = self.recorder.poisoned(lines.start, lines.end - lines.start);
        self.recorded(stop);
        true
    }

    /// Lines whose content is lost.
    pub(crate) fn errors(&self) -> &MediaErrors {
        &self.chips.errors
    }

    /// Whether other lines are lost than in this state.
    pub(crate) fn has_other_errors(&self, state: &super::BoardState) -> bool {
        self.chips.errors != state.chips.errors
    }

    /// These lines are lost, and no others: as it was before power-on, no event.
    pub(crate) fn set_errors(&mut self, lines: &[u64]) {
        self.chips.errors = MediaErrors::default();
        lines.iter().for_each(|&line| self.chips.errors.add(line..line + devices::LINE));
    }
}

impl super::Wiring {
    /// Where firmware knows of errors.
    fn error_ranges(&self) -> Vec<Range<u64>> {
        if !self.media_errors {
            return Vec::new();
        }
        let nvdimm = |region: &&Region| region.kind == RegionKind::Nvdimm;
        self.regions.iter().filter(nvdimm).map(|region| region.base..region.base + region.size).collect()
    }
}
