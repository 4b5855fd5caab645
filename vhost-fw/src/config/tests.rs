//! Command lines and config files, right and wrong.

use clap::CommandFactory;

use super::*;

fn device(words: &[&str]) -> Result<DeviceConfig, String> {
    let words = ["vhost-fw"].iter().chain(words);
    Cli::try_parse_from(words).map_err(|error| error.to_string())?.device.resolve()
}

const LEAST: &[&str] = &["--socket", "s", "--uplink", "null", "--nic", "a"];

fn least_and(words: &[&str]) -> Result<DeviceConfig, String> {
    device(&[LEAST, words].concat())
}

#[test]
fn clap_finds_no_fault_in_the_command_line() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_fits_one_page() {
    let help = Cli::command().render_help().to_string();
    assert!(help.lines().count() <= 50, "{}", help.lines().count());
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn the_least_command_line_gets_every_default() {
    let config = device(LEAST).unwrap();
    assert_eq!((config.queue_size, config.max_connections, config.client), (1024, 65_536, false));
    assert_eq!((config.poll, config.pin), (false, None));
    assert_eq!(config.uplink, UplinkChoice::Null);
}

#[test]
fn wrong_settings_say_what_would_be_right() {
    for (words, told) in [
        (&["--socket", "s", "--nic", "a"][..], "name one uplink"),
        (&["--socket", "s", "--uplink", "null"], "name the NIC"),
        (&["--uplink", "null", "--nic", "a"], "--socket PATH"),
        (&["--socket", "s", "--uplink", "nul", "--nic", "a"], "unix:PATH"),
        (&["--socket", "s", "--tap", "t", "--bridge", "b", "--nic", "a"], "cannot be used with"),
        (&["--socket", "s", "--tap", "a/b", "--nic", "a"], "no name of a network interface"),
        (&["--socket", "s", "--tap-fd", "1", "--nic", "a"], "3 or more"),
        (&["--sockt", "s"], "--socket"),
    ] {
        let error = device(words).unwrap_err();
        assert!(error.contains(told), "{told}: {error}");
    }
    for (words, told) in [
        (&["--queues", "2"][..], "one queue pair"),
        (&["--queue-size", "100"], "power of two"),
        (&["--max-connections", "0"], "expected 1 to"),
        (&["--mtu", "20"], "expected 68"),
        (&["--mac", "01:00:00:00:00:00"], "one interface's"),
        (&["--keeper", "--client"], "a keeper listens"),
        (&["--keeper", "--decision-log", "d"], "decisions go to stderr"),
    ] {
        let error = least_and(words).unwrap_err();
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let file = file::parse("socket: f\ntap: t\nnic: b\nmtu: 9000\nclient: true\n", "c.yaml").unwrap();
    let flags = Cli::try_parse_from(["vhost-fw", "--nic", "a", "--uplink", "null"]).unwrap().device;
    let config = flags.over(file).checked().unwrap();
    assert_eq!((config.socket, config.mtu, config.client), ("f".into(), Some(9000), true));
    assert_eq!((config.nic.unwrap().as_str(), config.uplink), ("a", UplinkChoice::Null));
}

#[test]
fn the_file_knows_every_flag() {
    let command = Cli::command();
    for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
        if matches!(flag, "help" | "version" | "config" | "check" | "kept") {
            continue;
        }
        let error = file::parse(&format!("{flag}: []\n"), "c.yaml").unwrap_err().to_string();
        assert!(!error.contains("unknown key"), "{error}");
    }
}

#[test]
fn an_uplink_of_null_may_be_written_without_quotes() {
    for text in ["uplink: null\n", "uplink: \"null\"\n"] {
        assert_eq!(file::parse(text, "c.yaml").unwrap().uplink, Some(UplinkChoice::Null));
    }
    let error = file::parse("sockt: x\n", "c.yaml").unwrap_err().to_string();
    assert!(error.starts_with("c.yaml:1: unknown key `sockt`; did you mean `socket`?"), "{error}");
}
