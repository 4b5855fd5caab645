//! The published list of reasons.
//!
//! Knows nothing but the list; the words are the model's.

use fw_model::Reason;

/// The text of `docs/reasons.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Why a frame met its verdict: one closed list. A name is the counter's name, the log word and what tests \
         assert.\nThis file is what `vhost-fw reasons` prints.\n\n\
         | Reason | Meaning | Frame |\n|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let held = *reason == Reason::FragmentHeld;
        let fate = if held {
            "held"
        } else if reason.is_pass() {
            "forwarded"
        } else {
            "refused"
        };
        text.push_str(&format!("| `{reason}` | {} | {fate} |\n", reason.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_list_is_the_list() {
        let published = include_str!("../../docs/reasons.md");
        assert_eq!(published, document(), "regenerate: cargo run -p vhost-fw -- reasons > docs/reasons.md");
    }
}
