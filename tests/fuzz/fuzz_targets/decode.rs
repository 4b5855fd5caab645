//! Feeds `fw_tests::fuzzing::decode` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fw_tests::fuzzing::decode(bytes));
