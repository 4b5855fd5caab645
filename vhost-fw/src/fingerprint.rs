//! A number that stays with a NIC id over restarts and versions.
//!
//! It names taps whose id is too long and picks a NIC's own uid. It knows the id's text and must never be used
//! where an attacker could gain by a collision.

use fw_model::NicId;

/// FNV-1a, 64 bits: stable for ever, unlike the standard library's hasher.
pub(crate) fn fingerprint(nic: &NicId) -> u64 {
    nic.as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn it_never_changes() {
        assert_eq!(fingerprint(&"a".parse().unwrap()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(&"foobar".parse().unwrap()), 0x8594_4171_f739_67e8);
    }
}
