use super::samples::*;
use super::*;

mod layer2;
mod layer3;
mod layer4;
mod messages;
mod properties;

/// The headers of a whole frame.
#[track_caller]
fn whole(frame: &[u8]) -> Headers {
    match parse(frame, frame.len()) {
        Ok(Parsed::Headers(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

/// The IP part of a whole frame's headers.
#[track_caller]
fn ip(frame: &[u8]) -> Ip {
    let Net::Ip(ip) = whole(frame).net else { panic!("not IP") };
    ip
}

/// What is wrong with a whole frame.
#[track_caller]
fn fault(frame: &[u8]) -> Malformed {
    match parse(frame, frame.len()) {
        Err(malformed) => malformed,
        other => panic!("{other:?}"),
    }
}

/// Whether only the head of this frame was not enough.
fn needs_whole(frame: &[u8]) -> bool {
    parse(&frame[..frame.len().min(crate::HEAD_LEN)], frame.len()) == Ok(Parsed::NeedWhole)
}
