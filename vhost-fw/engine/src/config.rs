//! What an engine is made with.
//!
//! Knows numbers the shell gives once. Never knows rules.

/// What an engine is made with; it cannot change later.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Most conns at any time; rules may lower it.
    pub conns: u32,
    /// Bytes of fragments held at any time; rules may not raise it.
    pub fragments: u32,
    /// The key of the conn table's hash: 128 random bits, one key per process.
    pub hash_key: [u8; 16],
    /// The uplink's MTU in bytes, used where the rules name none.
    pub mtu: u16,
}

impl Config {
    /// Conns where nothing else is said.
    pub const CONNS: u32 = 65_536;
    /// Bytes of held fragments where nothing else is said.
    pub const FRAGMENTS: u32 = 1 << 20;
}
