//! The client and the server of `src/echo.rs`, as `tonic-prost-build` makes them of a `.proto` file. That
//! would need `protoc`, so methods and messages are written by hand.

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn method(name: &str, route: &str) -> MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type("crate::echo::Text")
        .output_type("crate::echo::Text")
        .codec_path("tonic_prost::ProstCodec")
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let echo = Service::builder()
        .package("stacks")
        .name("Echo")
        .method(method("say", "Say").build())
        .method(method("gather", "Gather").client_streaming().build())
        .method(method("scatter", "Scatter").server_streaming().build())
        .method(
            method("chat", "Chat")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build();
    Builder::new().compile(&[echo]);
}
