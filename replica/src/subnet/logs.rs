//! A canister's log: the last lines it wrote, within a number of bytes.

use ic_management_canister_types::CanisterLogRecord;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What each record takes beside its content, in bytes.
const RECORD_OVERHEAD_BYTES: u64 = 40;

/// A ring of log records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CanisterLog {
    next_index: u64,
    used_bytes: u64,
    records: VecDeque<CanisterLogRecord>,
}

impl CanisterLog {
    /// Appends a line, cut to what the log can hold, and drops the oldest ones to make room.
    pub fn append(&mut self, time_ns: u64, mut content: Vec<u8>, limit_bytes: u64) {
        let capacity = limit_bytes.saturating_sub(RECORD_OVERHEAD_BYTES);
        content.truncate(usize::try_from(capacity).unwrap_or(usize::MAX));
        self.used_bytes += content.len() as u64 + RECORD_OVERHEAD_BYTES;
        let record = CanisterLogRecord { idx: self.next_index, timestamp_nanos: time_ns, content };
        self.records.push_back(record);
        self.next_index += 1;
        self.shrink_to(limit_bytes);
    }

    /// Drops the oldest records until the rest fits.
    pub fn shrink_to(&mut self, limit_bytes: u64) {
        while self.used_bytes > limit_bytes {
            let Some(record) = self.records.pop_front() else { break };
            self.used_bytes -= record.content.len() as u64 + RECORD_OVERHEAD_BYTES;
        }
    }

    /// Forgets the records; indices go on.
    pub fn clear(&mut self) {
        self.records.clear();
        self.used_bytes = 0;
    }

    pub fn records(&self) -> impl Iterator<Item = &CanisterLogRecord> {
        self.records.iter()
    }

    /// What the records take.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_make_room_for_new_ones() {
        let mut log = CanisterLog::default();
        for index in 0..100_u8 {
            log.append(u64::from(index), vec![index; 60], 1000);
        }
        // Ten records of 60 + 40 bytes fit into 1000.
        let kept: Vec<(u64, u8)> = log.records().map(|record| (record.idx, record.content[0])).collect();
        assert_eq!(kept, (90..100).map(|index| (index, index as u8)).collect::<Vec<_>>());
        assert_eq!(log.used_bytes(), 1000);
    }

    #[test]
    fn a_line_longer_than_the_log_is_cut() {
        let mut log = CanisterLog::default();
        log.append(1, vec![7; 10_000], 4096);
        assert_eq!(log.records().next().map(|record| record.content.len()), Some(4056));
        log.clear();
        assert_eq!(log.used_bytes(), 0);
        log.append(2, vec![8], 4096);
        assert_eq!(log.records().next().map(|record| record.idx), Some(1));
    }
}
