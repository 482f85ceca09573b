//! The definition, bit by bit.

/// The CRC-32 of a message for a register that starts from `register`: reflected, polynomial 0x04c11db7, inverted at the
/// end.
pub(crate) fn crc32(register: u32, message: &[u8]) -> u32 {
    let mut crc = register;
    for byte in message {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}
