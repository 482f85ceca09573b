//! Texts at which generation stops.

/// Stop sequences that can be given, and the bytes of each.
pub const STOP_SEQUENCES_MAX: usize = 16;
pub const STOP_SEQUENCE_BYTES_MAX: usize = 256;

/// Texts whose first appearance ends a generation; neither it nor what follows is part of the text.
#[derive(Clone, Debug, Default)]
pub struct StopSequences {
    sequences: Vec<String>,
}

impl StopSequences {
    /// Empty ones never stop anything.
    pub fn new(sequences: &[String]) -> StopSequences {
        StopSequences { sequences: sequences.iter().filter(|sequence| !sequence.is_empty()).cloned().collect() }
    }

    /// Where the first of them begins in `text`.
    pub fn find(&self, text: &str) -> Option<usize> {
        self.sequences.iter().filter_map(|sequence| text.find(sequence.as_str())).min()
    }

    /// The bytes of `text` that are safe to show while more follows: its end may be the beginning of a stop sequence.
    pub fn settled(&self, text: &str) -> usize {
        let held_back = |sequence: &String| {
            let prefixes = sequence.char_indices().skip(1).map(|(at, _)| at).chain([sequence.len()]);
            prefixes.filter(|length| text.ends_with(&sequence[..*length])).max().unwrap_or(0)
        };
        text.len() - self.sequences.iter().map(held_back).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(sequences: &[&str]) -> StopSequences {
        StopSequences::new(&sequences.iter().map(|sequence| sequence.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn the_earliest_stop_counts() {
        let stops = stops(&["", "\n\n", "END", "EN"]);
        assert_eq!(stops.find("a END\n\n"), Some(2));
        assert_eq!(stops.find("a\n\nEND"), Some(1));
        assert_eq!(stops.find("nothing"), None);
    }

    #[test]
    fn what_may_become_a_stop_is_held_back() {
        let stops = stops(&["\n\n", "é!"]);
        assert_eq!(stops.settled("line\n"), 4);
        assert_eq!(stops.settled("line\nx"), 6);
        assert_eq!(stops.settled("caf\u{e9}"), 3);
        assert_eq!(stops.settled(""), 0);
        assert_eq!(StopSequences::default().settled("all\n"), 4);
    }
}
