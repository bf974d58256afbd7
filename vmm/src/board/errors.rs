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

#[cfg(test)]
mod tests {
    use cpu::Bus;
    use devices::{FlushHints, map};
    use persist::EventKind;

    use super::super::Wiring;
    use super::*;
    use crate::memory::{BankKind, Memory};

    const BASE: u64 = 1 << 32;
    const SIZE: u64 = 2 << 20;

    fn view() -> CpuView {
        CpuView { vcpu: 0, cpl: 0, rip: 0x77, rsp: 0, retired: 5, tsc: 5 }
    }

    fn board(media_errors: bool) -> Board {
        let region = Region { base: BASE, size: SIZE, kind: RegionKind::Nvdimm, dimm: 1 };
        let banks = [(0, 1 << 20, BankKind::Ram), (BASE, SIZE, BankKind::Pmem)];
        let hints = FlushHints::default();
        let wiring = Wiring { regions: vec![region], hints, media_errors, smart: vec![1] };
        let mut board = Board::new(Memory::new(&banks, None).expect("memory"), wiring, 1);
        board.recorder.on = true;
        board
    }

    /// Calls a function, and returns the first words of its output.
    fn call(board: &mut Board, command: u64, handle: u64, input: &[u64]) -> [u64; 8] {
        let firmware = map::NVDIMM_FIRMWARE;
        for (word, at) in input.iter().zip((0x400..).step_by(8)) {
            board.mmio_write(&view(), firmware + at, 8, *word);
        }
        for (register, value) in [(0, handle), (8, 8 * input.len() as u64), (12, command)] {
            board.mmio_write(&view(), firmware + register, 4, value);
        }
        std::array::from_fn(|word| board.mmio_read(&view(), firmware + 0x400 + 8 * word as u64, 8))
    }

    #[test]
    fn a_lost_line_is_found_by_a_scrub_and_holds_zeros_once_it_is_cleared() {
        let mut board = board(true);
        board.memory.write(BASE + 0x1000, &[7; 256]);
        assert!(board.poison(BASE + 0x1041..BASE + 0x1042));
        assert_eq!(board.poisoned(BASE + 0x1000, 256), Some(BASE + 0x1040));
        assert!(board.has_undecided((BASE + 0x1000) / 4096) && !board.has_undecided(BASE / 4096));
        assert_eq!(call(&mut board, 0x102, 0, &[BASE, SIZE, 2])[0], 0);
        let status = call(&mut board, 0x103, 0, &[]);
        assert_eq!((status[0] >> 32, status[7]), (44 + 24, BASE + 0x1040));
        assert_eq!(call(&mut board, 0x104, 0, &[BASE + 0x1000, 256])[..2], [0, 256]);
        assert!(board.errors().is_empty());
        let mut line = [0; 256];
        board.memory.read(BASE + 0x1000, &mut line);
        assert_eq!((line[0x3f], &line[0x40..0x80], line[0x80]), (7, &[0; 64][..], 7));
        let told: Vec<EventKind> = board.recorder.take().into_iter().map(|event| event.kind).collect();
        let (addr, len) = (BASE + 0x1040, 64);
        assert_eq!(told, [EventKind::Poisoned { addr, len }, EventKind::PoisonCleared { addr, len }]);
    }

    #[test]
    fn only_regions_with_media_errors_lose_lines_and_only_whole_ranges_of_them() {
        assert!(!board(false).poison(BASE..BASE + 64));
        let mut board = board(true);
        for range in [
            BASE - 64..BASE + 64,
            BASE + SIZE - 1..BASE + SIZE + 1,
            0..64,
            BASE..BASE,
            u64::MAX - 1..u64::MAX,
        ] {
            assert!(!board.poison(range.clone()), "{range:#x?}");
        }
        assert!(board.errors().is_empty() && board.recorder.take().is_empty());
    }

    #[test]
    fn health_is_that_of_nvdimms_that_tell_of_it() {
        let mut board = board(false);
        board.set_dirty_shutdowns(3);
        assert_eq!(call(&mut board, 0x201, 1, &[])[2] >> 32, 3, "the count is behind 20 bytes");
        assert_eq!(call(&mut board, 0x201, 2, &[]), [0; 8]);
        assert_eq!(board.mmio_read(&view(), map::NVDIMM_FIRMWARE + 8, 4), 0, "no output");
        assert_eq!(call(&mut board, 0x204, 1, &[])[0] as u32, 3, "it has no label area");
    }
}
