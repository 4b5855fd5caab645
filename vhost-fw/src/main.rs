//! The `vhost-fw` program: read the command line, run the verb, say what went wrong.
fn main() {}
