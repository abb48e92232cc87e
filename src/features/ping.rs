//! Latency, measured by clients that cannot send WebSocket pings.

use crate::admission::gate::Admitted;
use crate::admission::rights::{Rate, Right};
use crate::features::data;
use crate::kernel::feature::{Answer, ConnRequest, Declaration, Declared, Feature, Home};
use crate::kernel::scope::ConnScope;

const DECLARATION: Declaration = Declaration {
    name: "ping",
    requests: &[Declared { event: "ping", home: Home::Conn, needs: Right::None, rate: Rate::Light }],
};

pub struct Ping;

impl Feature for Ping {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn on_conn_request(&mut self, scope: &mut ConnScope<'_>, _request: &Admitted<ConnRequest<'_>>) -> Answer {
        Ok(data::write(&serde_json::json!({ "ts": scope.now.unix_ms })))
    }
}
