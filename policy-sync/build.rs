//! Makes both ends of the link's service. Its messages are in `src/link/wire.rs`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let method = |name: &str, route: &str, input: &str, output: &str| {
        let message = |name: &str| format!("crate::link::wire::{name}");
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(message(input))
            .output_type(message(output))
            .codec_path("tonic_prost::ProstCodec")
    };
    // An agent reports and is told what its NICs shall enforce, for as long as both live.
    let follow = method("follow", "Follow", "Report", "Order").client_streaming().server_streaming().build();
    // A new certificate in place of the one this is asked with.
    let renew = method("renew", "Renew", "RenewRequest", "Certificate").build();
    let link =
        Service::builder().name("Link").package("portcullis.link.v1").method(follow).method(renew).build();
    Builder::new().compile(&[link]);
}
