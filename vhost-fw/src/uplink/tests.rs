#[test]
fn placeholder_for_build() {}
