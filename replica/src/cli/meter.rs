//! `replica meter`: the instruction count of one message.
