//! Where a conn stands, as a word.
//!
//! Knows the states and their names. Never knows what leads from one to another.

/// Where a conn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnState {
    /// TCP: the opener's SYN was seen.
    SynSent,
    /// TCP: the SYN/ACK was seen.
    SynReceived,
    /// TCP: the handshake is complete.
    Established,
    /// TCP: a FIN was seen.
    FinWait,
    /// TCP: both FINs are acknowledged.
    TimeWait,
    /// TCP: a reset ended it.
    Close,
    /// Others: nobody has answered yet.
    Asked,
    /// Others: both ends have spoken.
    Answered,
}

impl ConnState {
    /// Its name for operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinWait => "fin-wait",
            Self::TimeWait => "time-wait",
            Self::Close => "close",
            Self::Asked => "asked",
            Self::Answered => "answered",
        }
    }
}
