//! Label areas, as the NVDIMMs' firmware keeps them.
//!
//! A write is done piece by piece, a line at a time, while the processor waits in _LSW. All of it is durable when that
//! returns. Power that goes in between leaves any of the pieces: what the persistence domain is told is what it is told of
//! a device whose flush is answered at once.

use cpu::CpuView;
use devices::{LabelAnswer, LabelRequest};

use super::Board;
use crate::memory::{Region, RegionKind};

/// Bytes of a line.
const LINE: u64 = 64;

impl Board {
    /// Does what the firmware wants done.
    pub(super) fn label_request(&mut self, view: &CpuView, request: LabelRequest) -> LabelAnswer {
        let answer = match request {
            LabelRequest::Size { handle } => {
                self.label_area(handle).map(|(_, area)| LabelAnswer::Size(area.size as u32))
            }
            LabelRequest::Read { handle, offset, length } => self.read_labels(handle, offset, length),
            LabelRequest::Write { handle, offset, bytes } => self.write_labels(view, handle, offset, &bytes),
        };
        answer.unwrap_or(LabelAnswer::Invalid)
    }

    /// The label area of an NVDIMM, and its index among all regions.
    fn label_area(&self, handle: u32) -> Option<(u32, Region)> {
        let mut regions = (0..).zip(&self.wiring.regions);
        let (index, area) =
            regions.find(|(_, region)| region.kind == RegionKind::Labels && region.dimm == handle)?;
        Some((index, *area))
    }

    fn read_labels(&mut self, handle: u32, offset: u32, length: u32) -> Option<LabelAnswer> {
        let (_, area) = self.label_area(handle)?;
        let addr = within(&area, offset, length)?;
        let mut bytes = vec![0; length as usize];
        if self.memory.undecided.any(addr, bytes.len()) {
            self.memory.read_by_device(addr);
        }
        self.memory.read(addr, &mut bytes).then_some(LabelAnswer::Bytes(bytes))
    }

    fn write_labels(
        &mut self,
        view: &CpuView,
        handle: u32,
        offset: u32,
        bytes: &[u8],
    ) -> Option<LabelAnswer> {
        let (region, area) = self.label_area(handle)?;
        let mut addr = within(&area, offset, bytes.len() as u32)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece;
            (piece, rest) = rest.split_at(rest.len().min((LINE - addr % LINE) as usize));
            self.memory.write(addr, piece);
            let stop = self.recorder.label_store(view, addr, piece);
            self.recorded(stop);
            addr += piece.len() as u64;
        }
        let id = u64::from(region) << 48 | self.chips.label_writes;
        self.chips.label_writes += 1;
        let stop = self.recorder.device_flush_submitted(view, region, id);
        self.recorded(stop);
        let stop = self.recorder.device_flush_completed(region, id, 0);
        self.recorded(stop);
        Some(LabelAnswer::Written)
    }
}

/// The address of a range of the area.
fn within(area: &Region, offset: u32, length: u32) -> Option<u64> {
    let end = u64::from(offset) + u64::from(length);
    (end <= area.size).then(|| area.base + u64::from(offset))
}

#[cfg(test)]
mod tests {
    use cpu::{Bus, Page};
    use devices::{FlushHints, map};
    use persist::EventKind;

    use super::super::Wiring;
    use super::*;
    use crate::memory::{BankKind, Memory};

    const COMMAND: u64 = 0xc;
    const WINDOW: u64 = 0x400;
    const SIZE: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 3;

    fn view() -> CpuView {
        CpuView { vcpu: 0, cpl: 0, rip: 0x77, rsp: 0, retired: 5, tsc: 5 }
    }

    fn board() -> Board {
        let labels =
            Region { base: map::labels(1), size: map::LABELS_SIZE, kind: RegionKind::Labels, dimm: 2 };
        let banks = [(0, 1 << 20, BankKind::Ram), (labels.base, labels.size, BankKind::Pmem)];
        let wiring = Wiring {
            regions: vec![labels],
            hints: FlushHints::default(),
            media_errors: false,
            smart: Vec::new(),
        };
        let mut board = Board::new(Memory::new(&banks, None).unwrap(), wiring, 1);
        board.recorder.on = true;
        board
    }

    /// Does a command and returns its status.
    fn ask(board: &mut Board, handle: u32, offset: u32, length: u32, command: u32) -> u64 {
        for (register, value) in (0..).step_by(4).zip([handle, offset, length, command]) {
            board.mmio_write(&view(), map::NVDIMM_FIRMWARE + register, 4, value.into());
        }
        board.mmio_read(&view(), map::NVDIMM_FIRMWARE + COMMAND, 4)
    }

    #[test]
    fn what_is_written_is_told_line_by_line_and_durable_behind_it() {
        let mut board = board();
        board.mmio_write(&view(), map::NVDIMM_FIRMWARE + WINDOW, 8, 0x0807_0605_0403_0201);
        assert_eq!(ask(&mut board, 2, 60, 8, WRITE), 0);
        let told: Vec<EventKind> = board.recorder.take().into_iter().map(|event| event.kind).collect();
        let [
            EventKind::Store { addr: first, bytes: head, .. },
            EventKind::Store { addr: second, bytes: tail, .. },
            EventKind::DeviceFlushSubmitted { region: 0, id },
            EventKind::DeviceFlushCompleted { region: 0, id: completed, status: 0 },
        ] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((*first, &head[..]), (map::labels(1) + 60, &[1, 2, 3, 4][..]));
        assert_eq!((*second, &tail[..]), (map::labels(1) + 64, &[5, 6, 7, 8][..]));
        assert_eq!(id, completed);
        board.mmio_write(&view(), map::NVDIMM_FIRMWARE + WINDOW, 8, 0);
        assert_eq!(ask(&mut board, 2, 61, 6, READ), 0);
        let read = board.mmio_read(&view(), map::NVDIMM_FIRMWARE + WINDOW, 8);
        assert_eq!(read.to_le_bytes(), [2, 3, 4, 5, 6, 7, 0, 0]);
    }

    #[test]
    fn its_size_is_told() {
        let mut board = board();
        assert_eq!(ask(&mut board, 2, 0, 0, SIZE), 0);
        assert_eq!(board.mmio_read(&view(), map::NVDIMM_FIRMWARE + 4, 4), map::LABELS_SIZE);
        assert_eq!(board.mmio_read(&view(), map::NVDIMM_FIRMWARE + 8, 4), 1024);
    }

    #[test]
    fn other_nvdimms_and_ranges_beyond_the_end_are_invalid() {
        let mut board = board();
        let end = map::LABELS_SIZE as u32;
        for (handle, offset, length) in [(1, 0, 8), (2, end - 7, 8), (2, u32::MAX, 1), (2, 0, 1025)] {
            for command in [READ, WRITE] {
                assert_eq!(ask(&mut board, handle, offset, length, command), 2, "{offset:#x}");
            }
        }
        assert_eq!(ask(&mut board, 2, end - 8, 8, WRITE), 0);
        assert_eq!(board.recorder.take().len(), 3);
    }

    #[test]
    fn processors_and_devices_do_not_find_it() {
        let mut board = board();
        assert!(matches!(board.page(map::labels(1) / 4096), Page::Device));
        assert_eq!(board.memory.mappings().count(), 1, "what KVM and loaders are given");
        assert!(!board.memory.is_ram(map::labels(1), 1));
    }
}
