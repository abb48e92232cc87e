//! socketioxide on axum and one thread, by polling alone: rooms, and whatever is published in them. PORT says where.

use axum::serve::ListenerExt;
use serde_json::Value;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide::{SocketIo, TransportType};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).expect("PORT is a port");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let (layer, io) = SocketIo::builder().transports([TransportType::Polling]).build_layer();
        io.ns("/", async |socket: SocketRef| {
            socket.on("join", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
                socket.join(room);
                let _ = ack.send(&());
            });
            socket.on("pub", async |io: SocketIo, Data((room, payload)): Data<(String, Value)>| {
                let _ = io.to(room).emit("msg", &payload).await;
            });
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        println!("up");
        let listener = listener.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        axum::serve(listener, axum::Router::new().layer(layer)).await.expect("it serves");
    });
}
